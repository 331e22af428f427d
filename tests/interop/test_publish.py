"""Publishing, one batch at a time and as a stream, and what is refused."""

import grpc
import pytest

from galaxy.push.publisher.v1 import publisher_pb2

from cursors import parse
from peers import client_event, numbered, numbers, session_invalidation
from wire import field, request, varint

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def test_the_response_names_the_first_and_the_last_event(server):
    stream = server.gateway().subscribe()
    assert stream.start_cursor
    response = server.publisher().publish(*numbered(range(10)))
    cursors = [event.cursor for event in stream.take(10)]
    assert (response.first_cursor, response.last_cursor) == (cursors[0], cursors[-1])


def test_the_response_to_a_single_event_names_it_twice(server):
    response = server.publisher().publish(client_event())
    assert response.first_cursor == response.last_cursor != ""


def test_a_publish_stream_responds_to_every_request_in_order(server):
    feed = server.publisher().stream()
    sizes = [1, 7, 3, 40, 2] * 20
    for size in sizes:
        feed.send(*numbered(range(size)))
    feed.send_no_more()
    responses, code, _ = feed.responses()
    assert code == grpc.StatusCode.OK
    spans = [
        (parse(response.first_cursor).sequence, parse(response.last_cursor).sequence)
        for response in responses
    ]
    expected, head = [], 0
    for size in sizes:
        expected.append((head + 1, head + size))
        head += size
    assert spans == expected


def test_a_publish_stream_responds_while_it_is_open(server):
    feed = server.publisher().stream()
    for sequence in (1, 2, 3):
        feed.send(client_event())
        assert parse(feed.response().first_cursor).sequence == sequence


def test_a_bad_request_ends_a_publish_stream_and_earlier_responses_stand(server):
    gateway = server.gateway().subscribe()
    assert gateway.start_cursor
    publisher = server.publisher()
    feed = publisher.stream()
    feed.send(*numbered([1, 2]))
    feed.send(*numbered([3]), client_event(user_id=""))
    feed.send(*numbered([4]))
    responses, code, details = feed.responses()
    assert len(responses) == 1
    assert code == INVALID
    assert "events[1].client_event.user_id" in details
    publisher.publish(*numbered([5]))
    assert numbers(gateway.take(3)) == [1, 2, 5]


def test_batches_of_several_publishers_do_not_mix(server):
    gateway = server.gateway().subscribe()
    assert gateway.start_cursor
    feeds = [server.publisher().stream() for _ in range(3)]
    for batch in range(100):
        for index, feed in enumerate(feeds):
            feed.send(*(client_event(user_id=f"{index}-{batch}") for _ in range(5)))
    users = [event.client_event.user_id for event in gateway.take(1500)]
    batches = [users[at : at + 5] for at in range(0, 1500, 5)]
    assert all(len(set(batch)) == 1 for batch in batches)
    for index in range(3):
        own = [batch[0] for batch in batches if batch[0].startswith(f"{index}-")]
        assert own == [f"{index}-{batch}" for batch in range(100)]


GOOD = client_event(event_id="0").SerializeToString()
CLIENT_EVENT_TEXTS = {
    "user_id": 1,
    "device_session_id": 2,
    "kind": 3,
    "event_id": 5,
    "request_id": 6,
    "trace_id": 7,
}
SESSION_INVALIDATION_TEXTS = {"device_session_id": 1, "user_id": 2, "reason": 3}


