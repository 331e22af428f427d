"""A gateway and a producer that know nothing but the protobuf files and the
README: the stubs are generated when the tests start, the server is the real
binary, and everything goes over real sockets.
"""

import pathlib
import shutil
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pytest_configure(config):
    # Before the test modules are imported: they import the stubs.
    stubs = tempfile.mkdtemp(prefix="galaxy-push-stubs-")
    config.add_cleanup(lambda: shutil.rmtree(stubs))
    from grpc_tools import protoc

    files = sorted(str(path) for path in (ROOT / "proto").rglob("*.proto"))
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

    def start(*flags, **addresses):
        server = Server(*flags, **addresses)
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


@pytest.fixture
def server(serve):
    """A server with the settings that it has when nobody sets any."""
    return serve()
