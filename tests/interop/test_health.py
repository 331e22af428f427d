"""gRPC's own services as its own Python packages ask for them: health checking, and
reflection by a client that has none of our files.
"""

import signal

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from clients import PATIENCE_SECONDS
from peers import wait_until

PUSH = "galaxy.backend.push.v1.Push"
GATEWAY = "galaxy.push.gateway.v1.Gateway"
PUBLISHER = "galaxy.push.publisher.v1.Publisher"
STANDARD = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}
VERSIONS = ("v1", "v1alpha")
Status = health_pb2.HealthCheckResponse


PORTS = (("gateways", {PUSH, GATEWAY}), ("publishers", {PUBLISHER}))


@pytest.fixture(params=PORTS, ids=lambda p: p[0])
def port(server, request):
    """A channel to a port, and the services that it has of its own."""
    name, services = request.param
    with grpc.insecure_channel(getattr(server, name)) as channel:
        yield channel, services


def check(health, service=""):
    request = health_pb2.HealthCheckRequest(service=service)
    return health.Check(request, timeout=PATIENCE_SECONDS).status


def wait_until_serving(health):
    wait_until(lambda: check(health) == Status.SERVING)


def test_check_and_list(port):
    channel, own = port
    health = health_pb2_grpc.HealthStub(channel)
    wait_until_serving(health)
    services = {""} | own | STANDARD
    for service in services:
        assert check(health, service) == Status.SERVING
    listed = health.List(health_pb2.HealthListRequest(), timeout=PATIENCE_SECONDS)
    assert {name: of.status for name, of in listed.statuses.items()} == {
        service: Status.SERVING for service in services
    }
    with pytest.raises(grpc.RpcError) as failed:
        check(health, "galaxy")
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_tells_of_a_stop_before_it_ends(serve):
    # The delay is cut short by the second signal.
    server = serve("--shutdown-delay=1h")
    with grpc.insecure_channel(server.gateways) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=PUSH))
        while next(watch).status != Status.SERVING:
            pass
        server.signal()
        assert next(watch).status == Status.NOT_SERVING
        assert check(health, PUSH) == Status.NOT_SERVING
        server.signal(signal.SIGINT)
        with pytest.raises(grpc.RpcError):
            next(watch)
        assert watch.code() is grpc.StatusCode.UNAVAILABLE
    assert server.wait() == 0


def test_watch_waits_for_an_unknown_service(port):
    channel, _ = port
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service="galaxy")
    )
    assert next(watch).status == Status.SERVICE_UNKNOWN
    assert watch.is_active()
    watch.cancel()


def reflect(channel, version, *requests):
    """The answers to these requests, on one stream. Both versions have the same messages."""
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(method(iter(requests), timeout=PATIENCE_SECONDS))


@pytest.mark.parametrize("version", VERSIONS)
def test_services_are_listed(port, version):
    channel, own = port
    request = reflection_pb2.ServerReflectionRequest(list_services="*")
    [response] = reflect(channel, version, request)
    assert response.original_request == request
    services = [service.name for service in response.list_services_response.service]
    assert sorted(services) == sorted(own | STANDARD)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_listed_service_is_described(port, version):
    channel, own = port
    # As grpcurl does it: the file of a symbol, then those that it imports.
    for service in own | STANDARD:
        [response] = reflect(
            channel,
            version,
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=service),
        )
        pool = descriptor_pool.DescriptorPool()
        files = response.file_descriptor_response.file_descriptor_proto
        for file in reversed(files):
            pool.AddSerializedFile(file)
        assert pool.FindServiceByName(service).methods


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_there_is_not_found(port, version):
    channel, _ = port
    responses = reflect(
        channel,
        version,
        reflection_pb2.ServerReflectionRequest(file_by_filename="none.proto"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="galaxy.None"),
        reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="galaxy.None"),
    )
    for response in responses:
        assert response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_a_client_without_our_files_publishes_and_subscribes(server):
    def service(channel, name):
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        return pool.FindServiceByName(name)

    def codecs(method):
        request, response = map(
            message_factory.GetMessageClass, (method.input_type, method.output_type)
        )
        return request, (request.SerializeToString, response.FromString)

    with (
        grpc.insecure_channel(server.gateways) as gateways,
        grpc.insecure_channel(server.publishers) as publishers,
    ):
        push = service(gateways, PUSH)
        request, of_push = codecs(push.methods_by_name["SubscribePush"])
        stream = gateways.unary_stream(f"/{PUSH}/SubscribePush", *of_push)(
            request(gateway_client_id="gateway-1"), timeout=PATIENCE_SECONDS
        )
        assert dict(stream.initial_metadata())["push-resume"] == "fresh"

        publisher = service(publishers, PUBLISHER)
        request, of_publish = codecs(publisher.methods_by_name["Publish"])
        wanted = request(events=[{"client_event": {"user_id": "u", "kind": "k"}}])
        published = publishers.unary_unary(f"/{PUBLISHER}/Publish", *of_publish)(
            wanted, timeout=PATIENCE_SECONDS
        )
        event = next(stream)
        assert event.cursor == published.first_cursor
        assert event.client_event.user_id == "u"
        stream.cancel()
