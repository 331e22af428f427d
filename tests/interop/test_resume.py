"""Where a stream starts, and what its initial metadata says: a test for every
row of the resume table.
"""

import grpc
import pytest

from cursors import Cursor, beside, parse, sequences
from peers import numbered, numbers, wait_until


def resumed_at(cursor):
    return {
        "push-resume": "resumed",
        "push-resume-reason": "requested",
        "push-start-cursor": cursor,
    }


def fresh_at(cursor, reason, **more):
    return {
        "push-resume": "fresh",
        "push-resume-reason": reason,
        "push-start-cursor": cursor,
        **{key.replace("_", "-"): value for key, value in more.items()},
    }


def assert_starts_after(server, stream, cursor):
    """The next event that is published is the next that the stream delivers."""
    response = server.publisher().publish(*numbered([4711]))
    event = stream.next()
    assert numbers([event]) == [4711]
    assert event.cursor == response.first_cursor == beside(cursor, 1)


def test_the_metadata_arrives_before_any_event(server):
    stream = server.gateway().subscribe()
    # Nothing has been published: only the headers can be here.
    assert stream.metadata["push-resume"] == "fresh"
    assert_starts_after(server, stream, stream.start_cursor)


def test_a_cursor_inside_the_ring_resumes_at_the_next_event(server):
    response = server.publisher().publish(*numbered(range(1, 11)))
    cursor = beside(response.first_cursor, 3)
    stream = server.gateway().subscribe(cursor)
    assert stream.push_metadata == resumed_at(cursor)
    assert numbers(stream.take(6)) == [5, 6, 7, 8, 9, 10]


def test_a_cursor_at_the_head_resumes_with_what_comes(server):
    head = server.publisher().publish(*numbered(range(10))).last_cursor
    stream = server.gateway().subscribe(head)
    assert stream.push_metadata == resumed_at(head)
    assert_starts_after(server, stream, head)


def test_the_start_cursor_of_an_unread_stream_resumes(server):
    gateway = server.gateway()
    start = gateway.subscribe().start_cursor
    assert parse(start).sequence == 0
    server.publisher().publish(*numbered([1, 2]))
    again = gateway.subscribe(start)
    assert again.push_metadata == resumed_at(start)
    assert numbers(again.take(2)) == [1, 2]


def test_no_cursor_starts_after_the_head(server):
    head = server.publisher().publish(*numbered(range(10))).last_cursor
    stream = server.gateway().subscribe()
    assert stream.push_metadata == fresh_at(head, "no-cursor")
    assert_starts_after(server, stream, head)


def test_a_cursor_whose_next_event_left_the_ring_has_expired(serve):
    server = serve("--max-events=100")
    publisher = server.publisher()
    for first in range(1, 301, 50):
        response = publisher.publish(*numbered(range(first, first + 50)))
    head = response.last_cursor
    # The ring holds 201 to 300: from 199, event 200 is missing.
    stream = server.gateway().subscribe(beside(head, -101))
    assert stream.push_metadata == fresh_at(head, "expired", push_missed="101")
    assert_starts_after(server, stream, head)


def test_the_last_cursor_that_has_not_expired_resumes(serve):
    server = serve("--max-events=100")
    publisher = server.publisher()
    for first in range(1, 301, 50):
        response = publisher.publish(*numbered(range(first, first + 50)))
    cursor = beside(response.last_cursor, -100)
    stream = server.gateway().subscribe(cursor)
    assert stream.push_metadata == resumed_at(cursor)
    assert numbers(stream.take(100)) == list(range(201, 301))


def test_the_cursor_before_the_first_event_expires_with_it(serve):
    server = serve("--max-events=100")
    gateway = server.gateway()
    start = gateway.subscribe().start_cursor
    publisher = server.publisher()
    for first in range(1, 301, 50):
        response = publisher.publish(*numbered(range(first, first + 50)))
    stream = gateway.subscribe(start)
    assert stream.push_metadata == fresh_at(
        response.last_cursor, "expired", push_missed="300"
    )


def test_events_expire_by_bytes_too(serve):
    server = serve("--max-bytes=4MiB")
    publisher = server.publisher()
    first = publisher.publish(*numbered([1])).first_cursor
    for batch in range(20):
        head = publisher.publish(
            *numbered(range(batch * 10, batch * 10 + 10), padding=50_000)
        ).last_cursor
    stream = server.gateway().subscribe(first)
    assert stream.push_metadata == fresh_at(head, "expired", push_missed="200")


def test_events_expire_by_age_too(serve):
    server = serve("--window=2s")
    response = server.publisher().publish(*numbered(range(5)))
    gateway = server.gateway()

    def expired():
        stream = gateway.subscribe(response.first_cursor)
        return stream.metadata["push-resume-reason"] == "expired"

    wait_until(expired)
    stream = gateway.subscribe(response.first_cursor)
    assert stream.push_metadata == fresh_at(
        response.last_cursor, "expired", push_missed="4"
    )
    # Whoever has read everything has lost nothing, however long ago it was.
    stream = gateway.subscribe(response.last_cursor)
    assert stream.push_metadata == resumed_at(response.last_cursor)


