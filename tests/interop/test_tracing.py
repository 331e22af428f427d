"""Spans of the server, through a real OpenTelemetry collector: what docs/tracing.md says."""

import os
import pathlib
import subprocess
import time

import grpc
import pytest

from certificates import Certificates
from child import ROOT
from collector import Backend, Collector, free_port
from peers import client_event, push_pb2, session_invalidation, wait_until

BINARY = pathlib.Path(
    os.environ.get(
        "GALAXY_PUSH_OTLP_BINARY", ROOT / "target/interop/galaxy-push-otlp"
    )
)
PUBLISH = "galaxy.push.publisher.v1.Publisher/Publish"
PUBLISH_STREAM = "galaxy.push.publisher.v1.Publisher/PublishStream"
SUBSCRIBE = "galaxy.backend.push.v1.Push/SubscribePush"
SUBSCRIBE_ENDED = SUBSCRIBE + " ended"

CALLER = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
TRACEPARENT = ("traceparent", f"00-{CALLER[0]}-{CALLER[1]}-01")
OWN_TRACE = "0af7651916cd43dd8448eb211c80319c"
# Spans are exported soon, so that tests are quick.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture
def backend():
    backend = Backend()
    yield backend
    backend.close()


@pytest.fixture
def collector(backend):
    collector = Collector(backend)
    yield collector
    collector.close()


@pytest.fixture
def trace(serve):
    """Starts servers that export to this URL."""

    def start(url, *flags, **variables):
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **SOON, **variables}
        return serve(*flags, binary=BINARY, environment=variables)

    return start


def subscribed(server, gateway_id="gateway-1", **options):
    """A stream that has begun."""
    stream = server.gateway(gateway_id).subscribe(**options)
    assert stream.start_cursor
    return stream


def follow(server, stream, backend, make, **options):
    """Publishes events until a delivery of one is recorded: one that is delivered in the
    instant in which it is published is not. Returns its spans: append, deliver."""
    publisher = server.publisher()
    numbers = iter(range(1_000_000))

    def delivered():
        number = next(numbers)
        publisher.publish(make(f"event-{number}"), **options)
        stream.next()
        time.sleep(0.05)
        return backend.spans("deliver")

    wait_until(delivered)
    deliver = backend.spans("deliver")[0]
    [append] = backend.wait_for("append", where=lambda span: span.id == deliver.parent)
    return append, deliver


def test_an_event_is_followed_from_its_producer_to_a_gateway(
    collector, backend, trace
):
    server = trace(collector.url)
    stream = subscribed(server)

    def make(event_id):
        return client_event(event_id=event_id, trace_id=CALLER[0], payload=b"pay")

    append, deliver = follow(server, stream, backend, make, metadata=[TRACEPARENT])
    [publish] = backend.wait_for(PUBLISH, where=lambda span: span.id == append.parent)

    assert publish.kind == "SERVER"
    assert (publish.trace, publish.parent) == CALLER
    assert publish.attributes["rpc.system.name"] == "grpc"
    assert publish.attributes["rpc.method"] == PUBLISH
    assert publish.attributes["rpc.response.status_code"] == "OK"
    assert publish.attributes["messaging.batch.message_count"] == 1
    cursor = publish.attributes["galaxy_push.first_cursor"]
    assert publish.attributes["galaxy_push.last_cursor"] == cursor

    event_id = append.attributes["messaging.message.id"]
    assert (append.trace, append.kind) == (CALLER[0], "INTERNAL")
    assert event_id.startswith("event-")
    assert append.attributes["galaxy_push.kind"] == "turn.ready"
    assert append.attributes["galaxy_push.trace_id"] == CALLER[0]
    assert append.attributes["galaxy_push.cursor"] == cursor
    assert publish.start <= append.start <= append.end <= publish.end

    assert (deliver.trace, deliver.kind) == (CALLER[0], "PRODUCER")
    assert deliver.attributes["galaxy_push.gateway"] == "gateway-1"
    assert deliver.attributes["messaging.message.id"] == event_id
    assert deliver.attributes["galaxy_push.cursor"] == cursor
    assert append.end == deliver.start <= deliver.end


