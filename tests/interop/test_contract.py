"""The contract as three gRPC implementations see it, directly and through each proxy.

A server and its proxy serve all tests of a route: each test has gateway ids of its own,
and counts from the cursor where it found the stream.
"""

import itertools

import pytest

from clients import Failed
from cursors import Cursor, beside, parse, sequences
from peers import client_event, numbered, numbers, session_invalidation, wait_until

RING_EVENTS = 500
MAX_SUBSCRIBERS = 100

unique = itertools.count(1)


def new_id():
    return f"gateway-{next(unique)}"


@pytest.fixture
def gateway(route, connect):
    return connect(route.gateways)


@pytest.fixture
def publisher(route, connect):
    return connect(route.publishers)


def publish(publisher, wanted, batch=100, padding=0):
    """Publishes events with these numbers, by batches; returns the last cursor."""
    wanted = list(wanted)
    for first in range(0, len(wanted), batch):
        response = publisher.publish(*numbered(wanted[first : first + batch], padding))
    return response.last_cursor


def assert_follows(events, cursor):
    """Gapless, free of repeats, in order, right after the cursor."""
    first = parse(cursor).sequence + 1
    assert sequences(events) == list(range(first, first + len(events)))


def assert_says(end, reason, retries, **figures):
    """What a status says to machines: why, with these figures, and whether to try again."""
    assert end.info is not None, end
    assert end.info.reason == reason
    assert dict(end.info.metadata) == {key: str(value) for key, value in figures.items()}
    assert (end.retry_seconds is not None) == retries, end
    if retries:
        assert 0 < end.retry_seconds <= 30


def assert_goes_on(stream, publisher):
    """What is published from now on arrives."""
    publish(publisher, [4711])
    assert numbers([stream.next()]) == [4711]


def test_the_metadata_arrives_before_any_event(gateway, publisher):
    stream = gateway.subscribe(new_id())
    # Nothing is published for it yet: only the headers can be here.
    metadata = stream.metadata
    start = metadata.pop("push-start-cursor")
    assert metadata == {"push-resume": "fresh", "push-resume-reason": "no-cursor"}
    publish(publisher, [1, 2, 3])
    events = stream.take(3)
    assert numbers(events) == [1, 2, 3]
    assert_follows(events, start)


def test_events_arrive_as_they_were_published(gateway, publisher):
    stream = gateway.subscribe(new_id())
    assert stream.metadata
    published = [
        client_event(
            user_id="Zoë 🚀",
            device_session_id="session",
            payload=bytes(range(256)),
            event_id="event",
            request_id="request",
            trace_id="trace",
        ),
        session_invalidation(user_id="user", device_session_id="one", reason="logout"),
        session_invalidation(user_id="user"),
        client_event(payload=b""),
    ]
    response = publisher.publish(*published)
    events = stream.take(4)
    assert (response.first_cursor, response.last_cursor) == (
        events[0].cursor,
        events[3].cursor,
    )
    for event in events:
        event.cursor = ""
    assert events == published


def test_a_long_run_of_events_has_no_gap(gateway, publisher):
    stream = gateway.subscribe(new_id())
    start = stream.metadata["push-start-cursor"]
    # Never a whole ring ahead of the reader.
    for first in range(0, 2000, 250):
        publish(publisher, range(first, first + 250), padding=500)
        events = stream.take(250)
        assert numbers(events) == list(range(first, first + 250))
        assert_follows(events, start)
        start = events[-1].cursor


def test_a_gateway_resumes_by_its_cursor(gateway, publisher):
    gateway_id = new_id()
    stream = gateway.subscribe(gateway_id)
    assert stream.metadata
    publish(publisher, range(10))
    last = stream.take(4)[-1].cursor
    stream.cancel()
    publish(publisher, range(10, 20))
    again = gateway.subscribe(gateway_id, last)
    assert again.metadata == {
        "push-resume": "resumed",
        "push-resume-reason": "requested",
        "push-start-cursor": last,
    }
    events = again.take(16)
    assert numbers(events) == list(range(4, 20))
    assert_follows(events, last)