@pytest.mark.parametrize("ahead", [1, 1000, 2**55 - 1])
def test_a_cursor_past_the_head_is_ahead(server, ahead):
    head = server.publisher().publish(*numbered(range(10))).last_cursor
    epoch, sequence = parse(head)
    cursor = Cursor(epoch, min(sequence + ahead, 2**55 - 1))
    stream = server.gateway().subscribe(str(cursor))
    assert stream.push_metadata == fresh_at(head, "ahead")
    assert_starts_after(server, stream, head)


@pytest.mark.parametrize("distance", [-1, 1])
def test_a_cursor_of_another_epoch_starts_afresh(server, distance):
    head = server.publisher().publish(*numbered(range(10))).last_cursor
    epoch, sequence = parse(head)
    stream = server.gateway().subscribe(str(Cursor(epoch + distance, sequence)))
    assert stream.push_metadata == fresh_at(head, "other-epoch")
    assert_starts_after(server, stream, head)


def test_a_cursor_from_before_a_restart_starts_afresh(serve):
    first = serve()
    cursor = first.publisher().publish(*numbered(range(10))).last_cursor
    first.close_clients()
    first.stop()
    second = serve()
    stream = second.gateway().subscribe(cursor)
    metadata = stream.push_metadata
    assert metadata == fresh_at(metadata["push-start-cursor"], "other-epoch")
    assert parse(metadata["push-start-cursor"]).sequence == 0
    assert_starts_after(second, stream, metadata["push-start-cursor"])


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(str.lower, id="lower case"),
        pytest.param(lambda text: text[:-1] + "I", id="I for 1"),
        pytest.param(lambda text: text[:-1] + "L", id="L for 1"),
        pytest.param(lambda text: text[:-1] + "O", id="O for 0"),
        pytest.param(lambda text: text[:-1] + "U", id="U"),
        pytest.param(lambda text: text[:-1], id="one too short"),
        pytest.param(lambda text: text + "0", id="one too long"),
        pytest.param(lambda text: " " + text[1:], id="a space"),
        pytest.param(lambda text: text.replace("-", "_"), id="no dash"),
        pytest.param(lambda text: f"{text[:10]}-{'0' * 13}", id="the form of before"),
        pytest.param(lambda text: text[:-1] + "é", id="not ASCII"),
        pytest.param(lambda text: "\0", id="a zero byte"),
        pytest.param(lambda text: "0" * 3000, id="3,000 bytes"),
        pytest.param(lambda text: "42", id="a number"),
    ],
)
def test_what_is_no_cursor_is_malformed(server, spoil):
    head = server.publisher().publish(*numbered(range(10))).last_cursor
    stream = server.gateway().subscribe(spoil(head))
    assert stream.push_metadata == fresh_at(head, "malformed")
    assert_starts_after(server, stream, head)


def test_a_resumed_stream_goes_on_from_old_events_to_new_ones(server):
    publisher = server.publisher()
    first = publisher.publish(*numbered(range(1, 501))).first_cursor
    stream = server.gateway().subscribe(first)
    assert numbers(stream.take(499)) == list(range(2, 501))
    publisher.publish(*numbered(range(501, 1001)))
    assert sequences(stream.take(500)) == list(range(501, 1001))


@pytest.mark.parametrize(
    "gateway_id",
    [
        pytest.param("", id="empty"),
        pytest.param("g" * 257, id="257 bytes"),
        pytest.param("é" * 129, id="258 bytes in 129 characters"),
        pytest.param("gate\nway", id="a line feed"),
        pytest.param("gateway\0", id="a zero byte"),
        pytest.param("\x7f", id="delete"),
        pytest.param("gate\x85way", id="a control character of Latin-1"),
    ],
)
def test_a_bad_gateway_id_is_refused_by_name(server, gateway_id):
    stream = server.gateway(gateway_id).subscribe()
    assert stream.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "gateway_client_id" in stream.details


@pytest.mark.parametrize(
    "gateway_id",
    [
        pytest.param("g", id="1 byte"),
        pytest.param("g" * 256, id="256 bytes"),
        pytest.param("é" * 128, id="256 bytes in 128 characters"),
        pytest.param("region eu/gateway 🚀", id="spaces and symbols"),
    ],
)
def test_any_other_gateway_id_is_taken(server, gateway_id):
    stream = server.gateway(gateway_id).subscribe()
    assert_starts_after(server, stream, stream.start_cursor)


def test_a_request_of_unreasonable_size_is_refused(server):
    stream = server.gateway().subscribe("0" * 10_000)
    assert stream.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "bytes" in stream.details
