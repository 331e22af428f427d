"""Servers of NATS, and replicas of the server at them."""

import pytest


@pytest.fixture
def start_nats():
    from nats_server import Nats

    servers = []

    def start(**how):
        servers.append(Nats(**how))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def nats(start_nats):
    return start_nats()


@pytest.fixture
def replica(start_nats):
    """Starts replicas, and sees to it that each ends well that was not killed.

    It needs no server of NATS any more by then.
    """
    from replica import Replica

    replicas = []

    def start(nats, *flags, **options):
        replicas.append(Replica(f"--backbone={nats.address}", *flags, **options))
        return replicas[-1].wait_until_listening()

    yield start
    for server in replicas:
        server.close_clients()
    for server in replicas:
        if not server.is_killed:
            exit_code = server.stop()
            assert exit_code == 0, server.log()
        assert "panicked" not in server.log(), server.log()


@pytest.fixture
def ended():
    """Starts a server that ends by itself; returns its exit code and what it said."""

    from server import Server

    def run(*flags):
        server = Server(*flags)
        return server.wait(), server.log()

    return run
