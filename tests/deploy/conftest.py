"""What is shipped for operators, against the real things: the binary, and Debian's Prometheus."""

import json
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from child import BINARY, ENVIRONMENT, ROOT, Child, Serve

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


class Server(Serve):
    """`galaxy-push serve` with an admin listener."""

    def __init__(self):
        super().__init__(admin_listen="127.0.0.1:0")
        self.wait_until_listening()

    def metrics(self, accept):
        request = urllib.request.Request(f"http://{self.admin}/metrics", headers={"accept": accept})
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
            return response.headers["content-type"], response.read().decode()


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    exit_code = server.stop()
    assert exit_code == 0, server.log()
    assert "panicked" not in server.log(), server.log()


@pytest.fixture(scope="session")
def traffic(server):
    """A hundred events that one gateway has received: figures that are not zero."""
    tail = Child(BINARY, "tail", f"--connect={server.gateways}", "--id=gateway-1", "--count=100")
    tail.wait_for("subscribed as")
    lines = "".join(
        json.dumps({"client_event": {"user_id": f"user-{n}", "kind": "turn.ready"}}) + "\n"
        for n in range(100)
    )
    subprocess.run(
        [str(BINARY), "publish", f"--connect={server.publishers}", "-"],
        input=lines,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        check=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert tail.process.wait(DEADLINE_SECONDS) == 0, tail.log()


@pytest.fixture(scope="session")
def openmetrics(server, traffic):
    return server.metrics(OPENMETRICS)


@pytest.fixture(scope="session")
def prometheus_text(server, traffic):
    return server.metrics("text/plain")


class Prometheus(Child):
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
            cwd=folder,
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
    assert exit_code == 0, prometheus.log()


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
