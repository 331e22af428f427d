"""How streams end: a test for every row of the end-of-stream table."""

import signal
import threading
import time

import grpc
import pytest

from cursors import parse, sequences
from peers import Reader, numbered, numbers, wait_until


def assert_whole(events, start):
    """Gapless, free of repeats, in order, right after the start cursor."""
    first = parse(start).sequence + 1
    assert sequences(events) == list(range(first, first + len(events)))


def test_a_newer_subscription_takes_the_id_over(server):
    gateway = server.gateway("one")
    old = gateway.subscribe()
    assert old.start_cursor
    publisher = server.publisher()
    publisher.publish(*numbered([1, 2, 3]))
    assert numbers(old.take(3)) == [1, 2, 3]
    new = gateway.subscribe()
    assert new.start_cursor
    publisher.publish(*numbered([4, 5]))
    assert numbers(new.take(2)) == [4, 5]
    assert old.rest() == []
    assert old.code == grpc.StatusCode.ABORTED


def test_a_takeover_from_another_connection_is_one_too(server):
    old = server.gateway("one").subscribe()
    assert old.start_cursor
    new = server.gateway("one").subscribe()
    assert new.start_cursor
    assert old.rest() == []
    assert old.code == grpc.StatusCode.ABORTED


def test_other_ids_are_not_touched_by_a_takeover(server):
    other = server.gateway("other").subscribe()
    old = server.gateway("one").subscribe()
    assert other.start_cursor and old.start_cursor
    assert server.gateway("one").subscribe().start_cursor
    assert old.code == grpc.StatusCode.ABORTED
    server.publisher().publish(*numbered([1]))
    assert numbers([other.next()]) == [1]


def test_what_is_published_after_a_takeover_never_reaches_the_older_stream(server):
    gateway = server.gateway("one")
    stop = threading.Event()
    publisher = server.publisher()
    published = []

    def keep_publishing():
        while not stop.is_set():
            # Large ones: what a stream has taken is then soon read.
            batch = numbered(range(20), padding=2000)
            published.append(publisher.publish(*batch).last_cursor)

    publishing = threading.Thread(target=keep_publishing)
    publishing.start()
    try:
        marking = server.publisher()
        stream = gateway.subscribe()
        start = stream.start_cursor
        reader = Reader(stream)
        for _ in range(10):
            count = len(published)
            wait_until(lambda: len(published) > count)
            newer = gateway.subscribe()
            newer_start = newer.start_cursor
            # The older stream has taken its last event by now.
            mark = marking.publish(*numbered([0])).first_cursor
            events = reader.all()
            assert stream.code == grpc.StatusCode.ABORTED
            assert_whole(events, start)
            assert all(event.cursor < mark for event in events)
            stream, start, reader = newer, newer_start, Reader(newer)
    finally:
        stop.set()
        publishing.join()


def test_a_lapped_gateway_is_told_how_many_events_it_missed(serve):
    server = serve("--max-events=1000")
    slow = server.gateway("slow").subscribe()
    start = slow.start_cursor
    fast = Reader(server.gateway("fast").subscribe())
    assert fast.stream.start_cursor == start
    publisher = server.publisher()
    # 40 MB in a ring of 1 MB. The slow gateway reads nothing meanwhile; the
    # fast one sets the pace, so that it is never lapped itself.
    published = 0
    for _ in range(400):
        publisher.publish(*numbered(range(published, published + 100), padding=1000))
        published += 100
        fast.wait_for(published)
    delivered = slow.rest()
    assert slow.code == grpc.StatusCode.OUT_OF_RANGE
    assert_whole(delivered, start)
    assert len(delivered) + int(slow.trailers["push-missed"]) == published
    # The fast one saw nothing of it.
    events = fast.wait_for(published)
    assert numbers(events) == list(range(published))
    assert_whole(events, start)


def test_a_lapped_gateway_comes_back_and_is_told_again(serve):
    server = serve("--max-events=1000")
    gateway = server.gateway()
    stream = gateway.subscribe()
    start = stream.start_cursor
    publisher = server.publisher()
    for batch in range(400):
        head = publisher.publish(
            *numbered(range(batch * 100, batch * 100 + 100), padding=1000)
        ).last_cursor
    delivered = stream.rest()
    last = delivered[-1].cursor if delivered else start
    assert stream.code == grpc.StatusCode.OUT_OF_RANGE
    again = gateway.subscribe(last)
    missed = parse(head).sequence - parse(last).sequence
    assert again.push_metadata == {
        "push-resume": "fresh",
        "push-resume-reason": "expired",
        "push-start-cursor": head,
        "push-missed": str(missed),
    }


def test_a_slow_gateway_costs_no_more_memory_than_the_settings_allow(serve):
    server = serve("--max-bytes=16MiB", "--max-events=10000")
    slow = [server.gateway(f"slow-{n}").subscribe() for n in range(8)]
    for stream in slow:
        assert stream.start_cursor
    publisher = server.publisher()
    for batch in range(320):
        publisher.publish(*numbered(range(batch * 20, batch * 20 + 20), padding=50_000))
    # 320 MB have passed. What is not ring is the process itself, and what it
    # has for each connection.
    assert server.peak_memory_bytes() < 128 * 2**20


