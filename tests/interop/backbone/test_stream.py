"""What operators do to the stream: it is made, checked, emptied, deleted and made anew."""

import grpc
import pytest

from cursors import beside, parse
from nats_server import STREAM
from peers import numbered, numbers, wait_until


def test_a_stream_that_is_made_keeps_what_is_promised(nats, replica):
    replica(nats, "--window=90s", "--backbone-max-bytes=1GiB")
    config = nats.info().config
    assert config.subjects == [f"{STREAM}.evt", f"{STREAM}.inv"]
    assert (config.storage, config.num_replicas, config.discard) == ("file", 1, "old")
    assert (config.deny_delete, config.deny_purge) == (True, True)
    assert (config.max_age, config.max_bytes) == (90, 1 << 30)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_age": 1}, "max_age: 1s is shorter than --window"),
        ({"discard": "new"}, "discard:"),
        ({"retention": "interest"}, "retention:"),
        ({"no_ack": True}, "no_ack:"),
        ({"max_msgs_per_subject": 1}, "max_msgs_per_subject:"),
    ],
)
def test_a_stream_that_cannot_keep_it_is_refused_by_the_setting(nats, ended, settings, named):
    nats.make_stream(**settings)
    code, log = ended(f"--backbone={nats.address}")
    assert code == 1
    assert f"backbone: the stream {STREAM} cannot be used: {named}" in log


def test_what_makes_an_answer_mean_less_is_said(nats, replica):
    log = replica(nats, "--backbone-storage=memory").log()
    assert "it is in memory (storage)" in log
    assert "one server has it (num_replicas 1)" in log


def test_a_server_that_is_not_there_is_named(ended):
    code, log = ended("--backbone=127.0.0.1:9")
    assert code == 1 and "backbone: no connection to NATS at 127.0.0.1:9" in log


def test_messages_that_were_deleted_are_a_gap_of_their_events(nats, replica):
    nats.make_stream()
    first = replica(nats)
    publisher = first.publisher()
    for number in range(5):
        publisher.publish(*numbered(range(3 * number, 3 * number + 3)))
    before = first.gateway().subscribe().start_cursor
    nats.delete_messages(2, 3)
    late = replica(nats)
    start = beside(before, -15)
    stream = late.gateway().subscribe(start)
    assert stream.metadata["push-resume"] == "resumed"
    assert numbers(stream.take(3)) == [0, 1, 2]
    with pytest.raises(grpc.RpcError):
        stream.next()
    assert stream.reason[0] == "LAGGED"
    at_hole = late.gateway().subscribe(beside(start, 3))
    assert at_hole.metadata["push-resume-reason"] == "expired"
    resumed = late.gateway().subscribe(beside(start, 9))
    assert numbers(resumed.take(6)) == list(range(9, 15))


def test_no_number_is_given_twice_when_the_last_messages_are_gone(nats, replica):
    nats.make_stream()
    first = replica(nats)
    for number in range(4):
        last = first.publisher().publish(*numbered([number])).last_cursor
    nats.delete_messages(3, 4)
    late = replica(nats)
    cursors = [late.publisher().publish(*numbered([4])).last_cursor]
    cursors.append(first.publisher().publish(*numbered([5])).last_cursor)
    assert parse(last) < parse(cursors[0]) < parse(cursors[1])
    assert parse(cursors[1]).sequence == parse(cursors[0]).sequence + 1


def test_the_last_message_may_go_while_replicas_run(nats, replica):
    nats.make_stream()
    server = replica(nats)
    stream = server.gateway().subscribe()
    assert stream.start_cursor
    server.publisher().publish(*numbered([0]))
    assert numbers(stream.take(1)) == [0]
    nats.delete_messages(1)
    server.publisher().publish(*numbered([1]))
    assert numbers(stream.take(1)) == [1]
    assert parse(stream.start_cursor).sequence == 0


def test_a_replica_that_starts_when_it_has_long_been_quiet_counts_as_the_others_do(nats, replica):
    flags = ("--window=1s", "--backbone-max-age=2s")
    first = replica(nats, *flags)
    for number in range(3):
        first.publisher().publish(*numbered([number]))
    # Twice as long as the stream keeps anything.
    wait_until(lambda: nats.info().state.last_seq >= 6)
    late = replica(nats, *flags)
    stream = late.gateway().subscribe()
    assert parse(stream.start_cursor).sequence == 3
    cursor = first.publisher().publish(*numbered([3])).last_cursor
    event = stream.next()
    assert (event.cursor, parse(cursor).sequence) == (cursor, 4)


def test_no_number_is_given_twice_when_all_has_expired_while_nobody_ran(nats, replica):
    flags = ("--window=1s", "--backbone-max-age=1s")
    first = replica(nats, *flags)
    before = first.publisher().publish(*numbered([0])).last_cursor
    first.kill()
    wait_until(lambda: nats.info().state.messages == 0)
    second, third = replica(nats, *flags), replica(nats, *flags)
    assert "nobody knows how many events they had" in second.log()
    stream = second.gateway().subscribe(before)
    assert stream.metadata["push-resume-reason"] == "expired"
    cursor = third.publisher().publish(*numbered([1])).last_cursor
    assert stream.next().cursor == cursor
    assert parse(cursor) > parse(before)


def test_messages_of_others_are_no_events(nats, replica):
    server = replica(nats)
    stream = server.gateway().subscribe()
    assert stream.start_cursor
    server.publisher().publish(*numbered([0]))
    nats.publish(f"{STREAM}.evt", b"hello")
    numbers_again = {"Galaxy-First": "1", "Galaxy-Count": "1", "Galaxy-Nonce": f"{7:016x}-1"}
    nats.publish(f"{STREAM}.inv", b"", numbers_again)
    cursor = server.publisher().publish(*numbered([1])).last_cursor
    assert numbers(stream.take(2)) == [0, 1]
    assert parse(cursor).sequence == 2
    server.wait_for("message 2 is ignored: it has no header Galaxy-First")
    server.wait_for("message 3 is ignored: its events are numbered from 1")


def test_a_stream_that_was_made_anew_is_another_one(nats, replica):
    nats.make_stream()
    server = replica(nats)
    stream = server.gateway().subscribe()
    assert stream.start_cursor
    server.publisher().publish(*numbered([0]))
    cursor = stream.next().cursor
    nats.delete_stream()
    nats.make_stream()
    # It cannot go on: its epoch is that of the other stream.
    wait_until(lambda: server.process.poll() is not None)
    server.kill()
    assert "backbone: the stream was deleted" in server.log()
    again = replica(nats).gateway().subscribe(cursor)
    assert again.metadata["push-resume-reason"] == "other-epoch"
    assert parse(again.start_cursor).epoch != parse(cursor).epoch
