"""A gateway and a publisher that know nothing but the protobuf files and the
README: the stubs are generated when the tests start, the server is the real
binary, and everything goes over real sockets. Some of them are run with several
gRPC implementations, directly and through several proxies.
"""

import importlib
import pathlib
import shutil
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUTES = ("direct", "envoy", "nginx", "haproxy", "nghttpx")
CLIENTS = {
    "grpcio": ("with_grpcio", "Grpcio"),
    "grpclib": ("with_grpclib", "Grpclib"),
    "grpc-js": ("with_grpc_js", "GrpcJs"),
}


sys.path.insert(0, str(ROOT / "tests/support"))


def pytest_configure(config):
    # Before the test modules are imported: they import the stubs.
    stubs = tempfile.mkdtemp(prefix="galaxy-push-stubs-")
    config.add_cleanup(lambda: shutil.rmtree(stubs))
    from grpc_tools import protoc

    # Those of gRPC's own services have packages with stubs.
    files = sorted(str(path) for path in (ROOT / "proto/galaxy").rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={ROOT / 'proto'}",
        f"--python_out={stubs}",
        f"--grpc_python_out={stubs}",
        *files,
    ]
    if protoc.main(arguments) != 0:
        raise pytest.UsageError("the protobuf files do not compile")
    sys.path.insert(0, stubs)


@pytest.fixture
def serve():
    """Starts servers, and sees to it that each ends well.

    Whatever a test did to it, a server must end by SIGTERM with exit code 0
    and must never have panicked.
    """
    from server import Server

    servers = []

    def start(*flags, **options):
        server = Server(*flags, **options)
        servers.append(server)
        server.wait_until_listening()
        return server

    yield start
    for server in servers:
        server.close_clients()
    for server in servers:
        exit_code = server.stop()
        log = server.log()
        assert exit_code == 0, log
        assert "panicked" not in log, log


@pytest.fixture(scope="session", params=ROUTES)
def standing_route(request):
    from routes import Route

    route = Route(request.param)
    yield route
    route.close()


@pytest.fixture
def route(standing_route):
    """A server, directly and behind each proxy. It is one for all tests of a route."""
    if not standing_route.is_served():
        # A test that stopped it has failed half-way.
        standing_route.start_server()
    return standing_route


@pytest.fixture(scope="session", params=CLIENTS)
def client(request):
    """Each gRPC implementation in turn."""
    module, kind = CLIENTS[request.param]
    client = getattr(importlib.import_module(f"clients.{module}"), kind)()
    yield client
    client.close()


@pytest.fixture
def connect(client):
    """Opens connections of this implementation, and closes them after the test."""
    connections = []

    def connect(target, tls=None):
        connections.append(client.connect(target, tls))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()


@pytest.fixture
def server(serve):
    """A server with the settings that it has when nobody sets any."""
    return serve()