def test_no_span_has_the_user_or_the_payload(collector, backend, trace):
    server = trace(collector.url)
    stream = subscribed(server)

    def make(event_id):
        return client_event(
            user_id="user-secret",
            event_id=event_id,
            device_session_id="session-secret",
            payload=b"payload-secret",
        )

    follow(server, stream, backend, make)
    server.publisher().publish(
        session_invalidation(user_id="user-secret", reason="reason-secret")
    )
    backend.wait_for(
        "append",
        where=lambda span: span.attributes["galaxy_push.kind"]
        == "session_invalidation",
    )
    assert b"event-" in backend.raw
    assert b"secret" not in backend.raw


@pytest.mark.parametrize(
    ("trace_id", "parent"),
    [(OWN_TRACE, ""), (f"00-{OWN_TRACE}-b7ad6b7169203331-01", "b7ad6b7169203331")],
    ids=["id", "traceparent"],
)
def test_an_event_alone_puts_its_request_in_its_trace(
    collector, backend, trace, trace_id, parent
):
    server = trace(collector.url)
    stream = subscribed(server)

    def make(event_id):
        return client_event(event_id=event_id, trace_id=trace_id)

    append, deliver = follow(server, stream, backend, make)
    [publish] = backend.wait_for(PUBLISH, where=lambda span: span.id == append.parent)
    assert {publish.trace, append.trace, deliver.trace} == {OWN_TRACE}
    assert publish.parent == parent


def test_an_event_of_another_trace_is_linked_to_its_request(collector, backend, trace):
    server = trace(collector.url)
    server.publisher().publish(
        client_event(event_id="first"),
        client_event(event_id="other", trace_id=OWN_TRACE),
        metadata=[TRACEPARENT],
    )
    [publish] = backend.wait_for(PUBLISH)
    appends = backend.wait_for("append", 2)
    events = {span.attributes["messaging.message.id"]: span for span in appends}
    assert events["first"].parent == publish.id
    assert (events["other"].trace, events["other"].parent) == (OWN_TRACE, "")
    assert events["other"].links == [(publish.trace, publish.id)]


def test_a_request_that_is_refused_says_by_which_status(collector, backend, trace):
    server = trace(collector.url)
    with pytest.raises(grpc.RpcError):
        server.publisher().publish(push_pb2.PushEvent())
    [publish] = backend.wait_for(PUBLISH)
    attributes = publish.attributes
    assert attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert attributes["error.type"] == "INVALID_ARGUMENT"
    assert not publish.is_error, "the caller is to blame"
    assert not backend.spans("append")


def test_a_subscription_is_recorded_when_it_starts_and_when_it_ends(
    collector, backend, trace
):
    server = trace(collector.url)
    stream = subscribed(server, metadata=[TRACEPARENT])
    [start] = backend.wait_for(SUBSCRIBE)
    assert (start.trace, start.parent) == CALLER
    assert start.attributes["galaxy_push.gateway"] == "gateway-1"
    assert start.attributes["galaxy_push.resume"] == "fresh"
    server.publisher().publish(client_event(), client_event())
    stream.take(2)
    newer = subscribed(server)
    [end] = backend.wait_for(SUBSCRIBE_ENDED)
    newer.cancel()
    assert (end.trace, end.parent) == (start.trace, start.id)
    assert end.attributes["galaxy_push.cause"] == "takeover"
    assert end.attributes["galaxy_push.events"] == 2
    assert end.attributes["galaxy_push.lasted_seconds"] > 0


def test_the_last_spans_are_exported_at_the_stop(backend, trace):
    server = trace(backend.url, OTEL_BSP_SCHEDULE_DELAY="3600000")
    stream = subscribed(server)
    server.publisher().publish(client_event())
    assert server.stop() == 0
    assert len(stream.rest()) == 1
    assert backend.spans(PUBLISH)
    [end] = backend.spans(SUBSCRIBE_ENDED)
    assert end.attributes["galaxy_push.cause"] == "stopping"


