"""A replica that does not hear of its backbone says so, and is no proof of anything."""

import urllib.error
import urllib.request

import grpc
import pytest
from galaxy.push.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from galaxy.push.publisher.v1 import publisher_pb2, publisher_pb2_grpc

from peers import Reader, numbered, open_channel, reason_of, session_invalidation, wait_until


def ready(server):
    """Whether it is, and what the check of the backbone says."""
    address = f"http://{server.admin}/readyz"
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status == 200, answer.read().decode()
    except urllib.error.HTTPError as error:
        return False, error.read().decode()


def test_a_stale_replica_is_not_ready_sends_no_heartbeats_and_takes_no_reports(nats, replica):
    server = replica(nats, "--backbone-stale-after=2s", admin_listen="127.0.0.1:0")
    wait_until(lambda: ready(server)[0])
    stream = server.gateway().subscribe(
        metadata=[("push-heartbeat", "1s"), ("push-instance", "one")]
    )
    reader = Reader(stream)
    with open_channel(server.gateways) as channel:
        stub = gateway_pb2_grpc.GatewayStub(channel)

        def report():
            return stub.Report(
                gateway_pb2.ReportRequest(
                    gateway_client_id="gateway-1",
                    instance="one",
                    enforced_cursor=stream.start_cursor,
                    lease_ms=5000,
                ),
                timeout=30,
            )

        # Longer than it may be without news: that it is quiet is no fault.
        reader.wait_for(5)
        assert ready(server)[0]
        report()

        nats.kill()
        wait_until(lambda: not ready(server)[0])
        assert "backbone" in ready(server)[1]
        with pytest.raises(grpc.RpcError) as refused:
            report()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(refused.value)[0] == "BACKBONE_UNAVAILABLE"
        heard = reader.count()
        with pytest.raises(AssertionError):
            wait_until(lambda: reader.count() > heard, seconds=3)

        nats.start()
        wait_until(lambda: ready(server)[0])
        reader.wait_for(heard + 1)
        report()
    stream.cancel()


def test_nobody_waits_for_gateways_of_replicas_that_are_not_known(nats, replica):
    server = replica(nats)
    cursor = server.publisher().publish(session_invalidation()).last_cursor
    with open_channel(server.publishers) as channel:
        stub = publisher_pb2_grpc.PublisherStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.WaitEnforced(publisher_pb2.WaitEnforcedRequest(cursor=cursor), timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reason_of(refused.value)[0] == "NOT_WITH_BACKBONE"


def test_revocations_are_complete_as_far_as_the_replica_has_read(nats, replica):
    first = replica(nats)
    publisher = first.publisher()
    stream = first.gateway().subscribe()
    before = stream.start_cursor
    publisher.publish(session_invalidation("user-1"))
    stream.next()
    publisher.publish(*numbered([0]))
    stream.cancel()
    # It reads nothing of what is there.
    second = replica(nats, "--window=0s")
    asks = [("push-revocations", "replay")]
    told = second.gateway().subscribe(before, metadata=asks).metadata
    assert (told["push-resume"], told["push-revocations"]) == ("fresh", "partial")