def bad_events():
    def bad(event, *named, id):
        if not isinstance(event, bytes):
            event = event.SerializeToString()
        return pytest.param(event, named, id=id)

    yield bad(b"", "kind", id="no kind set")
    yield bad(field(99, b"new"), "kind", id="only an unknown kind")
    yield bad(client_event(user_id=""), "client_event.user_id", id="no user_id")
    yield bad(client_event(kind=""), "client_event.kind", id="no kind of a client event")
    yield bad(
        session_invalidation(user_id=""),
        "session_invalidation.user_id",
        id="no user_id in an invalidation",
    )
    event = client_event()
    event.cursor = "CBSZJPG00007-0000000001A"
    yield bad(event, "cursor", id="a cursor already set")
    event.cursor = "x"
    yield bad(event, "cursor", id="something else for a cursor")
    required = client_event().client_event.SerializeToString()
    for name, number in CLIENT_EVENT_TEXTS.items():
        yield bad(
            field(1, required + field(number, b"\xff\xfe")),
            f"client_event.{name}",
            id=f"client_event.{name} is not UTF-8",
        )
    required = session_invalidation().session_invalidation.SerializeToString()
    for name, number in SESSION_INVALIDATION_TEXTS.items():
        yield bad(
            field(2, required + field(number, b"\xc0\x80")),
            f"session_invalidation.{name}",
            id=f"session_invalidation.{name} is not UTF-8",
        )
    yield bad(GOOD[:-1], id="cut off")
    yield bad(GOOD + b"\xff" * 11, id="a varint without an end")
    yield bad(GOOD + b"\x07", id="a wire type that does not exist")
    yield bad(varint(1 << 3) + b"\x05", id="a number where a message belongs")
    yield bad(field(1, b"\x0a\x7f"), id="a client event that is cut off")
    yield bad(b"\x00\x01", id="field number 0")


@pytest.mark.parametrize("event, named", list(bad_events()))
@pytest.mark.parametrize("index", [0, 2])
def test_a_bad_event_is_named_and_nothing_of_its_batch_is_published(
    server, event, named, index
):
    gateway = server.gateway().subscribe()
    start = parse(gateway.start_cursor).sequence
    events = [GOOD] * 3
    events[index] = event
    publisher = server.publisher()
    with pytest.raises(grpc.RpcError) as refused:
        publisher.publish_raw(request(*events))
    assert refused.value.code() == INVALID
    assert f"events[{index}]" in refused.value.details()
    for name in named:
        assert name in refused.value.details()
    # The next event that is accepted is the next that there is.
    publisher.publish(client_event(event_id="1"))
    after = gateway.next()
    assert after.client_event.event_id == "1"
    assert parse(after.cursor).sequence == start + 1


def test_a_request_without_events_is_refused(server):
    with pytest.raises(grpc.RpcError) as refused:
        server.publisher().publish()
    assert refused.value.code() == INVALID
    assert "events" in refused.value.details()


def test_bytes_that_are_no_request_are_refused(server):
    with pytest.raises(grpc.RpcError) as refused:
        server.publisher().publish_raw(request(GOOD) + b"\x0a\x7f")
    assert refused.value.code() == INVALID


def event_of(size):
    """An event that is so many bytes long."""
    payload = size - len(client_event(payload=b"x" * size).SerializeToString()) + size
    event = client_event(payload=b"x" * payload)
    assert len(event.SerializeToString()) == size
    return event


def test_an_event_of_the_greatest_size_is_delivered(serve):
    server = serve("--max-event-bytes=10000")
    gateway = server.gateway().subscribe()
    assert gateway.start_cursor
    event = event_of(10_000)
    server.publisher().publish(event)
    assert gateway.next().client_event == event.client_event


def test_an_event_over_the_greatest_size_is_refused(serve):
    server = serve("--max-event-bytes=10000")
    gateway = server.gateway().subscribe()
    assert gateway.start_cursor
    publisher = server.publisher()
    with pytest.raises(grpc.RpcError) as refused:
        publisher.publish(client_event(), event_of(10_001))
    assert refused.value.code() == INVALID
    assert "events[1]" in refused.value.details()
    assert "10000" in refused.value.details()
    publisher.publish(client_event(event_id="1"))
    assert gateway.next().client_event.event_id == "1"


def test_the_publishers_service_is_not_on_the_gateways_port(server):
    with grpc.insecure_channel(server.gateways) as channel:
        publish = channel.unary_unary("/galaxy.push.publisher.v1.Publisher/Publish")
        message = publisher_pb2.PublishRequest(events=[client_event()])
        with pytest.raises(grpc.RpcError) as refused:
            publish(message.SerializeToString(), timeout=60)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