def test_the_standard_variables_say_what_goes_along(backend, trace):
    server = trace(
        backend.url,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20token-1,x-tenant=games",
        OTEL_SERVICE_NAME="push-7",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )
    server.publisher().publish(client_event())
    [publish] = backend.wait_for(PUBLISH)
    assert publish.resource["service.name"] == "push-7"
    assert publish.resource["deployment.environment.name"] == "test"
    metadata = backend.metadata()[0]
    assert metadata["authorization"] == "Bearer token-1"
    assert metadata["x-tenant"] == "games"
    assert "token-1" not in server.log()


def test_a_collector_over_tls_is_checked_against_trusted_cas(trace, tmp_path):
    certificates = Certificates(tmp_path)
    pair = [certificates.read(f"server.{part}").encode() for part in ("key", "pem")]
    backend = Backend(pair)
    for ca, is_trusted in [("ca.pem", True), ("another-ca.pem", False)]:
        server = trace(
            backend.url,
            SSL_CERT_FILE=certificates.path(ca),
            OTEL_EXPORTER_OTLP_TIMEOUT="2000",
            OTEL_SERVICE_NAME=ca,
        )
        server.publisher().publish(client_event())
        assert server.stop() == 0
        names = [span.resource["service.name"] for span in backend.spans(PUBLISH)]
        assert (ca in names) == is_trusted
        assert ("spans were lost" not in server.log()) == is_trusted
    backend.close()


@pytest.mark.parametrize(
    ("variables", "metadata"),
    [
        ({"OTEL_TRACES_SAMPLER": "always_off"}, None),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
            None,
        ),
        ({}, [("traceparent", f"00-{CALLER[0]}-{CALLER[1]}-00")]),
        ({"OTEL_SDK_DISABLED": "true"}, None),
    ],
    ids=["off", "ratio", "caller", "disabled"],
)
def test_what_the_sampler_does_not_want_is_not_exported(
    backend, trace, variables, metadata
):
    server = trace(backend.url, **variables)
    server.publisher().publish(client_event(), metadata=metadata)
    # The last spans are exported at the stop.
    assert server.stop() == 0
    assert backend.spans(PUBLISH) == []
    assert backend.spans("append") == []


def test_no_more_is_recorded_in_a_second_than_is_allowed(backend, trace):
    server = trace(backend.url)
    requests = 5000
    began = time.monotonic()
    stream = server.publisher().stream()
    for _ in range(requests):
        stream.send(client_event())
    stream.send_no_more()
    responses, code, _ = stream.responses()
    seconds = time.monotonic() - began
    assert (len(responses), code) == (requests, grpc.StatusCode.OK)
    assert server.stop() == 0
    recorded = len(backend.spans(PUBLISH_STREAM))
    # The first second has already begun, and the last is not over.
    assert 0 < recorded <= 55 * (seconds + 2)
    assert recorded < requests


def test_a_collector_that_is_away_costs_spans_and_nothing_else(trace):
    server = trace(
        f"http://127.0.0.1:{free_port()}",
        OTEL_EXPORTER_OTLP_TIMEOUT="200",
    )
    stream = subscribed(server)
    publisher = server.publisher()
    for number in range(20):
        publisher.publish(client_event(event_id=str(number)))
        assert stream.next().client_event.event_id == str(number)
    assert server.stop() == 0
    assert "spans were lost, not exported" in server.log()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "does not begin with http"),
        ("OTEL_TRACES_SAMPLER", "some", '"some" is none of always_on'),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret", "entry 1 is not of the form"),
    ],
)
def test_a_variable_that_is_wrong_is_named(variable, value, reason):
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", variable: value}
    ended = subprocess.run(
        [BINARY, "serve", "--listen=127.0.0.1:0", "--publish-listen=127.0.0.1:0"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert len(lines) == 1 and f"{variable}: " in lines[0] and reason in lines[0]
    assert "secret" not in ended.stderr