def test_a_takeover_ends_the_older_stream_alone(gateway, publisher, route, connect):
    gateway_id = new_id()
    neighbour = gateway.subscribe(new_id())
    old = gateway.subscribe(gateway_id)
    assert neighbour.metadata and old.metadata
    new = connect(route.gateways).subscribe(gateway_id)
    assert new.metadata
    assert old.rest() == []
    assert old.status.code == "ABORTED"
    assert "gateway_client_id" in old.status.details
    # By whom: the client, or the proxy before it.
    peer = old.status.info.metadata["peer"]
    assert peer.startswith("127.0.0.1:"), peer
    assert peer in old.status.details
    assert_says(old.status, "TAKEN_OVER", retries=False, peer=peer)
    publish(publisher, [1])
    assert numbers([new.next(), neighbour.next()]) == [1, 1]


@pytest.mark.parametrize("reason", ["expired", "ahead", "other-epoch", "malformed"])
def test_a_cursor_that_is_no_good_is_named(gateway, publisher, reason):
    first = publish(publisher, [0])
    head = publish(publisher, range(RING_EVENTS + 100))
    epoch, sequence = parse(head)
    cursor = {
        "expired": first,
        "ahead": str(Cursor(epoch, sequence + 1)),
        "other-epoch": str(Cursor(epoch - 1, sequence)),
        "malformed": head.lower(),
    }[reason]
    stream = gateway.subscribe(new_id(), cursor)
    missed = {"push-missed": str(RING_EVENTS + 100)} if reason == "expired" else {}
    assert stream.metadata == {
        "push-resume": "fresh",
        "push-resume-reason": reason,
        "push-start-cursor": head,
        **missed,
    }
    assert_goes_on(stream, publisher)


def test_a_lapped_gateway_learns_how_many_events_it_missed(gateway, publisher):
    gateway_id = new_id()
    stream = gateway.subscribe(gateway_id)
    assert stream.metadata
    # grpc-js holds a server back only once it has been asked for a message.
    publish(publisher, [0])
    start = stream.next().cursor
    # More than the windows and buffers on the way take, and than the ring holds.
    count = 3000
    head = publish(publisher, range(count), batch=50, padding=10_000)
    delivered = stream.rest()
    assert_follows(delivered, start)
    assert stream.status.code == "OUT_OF_RANGE"
    # Counted when the stream ended, which may have been before the last event.
    missed = int(stream.status.trailers["push-missed"])
    assert RING_EVENTS < missed <= count - len(delivered)
    assert_says(stream.status, "LAGGED", retries=True, missed=missed)
    last = delivered[-1].cursor if delivered else start
    again = gateway.subscribe(gateway_id, last)
    assert again.metadata == {
        "push-resume": "fresh",
        "push-resume-reason": "expired",
        "push-start-cursor": head,
        "push-missed": str(count - len(delivered)),
    }


def test_a_refused_gateway_reads_why(gateway):
    for gateway_id, figures in (
        ("", {}),
        ("g" * 257, {"bytes": 257, "limit": 256}),
        ("line\nfeed", {"at_byte": 4}),
    ):
        status = gateway.subscribe(gateway_id).status
        assert status.code == "INVALID_ARGUMENT"
        assert "gateway_client_id" in status.details
        figures["field"] = "gateway_client_id"
        assert_says(status, "INVALID_GATEWAY_ID", retries=False, **figures)


def test_a_refused_publisher_reads_why(gateway, publisher):
    stream = gateway.subscribe(new_id())
    assert stream.metadata
    for bad, named, reason in (
        (client_event(user_id=""), "client_event.user_id", "FIELD_EMPTY"),
        (session_invalidation(user_id=""), "session_invalidation.user_id", "FIELD_EMPTY"),
        (client_event(kind=""), "client_event.kind", "FIELD_EMPTY"),
        (client_event(payload=b"x" * (2 << 20)), f"{2 << 20}", "EVENT_TOO_LARGE"),
    ):
        with pytest.raises(Failed) as refused:
            publisher.publish(client_event(), bad)
        assert refused.value.end.code == "INVALID_ARGUMENT"
        assert "events[1]" in refused.value.end.details
        assert named in refused.value.end.details
        info = refused.value.end.info
        assert (info.reason, info.metadata["index"]) == (reason, "1")
        assert named in info.metadata.values()
        assert refused.value.end.retry_seconds is None
    # Nothing of them was published.
    assert_goes_on(stream, publisher)


