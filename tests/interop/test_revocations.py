"""Revocations that a gateway has missed, told to gRPC's C core, also through a proxy."""

import grpc
import pytest

from peers import Gateway, Publisher, client_event, session_invalidation
from routes import Route

REPLAY = ("push-revocations", "replay")


def missed(stream):
    """What the stream begins with, up to the mark, which is where it starts."""
    count = int(stream.metadata["push-revocations-count"])
    events = stream.take(count)
    mark = stream.next()
    assert (mark.WhichOneof("kind"), mark.cursor) == (None, stream.start_cursor)
    return events


@pytest.mark.parametrize("proxy", ["direct", "envoy", "nginx"])
def test_whoever_was_away_is_told_whom_to_throw_out(proxy):
    route = Route(proxy, "--max-events", "8")
    gateway, publisher = Gateway(route.gateways, "away"), Publisher(route.publishers)
    try:
        processed = publisher.publish(client_event(event_id="last")).last_cursor
        for user in ("u1", "u2", "u1"):
            revoked = publisher.publish(session_invalidation(user_id=user))
        publisher.publish(*(client_event(event_id=str(n)) for n in range(20)))

        stream = gateway.subscribe(processed, metadata=[REPLAY])
        assert stream.metadata["push-resume-reason"] == "expired"
        assert stream.metadata["push-revocations"] == "complete"
        events = missed(stream)
        users = [event.session_invalidation.user_id for event in events]
        assert users == ["u2", "u1"] and events[1].cursor == revoked.last_cursor
        publisher.publish(client_event(event_id="new"))
        assert stream.next().client_event.event_id == "new"

        resumed = gateway.subscribe(stream.start_cursor, metadata=[REPLAY])
        assert resumed.metadata["push-resume"] == "resumed"
        assert "push-revocations" not in resumed.metadata
    finally:
        gateway.close()
        publisher.close()
        route.close()


def test_whoever_comes_from_another_server_is_told_that_some_may_be_lost(serve):
    before, after = serve(), serve()
    cursor = before.publisher().publish(client_event(event_id="last")).last_cursor
    after.publisher().publish(session_invalidation(user_id="u1"))
    stream = after.gateway().subscribe(cursor, metadata=[REPLAY])
    assert stream.metadata["push-revocations"] == "partial"
    assert [event.session_invalidation.user_id for event in missed(stream)] == ["u1"]


def test_another_value_is_refused(serve):
    stream = serve().gateway().subscribe(metadata=[("push-revocations", "all")])
    assert stream.code == grpc.StatusCode.INVALID_ARGUMENT
    reason, figures = stream.reason
    assert (reason, figures["key"]) == ("INVALID_METADATA", "push-revocations")