def test_a_stalled_gateway_is_cut_off_and_resumes_without_loss(serve):
    server = serve("--stall-timeout=1s", "--max-subscribers=1")
    gateway = server.gateway("stalled")
    publisher = server.publisher()
    publisher.publish(*numbered([0]))
    stream = gateway.subscribe()
    start = stream.start_cursor
    # More than the windows and the kernel's buffers take, all in the ring.
    for batch in range(320):
        publisher.publish(*numbered(range(batch * 20, batch * 20 + 20), padding=5000))
    # There is room for another when the server has given the stalled one up.
    other = server.gateway("other")

    def has_room():
        stream = other.subscribe()
        accepted = "push-start-cursor" in stream.metadata
        stream.cancel()
        return accepted

    wait_until(has_room)
    delivered = stream.rest()
    assert len(delivered) < 6400
    assert_whole(delivered, start)
    last = delivered[-1].cursor if delivered else start
    assert stream.code == grpc.StatusCode.DEADLINE_EXCEEDED
    reason, figures = stream.reason
    assert reason == "STALLED"
    assert int(figures["stalled_ms"]) >= 1000
    attempts = []

    def accepted():
        # The other's cancel may still be on its way.
        attempts.append(gateway.subscribe(last))
        return "push-resume" in attempts[-1].metadata

    wait_until(accepted)
    again = attempts[-1]
    assert again.metadata["push-resume"] == "resumed"
    assert numbers(again.take(6400 - len(delivered))) == list(
        range(len(delivered), 6400)
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_server_says_so_and_exits_with_zero(server, number):
    streams = [server.gateway(f"gateway-{n}").subscribe() for n in range(3)]
    for stream in streams:
        assert stream.start_cursor
    server.signal(number)
    for stream in streams:
        assert stream.rest() == []
        assert stream.code == grpc.StatusCode.UNAVAILABLE
    assert server.wait() == 0


def test_what_was_accepted_before_the_stop_is_delivered(serve):
    # Time enough: the gateways of this test share one interpreter.
    server = serve("--shutdown-grace=60s")
    streams = [server.gateway(f"gateway-{n}").subscribe() for n in range(3)]
    starts = [stream.start_cursor for stream in streams]
    readers = [Reader(stream) for stream in streams]
    feeds = [server.publisher().stream() for _ in range(2)]
    stop = threading.Event()

    def keep_publishing(feed):
        # Until the stop always some megabytes ahead of the gateways: more than
        # their streams have taken from the ring.
        sent = 0
        while not stop.is_set():
            feed.send(*numbered(range(sent, sent + 20), padding=3000))
            sent += 20
            while sent > readers[0].count() + 3000 and not stop.is_set():
                time.sleep(0.001)

    responses = [[] for _ in feeds]
    endings = [None for _ in feeds]

    def listen(index):
        responses[index], *endings[index] = feeds[index].responses()

    threads = [threading.Thread(target=keep_publishing, args=[feed]) for feed in feeds]
    threads += [threading.Thread(target=listen, args=[n]) for n in range(len(feeds))]
    for thread in threads:
        thread.start()
    try:
        for reader in readers:
            reader.wait_for(2000)
        server.signal()
        assert server.wait() == 0
    finally:
        stop.set()
        for feed in feeds:
            feed.send_no_more()
        for thread in threads:
            thread.join()
    for code, _ in endings:
        assert code == grpc.StatusCode.UNAVAILABLE
    accepted = max(response.last_cursor for batch in responses for response in batch)
    for reader, start in zip(readers, starts):
        events = reader.all()
        assert reader.stream.code == grpc.StatusCode.UNAVAILABLE
        assert_whole(events, start)
        assert events[-1].cursor >= accepted


def test_a_gateway_that_does_not_read_holds_the_stop_up_for_the_grace_only(serve):
    server = serve("--shutdown-grace=1s")
    stream = server.gateway().subscribe()
    start = stream.start_cursor
    publisher = server.publisher()
    for batch in range(320):
        publisher.publish(*numbered(range(batch * 20, batch * 20 + 20), padding=5000))
    server.signal()
    assert server.wait() == 0
    events = stream.rest()
    assert len(events) < 6400
    assert_whole(events, start)
    assert stream.code == grpc.StatusCode.UNAVAILABLE


def test_a_stopping_server_ends_publish_streams_too(server):
    feed = server.publisher().stream()
    feed.send(*numbered([1]))
    assert parse(feed.response().last_cursor).sequence == 1
    server.signal()
    responses, code, _ = feed.responses()
    assert (responses, code) == ([], grpc.StatusCode.UNAVAILABLE)


def test_one_gateway_too_many_is_refused(serve):
    server = serve("--max-subscribers=2")
    streams = [server.gateway(f"gateway-{n}").subscribe() for n in range(2)]
    for stream in streams:
        assert stream.start_cursor
    stream = server.gateway("one too many").subscribe()
    assert stream.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2" in stream.details
    assert stream.reason == ("TOO_MANY_SUBSCRIBERS", {"limit": "2"})


def test_a_full_server_still_lets_a_gateway_take_its_own_id_over(serve):
    server = serve("--max-subscribers=2")
    streams = [server.gateway(f"gateway-{n}").subscribe() for n in range(2)]
    for stream in streams:
        assert stream.start_cursor
    again = server.gateway("gateway-0").subscribe()
    assert again.start_cursor
    assert streams[0].code == grpc.StatusCode.ABORTED


def test_a_gateway_that_leaves_makes_room_for_another(serve):
    server = serve("--max-subscribers=1")
    stream = server.gateway("first").subscribe()
    assert stream.start_cursor
    stream.cancel()
    gateway = server.gateway("second")
    wait_until(lambda: "push-start-cursor" in gateway.subscribe().metadata)


def test_a_gateway_that_was_cut_off_resumes_where_it_was(server):
    publisher = server.publisher()
    first = server.gateway("one")
    stream = first.subscribe()
    assert stream.start_cursor
    publisher.publish(*numbered(range(10)))
    last = stream.take(4)[-1].cursor
    first.close()
    again = server.gateway("one").subscribe(last)
    assert again.start_cursor == last
    assert numbers(again.take(6)) == [4, 5, 6, 7, 8, 9]