def test_a_publish_stream_responds_to_every_request_in_order(publisher):
    feed = publisher.feed()
    head = None
    for size in (1, 7, 3, 40, 2) * 5:
        feed.send(*numbered(range(size)))
    feed.finish()
    responses = feed.responses()
    assert feed.status.code == "OK"
    for size, response in zip((1, 7, 3, 40, 2) * 5, responses, strict=True):
        assert head is None or response.first_cursor == beside(head, 1)
        assert response.last_cursor == beside(response.first_cursor, size - 1)
        head = response.last_cursor


def test_a_publish_stream_responds_while_it_is_open(gateway, publisher, route):
    stream = gateway.subscribe(new_id())
    assert stream.metadata
    feed = publisher.feed()
    for number in range(3):
        feed.send(*numbered([number]))
        assert feed.response().last_cursor == stream.next().cursor
    feed.send(client_event(user_id=""))
    assert feed.responses() == []
    # HAProxy may put RST_STREAM CANCEL in the place of a status that comes before the
    # request's end.
    if route.name != "haproxy":
        assert feed.status.code == "INVALID_ARGUMENT"
        assert "client_event.user_id" in feed.status.details
    assert feed.status.code != "OK"


def test_a_cancel_reaches_the_server(gateway):
    # More than may be subscribed at once, each with an id of its own. They are kept: some
    # clients cancel a stream that nobody holds.
    streams = []
    for _ in range(MAX_SUBSCRIBERS + 20):

        def accepted():
            stream = gateway.subscribe(new_id())
            streams.append(stream)
            assert len(streams) < 3 * MAX_SUBSCRIBERS, "cancels do not arrive"
            accepted = "push-start-cursor" in stream.metadata
            stream.cancel()
            return accepted

        # A cancel is on its way while the next one subscribes.
        wait_until(accepted)


def test_a_deadline_ends_a_stream(gateway, publisher):
    stream = gateway.subscribe(new_id(), timeout=2)
    assert stream.metadata
    publish(publisher, [1, 2])
    assert numbers(stream.rest()) == [1, 2]
    assert stream.status.code == "DEADLINE_EXCEEDED"


def test_large_events_arrive_whole(gateway, publisher):
    stream = gateway.subscribe(new_id())
    start = stream.metadata["push-start-cursor"]
    payloads = [bytes([number]) * (1 << 20) for number in range(5)]
    for payload in payloads:
        publisher.publish(client_event(payload=payload))
    events = stream.take(5)
    assert_follows(events, start)
    assert [event.client_event.payload for event in events] == payloads


def returns(route, gateway, gateway_id, cursor):
    """A gateway that tries until the server is back; gives the stream that it gets."""

    def subscribed():
        streams.append(gateway.subscribe(gateway_id, cursor))
        return "push-start-cursor" in streams[-1].metadata

    streams = []
    route.start_server()
    wait_until(subscribed)
    return streams[-1]


def test_a_server_that_stops_is_unavailable_and_comes_back(
    gateway, publisher, route, client
):
    gateway_id = new_id()
    stream = gateway.subscribe(gateway_id)
    assert stream.metadata
    head = publish(publisher, range(10))
    assert numbers(stream.take(10)) == list(range(10))
    route.stop_server()
    assert stream.rest() == []
    assert stream.status.code == "UNAVAILABLE"
    if client.hears_goodbyes or route.name != "direct":
        assert "stopping" in stream.status.details
        assert_says(stream.status, "STOPPING", retries=True)
    again = returns(route, gateway, gateway_id, head)
    assert again.metadata["push-resume-reason"] == "other-epoch"

    def published():
        try:
            return publish(publisher, [1])
        except Failed as failed:
            assert failed.end.code == "UNAVAILABLE"

    wait_until(published)
    assert numbers([again.next()]) == [1]


def test_a_server_that_dies_never_ends_a_stream_well(gateway, publisher, route):
    gateway_id = new_id()
    stream = gateway.subscribe(gateway_id)
    assert stream.metadata
    head = publish(publisher, range(10))
    assert numbers(stream.take(10)) == list(range(10))
    route.server.process.kill()
    route.server.wait()
    assert stream.rest() == []
    assert stream.status.code != "OK"
    again = returns(route, gateway, gateway_id, head)
    assert again.metadata["push-resume-reason"] == "other-epoch"
