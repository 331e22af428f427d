"""The kit that judges servers: it finds nothing wrong with two that share no code, and
finds each deliberate fault.
"""

import pathlib
import shlex

import pytest

from child import BINARY
from conformance.kit import Restarting, judge, unkept

HERE = pathlib.Path(__file__).resolve().parent
RING_EVENTS = "1024"
# Long enough for whatever a server that runs here does. A fault by which something does not
# come is found after this.
PATIENCE = "4s"
# What cannot be judged of a server that is never restarted and wants no credentials.
NEEDS_MORE = {"restart-ends-streams", "restart-announced", "credential-needed"}


@pytest.fixture
def mock(tmp_path):
    """Starts the plain server in Python, or one of its mutants."""
    servers = []

    def start(*flags):
        server = Restarting(
            tmp_path,
            HERE / "mock_server.py",
            "--ring-events",
            RING_EVENTS,
            *flags,
            at_addresses=lambda gateways, publishers: (
                "--listen",
                gateways,
                "--publish-listen",
                publishers,
            ),
        )
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


def flags(server):
    return (
        "--connect",
        server.gateways,
        "--publish-connect",
        server.publishers,
        "--ring-events",
        RING_EVENTS,
    )


def test_the_server_keeps_every_promise(serve):
    server = serve("--max-events", RING_EVENTS)
    found = judge("server", *flags(server))
    assert set(unkept(found)) == NEEDS_MORE
    assert len(found) > 50


def test_a_plain_mock_keeps_the_contract(mock):
    server = mock()
    found = judge(
        "server",
        *flags(server),
        "--level=contract",
        "--restart-command",
        server.restart_command,
    )
    assert set(unkept(found)) == {"credential-needed"}


def test_it_publishes_by_a_command(serve):
    server = serve("--max-events", RING_EVENTS)
    publish = f"{shlex.quote(str(BINARY))} publish - --connect {server.publishers}"
    found = judge(
        "server",
        "--connect",
        server.gateways,
        "--publish-command",
        publish,
        "--ring-events",
        RING_EVENTS,
        "--level=contract",
    )
    # What is promised about calls cannot be judged.
    left = {name for name, (verdict, _) in unkept(found).items() if verdict == "skipped"}
    assert left == set(unkept(found))
    assert {name for name in left if not name.startswith("publish-")} == NEEDS_MORE


def mutants():
    # Under pytest the stubs are there by now.
    import sys

    sys.path.insert(0, str(HERE))
    from server_mutants import MUTANTS

    return MUTANTS.items()


@pytest.mark.parametrize(
    ("fault", "promises"), [(name, mutant.promises) for name, mutant in mutants()]
)
def test_it_finds_a_fault(mock, fault, promises):
    server = mock("--fault", fault)
    found = judge(
        "server",
        *flags(server),
        "--restart-command",
        server.restart_command,
        "--timeout",
        PATIENCE,
        "--only",
        ",".join(promises),
    )
    missed = {name: it for name, it in found.items() if it[0] != "broken"}
    assert set(found) == set(promises)
    assert not missed
