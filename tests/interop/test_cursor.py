"""The cursor's form and order, read with a decoder of our own."""

import time

from cursors import Cursor, parse, sequences
from peers import numbered


def test_a_known_cursor_is_read_and_written_alike():
    text = "CBSZJPG00007-0000000001A"
    assert parse(text) == Cursor(epoch=1_700_000_000_000 << 18 | 7, sequence=42)
    assert str(parse(text)) == text


def test_the_first_event_is_number_one(server):
    response = server.publisher().publish(*numbered([1]))
    assert parse(response.first_cursor).sequence == 1


def test_the_epoch_is_when_the_server_was_started(serve):
    before = time.time_ns() // 1_000_000
    server = serve()
    after = time.time_ns() // 1_000_000
    response = server.publisher().publish(*numbered([1]))
    assert before <= parse(response.first_cursor).epoch >> 18 <= after


def test_text_order_is_publish_order_and_nothing_is_left_out(server):
    stream = server.gateway().subscribe()
    assert stream.start_cursor
    publisher = server.publisher()
    # Past 32 and 1024, where one more digit of the text begins to move.
    for batch in range(60):
        publisher.publish(*numbered(range(batch * 20, batch * 20 + 20)))
    events = stream.take(1200)
    texts = [event.cursor for event in events]
    assert texts == sorted(texts)
    assert sequences(events) == list(range(1, 1201))
    assert len({parse(text).epoch for text in texts}) == 1


def test_cursors_of_a_restarted_server_are_greater(serve):
    first = serve()
    old = first.publisher().publish(*numbered(range(100))).last_cursor
    first.close_clients()
    first.stop()
    new = serve().publisher().publish(*numbered([1])).first_cursor
    assert old < new
