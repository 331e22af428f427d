"""The kit that judges gateways: four in four languages keep what they promise, and each
deliberate fault is found.
"""

import os
import pathlib
import shlex
import socket
import sys

import pytest

from child import ROOT
from conformance.kit import judge, unkept

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = ROOT / "examples/gateways"
GATEWAYS = {
    "python": [sys.executable, EXAMPLES / "python/gateway.py"],
    "node": [os.environ.get("INTEROP_NODE", "node"), EXAMPLES / "node/gateway.mjs"],
    "go": [os.environ.get("INTEROP_GO_GATEWAY", EXAMPLES / "go/bin/gateway")],
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def words(*command):
    """A command of the shell; what begins with a dollar is a variable."""
    words = (str(word) for word in command)
    return " ".join(f'"{it}"' if it.startswith("$") else shlex.quote(it) for it in words)


def judge_example(directory, command, *flags):
    """What is found of one of examples/gateways, or of one like them."""
    address = f"127.0.0.1:{free_port()}"
    gateway = words(
        "exec",
        *command,
        "--connect",
        "$CONFORMANCE_CONNECT",
        "--token-file",
        "$CONFORMANCE_TOKEN_FILE",
        "--id=example",
        f"--state={directory}/cursor",
        f"--listen={address}",
        # Short, so that nobody waits for long.
        "--max-backoff=2",
        "--heartbeat=1",
    )
    query = "user=$CONFORMANCE_USER&session=$CONFORMANCE_SESSION"
    return judge(
        "gateway",
        "--listen=127.0.0.1:0",
        "--gateway-command",
        gateway,
        "--session-command",
        f'exec curl -sfN "http://{address}/events?{query}"',
        f"--gateway-token-file={directory}/token",
        *flags,
    )


@pytest.mark.parametrize("language", GATEWAYS)
def test_a_gateway_in_each_language_keeps_its_promises(tmp_path, language):
    found = judge_example(tmp_path, GATEWAYS[language])
    # They send no reports, and promise nobody that they are fenced.
    assert set(unkept(found)) == {"receipts"}


def test_the_example_in_rust_keeps_its_promises(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    gateway = os.environ.get(
        "EXAMPLE_GATEWAY_BINARY", ROOT / "target/debug/examples/gateway"
    )
    found = judge(
        "gateway",
        "--listen=127.0.0.1:0",
        "--gateway-command",
        words(
            "exec",
            gateway,
            "--connect",
            "$CONFORMANCE_CONNECT",
            f"--listen={address}",
            f"--state={tmp_path}",
        ),
        "--session-command",
        words("exec", sys.executable, HERE / "example_session.py", address),
    )
    # It needs no token, and has no flag for shorter heartbeats.
    assert set(unkept(found)) == {
        "credential-renewed",
        "heartbeat-silence",
        "heartbeats",
    }
    assert all(verdict == "skipped" for verdict, _ in unkept(found).values())


def mutants():
    sys.path.insert(0, str(HERE))
    from gateway_mutants import MUTANTS

    return MUTANTS.items()


@pytest.mark.parametrize(
    ("fault", "promises"), [(name, mutant.promises) for name, mutant in mutants()]
)
def test_it_finds_a_fault(tmp_path, fault, promises):
    command = [sys.executable, HERE / "gateway_mutants.py", fault]
    found = judge_example(
        tmp_path, command, "--timeout=5s", "--only", ",".join(promises)
    )
    missed = {name: it for name, it in found.items() if it[0] != "broken"}
    assert set(found) == set(promises)
    assert not missed
