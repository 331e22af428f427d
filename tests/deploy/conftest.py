"""What is shipped for operators, against the real things: the binary, and Debian's Prometheus."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("GALAXY_PUSH_BINARY", ROOT / "target/debug/galaxy-push")
# Nothing here takes long; it only ends a test that would otherwise hang.
DEADLINE_SECONDS = 120

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def wait_until(condition, what, seconds=DEADLINE_SECONDS):
    """What it returns once that is true."""
    end = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def environment():
    """The caller's own settings must not reach the programs under test."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GALAXY_PUSH_") and name != "RUST_LOG"
    }


class Program:
    """A child process, and what it has said."""

    def __init__(self, *command, folder=None):
        self.process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.append(line)

    def said(self):
        return "".join(self._lines)

    def wait_for(self, pattern):
        def look():
            found = re.search(pattern, self.said())
            assert found or self.process.poll() is None, self.said()
            return found

        return wait_until(look, f"{pattern!r} is said")

    def stop(self):
        """The exit code after SIGTERM."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(DEADLINE_SECONDS)
        return self.process.returncode


class Server(Program):
    """`galaxy-push serve` on ports of its own."""

    def __init__(self):
        any_port = "127.0.0.1:0"
        super().__init__(
            BINARY,
            "serve",
            f"--listen={any_port}",
            f"--publish-listen={any_port}",
            f"--admin-listen={any_port}",
        )
        self.gateways = self.wait_for(r"listening for gateways on (\S+)")[1]
        self.publishers = self.wait_for(r"listening for producers on (\S+)")[1]
        self.admin = self.wait_for(r"listening for operators on (\S+)")[1]

    def metrics(self, accept):
        request = urllib.request.Request(f"http://{self.admin}/metrics", headers={"accept": accept})
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
            return response.headers["content-type"], response.read().decode()


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    exit_code = server.stop()
    assert exit_code == 0, server.said()
    assert "panicked" not in server.said(), server.said()


@pytest.fixture(scope="session")
def traffic(server):
    """A hundred events that one gateway has received: figures that are not zero."""
    tail = Program(BINARY, "tail", f"--connect={server.gateways}", "--id=gateway-1", "--count=100")
    tail.wait_for("subscribed as")
    lines = "".join(
        json.dumps({"client_event": {"user_id": f"user-{n}", "kind": "turn.ready"}}) + "\n"
        for n in range(100)
    )
    subprocess.run(
        [str(BINARY), "publish", f"--connect={server.publishers}", "-"],
        input=lines,
        env=environment(),
        stdout=subprocess.DEVNULL,
        check=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert tail.process.wait(DEADLINE_SECONDS) == 0, tail.said()


@pytest.fixture(scope="session")
def openmetrics(server, traffic):
    return server.metrics(OPENMETRICS)


@pytest.fixture(scope="session")
def prometheus_text(server, traffic):
    return server.metrics("text/plain")


class Prometheus(Program):
    """Debian's Prometheus with the configuration that is shipped, on ports of its own."""

    def __init__(self, folder, server):
        shipped = ROOT / "deploy/prometheus"
        config = yaml.safe_load((shipped / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        [job] = config["scrape_configs"]
        job["static_configs"] = [{"targets": [server.admin]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.copy(shipped / "alerts.yml", folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % free.getsockname()[1]
        super().__init__(
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={self.address}",
            folder=folder,
        )
        self.wait_for("Server is ready to receive web requests")

    def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        url = f"http://{self.address}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression):
        return self.ask("query", query=expression)["result"]


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory, server, traffic):
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), server)
    yield prometheus
    exit_code = prometheus.stop()
    assert exit_code == 0, prometheus.said()


@pytest.fixture(scope="session")
def promtool():
    """Runs promtool; what it says, and that it is content."""

    def run(*arguments, text=None):
        done = subprocess.run(
            ["promtool", *map(str, arguments)],
            input=text,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said

    return run
