"""What the checks share: the binary, servers that run it, certificates."""

import os
import pathlib
import re
import shutil
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
PATIENCE = 60

# Nobody's settings.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("GALAXY_PUSH_") and name != "RUST_LOG"
}


@pytest.fixture(scope="session")
def binary():
    return pathlib.Path(os.environ["GALAXY_PUSH_STATIC_BINARY"])


class Server:
    """A server under whatever wraps it. Its log goes to a file."""

    def __init__(self, command, log, env=None, **how):
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=ENVIRONMENT | (env or {}),
                **how,
            )

    def text(self):
        text = self.log.read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text)

    def find(self, pattern):
        """Waits for a line of the log."""
        deadline = time.monotonic() + PATIENCE
        while True:
            over = self.process.poll() is not None or time.monotonic() > deadline
            if found := re.search(pattern, self.text()):
                return found
            assert not over, f"no {pattern!r} in:\n{self.text()}"
            time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        return self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path):
    servers = []

    def start(command, env=None, **how):
        server = Server(command, tmp_path / f"log-{len(servers)}", env, **how)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def secrets(tmp_path):
    """Where a certificate, its key and an access file are."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    key, certificate = folder / "tls.key", folder / "tls.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-days", "2", "-subj", "/CN=push", "-addext", "subjectAltName=DNS:push"]
        + ["-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    access = folder / "access.toml"
    access.write_text(
        '[[principal]]\nname = "gateways"\nsubscribe = ["*"]\n'
        f'token_sha256 = "{"0" * 64}"\n'
    )
    return {"certificate": certificate, "key": key, "ca": certificate, "access": access}


def run(*command, **how):
    """Runs a tool to its end, and shows what it said if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        **how,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


def needs(tool):
    """Leaves a check out where its tool cannot be had."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")
