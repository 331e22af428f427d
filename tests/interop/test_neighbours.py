"""Gateways that share a connection behind a proxy do not pay for one another."""

import queue
import threading
import time

import grpc
import pytest

from peers import Gateway, Publisher, Reader, numbered, numbers, wait_until
from routes import Route
from test_contract import assert_follows

STALL_SECONDS = 2


@pytest.fixture
def crowd():
    """Opens gateways and publishers, and closes them after the test."""
    peers = []

    def join(peer):
        peers.append(peer)
        return peer

    yield join
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("name", ["envoy", "nginx", "haproxy", "nghttpx"])
def test_five_gateways_go_on_while_a_sixth_stalls(name, crowd):
    route = Route(name, f"--stall-timeout={STALL_SECONDS}s")
    try:
        streams = [
            crowd(Gateway(route.gateways, f"gateway-{n}")).subscribe() for n in range(6)
        ]
        starts = [stream.start_cursor for stream in streams]
        # Envoy and nghttpx carry all gateways on one connection.
        connections = 1 if name in ("envoy", "nghttpx") else 6
        # A connection by which it was found that the proxy is there may still be closing.
        wait_until(lambda: route.upstream_connections() == connections)
        *fine, stalled = streams
        readers = [Reader(stream) for stream in fine]
        publisher = crowd(Publisher(route.publishers))
        # At once more than all buffers on the way take; then on, until the server has
        # long called the sixth stalled.
        published = 0
        end = time.monotonic() + 3 * STALL_SECONDS
        while time.monotonic() < end:
            batch = numbered(range(published, published + 20), padding=10_000)
            publisher.publish(*batch)
            published += len(batch)
            for reader in readers:
                reader.wait_for(published)
            if published > 2000:
                time.sleep(0.05)
        for reader, start in zip(readers, starts):
            events = reader.wait_for(published)
            assert numbers(events) == list(range(published))
            assert_follows(events, start)
        # What the sixth has is a run without a gap, and it is told that it ended.
        events = stalled.rest()
        assert_follows(events, starts[5])
        assert len(events) < published
        assert stalled.code != grpc.StatusCode.OK
    finally:
        route.close()


def test_cancels_never_end_the_streams_of_others(crowd):
    """Gateways whose deadlines are short give up 50 times a second, on every route at
    once, beside one that stays."""
    routes = [Route(name) for name in ("direct", "envoy", "nginx", "haproxy", "nghttpx")]
    failures = queue.SimpleQueue()

    def follow(route):
        try:
            gateway = crowd(Gateway(route.gateways, "stays"))
            stream = gateway.subscribe()
            start = stream.start_cursor
            # In front of a proxy each has a connection; here they share one.
            others = [
                gateway.beside(f"gives up {number}") for number in range(50)
            ]
            began = time.monotonic()
            for number in range(500):
                other = others[number % 50].subscribe()
                assert other.start_cursor
                other.cancel()
                time.sleep(max(0, began + number / 50 - time.monotonic()))
            crowd(Publisher(route.publishers)).publish(*numbered([1, 2, 3]))
            events = stream.take(3)
            assert numbers(events) == [1, 2, 3]
            assert_follows(events, start)
        except BaseException as error:
            failures.put(f"{route.name}: {error!r}")

    try:
        threads = [threading.Thread(target=follow, args=[route]) for route in routes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures.empty(), failures.get()
    finally:
        for route in routes:
            route.close()
