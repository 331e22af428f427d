"""Replicas at one stream: the same events under the same cursors, whatever restarts."""

import signal

import grpc
import pytest
from galaxy.push.publisher.v1 import publisher_pb2

from nats_server import NEWEST, OLDEST, STREAM
from peers import client_event, numbered, numbers, reason_of, session_invalidation


def take_numbers(stream, count):
    return numbers(stream.take(count))


@pytest.mark.parametrize("binary", [NEWEST, OLDEST], ids=["newest", "oldest"])
def test_every_replica_has_every_event_under_the_same_cursor(start_nats, replica, binary):
    nats = start_nats(binary=binary)
    replicas = [replica(nats) for _ in range(2)]
    streams = [it.gateway(f"gateway-{at}").subscribe() for at, it in enumerate(replicas)]
    assert streams[0].start_cursor == streams[1].start_cursor
    publishers = [it.publisher() for it in replicas]
    answers = []
    for number in range(20):
        batch = numbered(range(2 * number, 2 * number + 2))
        answers.append(publishers[number % 2].publish(*batch))
    taken = [stream.take(40) for stream in streams]
    assert numbers(taken[0]) == list(range(40))
    assert [it.cursor for it in taken[0]] == [it.cursor for it in taken[1]]
    for at, answer in enumerate(answers):
        first, last = taken[0][2 * at : 2 * at + 2]
        assert (answer.first_cursor, answer.last_cursor) == (first.cursor, last.cursor)


def test_a_gateway_resumes_at_another_replica_and_after_a_restart_of_all(nats, replica):
    first, second = replica(nats), replica(nats)
    publisher = first.publisher()
    stream = first.gateway().subscribe()
    assert stream.start_cursor
    publisher.publish(*numbered(range(3)))
    cursor = stream.take(3)[1].cursor
    moved = second.gateway().subscribe(cursor)
    assert moved.metadata["push-resume"] == "resumed"
    assert take_numbers(moved, 1) == [2]

    first.kill()
    second.kill()
    nats.restart()
    third = replica(nats)
    third.publisher().publish(*numbered([3]))
    resumed = third.gateway().subscribe(cursor)
    assert resumed.metadata["push-resume"] == "resumed"
    assert take_numbers(resumed, 2) == [2, 3]


def test_a_replica_that_starts_is_at_the_end_before_it_listens(nats, replica):
    publisher = replica(nats).publisher()
    for number in range(50):
        publisher.publish(*numbered(range(10 * number, 10 * number + 10)))
    head = publisher.publish(client_event()).last_cursor
    late = replica(nats)
    assert late.gateway().subscribe().start_cursor == head
    assert "501 events were read" in late.log()


def test_messages_are_publish_requests_with_headers_that_number_their_events(nats, replica):
    publisher = replica(nats).publisher()
    publisher.publish(*numbered(range(3)))
    publisher.publish(session_invalidation())
    (_, subject, headers, payload), (_, other, other_headers, _) = nats.messages()
    assert (subject, other) == (f"{STREAM}.evt", f"{STREAM}.inv")
    assert numbers(publisher_pb2.PublishRequest.FromString(payload).events) == [0, 1, 2]
    assert (headers["Galaxy-First"], headers["Galaxy-Count"]) == ("1", "3")
    assert (other_headers["Galaxy-First"], other_headers["Galaxy-Count"]) == ("4", "1")
    assert headers["Galaxy-Nonce"] != other_headers["Galaxy-Nonce"]


def test_what_many_publishers_send_at_once_is_joined(nats, replica):
    server = replica(nats)
    streams = [server.publisher().stream() for _ in range(8)]
    for number in range(200):
        streams[number % 8].send(*numbered([number]))
    for stream in streams:
        stream.send_no_more()
    for stream in streams:
        responses, code, _ = stream.responses()
        assert (len(responses), code) == (25, grpc.StatusCode.OK)
        cursors = [it.first_cursor for it in responses]
        assert cursors == sorted(cursors)
    assert nats.info().state.messages < 200


def test_without_nats_gateways_are_served_and_publishers_are_told(nats, replica):
    server = replica(nats)
    stream = server.gateway().subscribe()
    assert stream.start_cursor
    publisher = server.publisher()
    publisher.publish(*numbered([0]))
    assert take_numbers(stream, 1) == [0]
    nats.kill()
    server.wait_for("the connection to NATS is lost")
    with pytest.raises(grpc.RpcError) as refused:
        while True:
            # One that waits for its answer may be decided later.
            try:
                publisher.publish(*numbered([1]))
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(refused.value)[0] == "BACKBONE_UNAVAILABLE"
    resumed = server.gateway("other").subscribe(stream.start_cursor)
    assert resumed.metadata["push-resume"] == "resumed"
    assert take_numbers(resumed, 1) == [0]
    nats.start()
    while True:
        try:
            publisher.publish(*numbered([2]))
            break
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert take_numbers(stream, 1)[0] in (1, 2)


def test_a_replica_that_was_stopped_goes_on_where_it_was(nats, replica):
    first, second = replica(nats), replica(nats)
    stream = first.gateway().subscribe()
    assert stream.start_cursor
    first.signal(signal.SIGSTOP)
    publisher = second.publisher()
    for number in range(30):
        publisher.publish(*numbered([number]))
    first.signal(signal.SIGCONT)
    assert take_numbers(stream, 30) == list(range(30))
    first.publisher().publish(*numbered([30]))
    assert take_numbers(stream, 1) == [30]
