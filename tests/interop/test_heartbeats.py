"""Heartbeats: what they are, and that they keep a quiet stream alive where HTTP/2 PINGs do not.

Envoy and HAProxy end a stream that is quiet for their timeout: a PING is an affair of each
connection, and no sign of the stream.
"""

import grpc
import pytest

from peers import Gateway, Publisher, client_event
from routes import FLAGS, Route

# The shortest that the proxies' files can say in whole seconds and that heartbeats fit into.
TIMEOUT = "4s"
HEARTBEAT = ("push-heartbeat", "1s")


def impatient(text):
    """The recommended configuration, but for how long a stream may be quiet."""
    changed = (
        text.replace("stream_idle_timeout: 0s", f"stream_idle_timeout: {TIMEOUT}")
        .replace("timeout server 1d", f"timeout server {TIMEOUT}")
        .replace("timeout client 1d", f"timeout client {TIMEOUT}")
    )
    assert changed != text
    return changed


@pytest.mark.parametrize("proxy", ["envoy", "haproxy"])
def test_a_quiet_stream_lives_through_a_proxy_that_would_end_it(proxy):
    route = Route(proxy, *FLAGS, edit=impatient)
    clients = [Gateway(route.gateways, "quiet"), Gateway(route.gateways, "alive")]
    try:
        quiet = clients[0].subscribe()
        alive = clients[1].subscribe(metadata=[HEARTBEAT])
        assert quiet.start_cursor and alive.metadata["push-heartbeat"] == "1s"
        for event in alive.take(12):
            assert event.WhichOneof("kind") is None
            assert event.cursor == alive.start_cursor
        # Three times as long as the proxy waits. The other one is gone by now.
        with pytest.raises(grpc.RpcError):
            quiet.next()
        clients.append(Publisher(route.publishers))
        cursor = clients[-1].publish(client_event(event_id="late")).first_cursor
        event = alive.next()
        while event.WhichOneof("kind") is None:
            event = alive.next()
        assert (event.client_event.event_id, event.cursor) == ("late", cursor)
        assert alive.next().cursor == cursor, "a heartbeat is at the event before it"
    finally:
        for client in clients:
            client.close()
        route.close()


def test_without_asking_there_are_none(serve):
    server = serve()
    asks = server.gateway("asks").subscribe(metadata=[HEARTBEAT])
    does_not = server.gateway("does-not").subscribe()
    assert "push-heartbeat" not in does_not.metadata
    asks.take(2)
    server.publisher().publish(client_event(event_id="first"))
    assert does_not.next().client_event.event_id == "first"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (["15"], "not a whole number and a unit"),
        (["soon"], "not a whole number and a unit"),
        (["500ms"], "not within 1s and 5m"),
        (["1h"], "not a whole number and a unit"),
        (["301s"], "not within 1s and 5m"),
        (["1s", "2s"], "twice"),
    ],
)
def test_what_is_no_interval_is_refused_and_named(serve, values, problem):
    stream = serve().gateway().subscribe(
        metadata=[("push-heartbeat", value) for value in values]
    )
    assert stream.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "push-heartbeat" in stream.details and problem in stream.details
    reason, figures = stream.reason
    assert reason == "INVALID_METADATA"
    assert figures["key"] == "push-heartbeat" and problem in figures["problem"]


def test_a_stop_and_a_takeover_end_a_stream_between_heartbeats(serve):
    server = serve()
    older = server.gateway().subscribe(metadata=[HEARTBEAT])
    older.take(1)
    newer = server.gateway().subscribe(metadata=[HEARTBEAT])
    assert newer.start_cursor
    older.rest()
    assert older.code == grpc.StatusCode.ABORTED
    newer.take(1)
    assert server.stop() == 0
    newer.rest()
    assert newer.code == grpc.StatusCode.UNAVAILABLE
