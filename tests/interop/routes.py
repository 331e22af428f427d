"""The ways from a client to galaxy-push: directly, and through each proxy with the
configuration that docs/proxies.md recommends. The files there are used as they are, but
for the address.
"""

import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile

from peers import wait_until
from server import Server

CONFIGURATIONS = pathlib.Path(__file__).resolve().parents[2] / "docs/proxies"

# A ring that a test can fill, and events that a test can tell from small ones.
FLAGS = (
    "--max-events=500",
    "--max-bytes=64MiB",
    "--max-event-bytes=2MiB",
    "--max-subscribers=100",
)


# Where scripts/interop has unpacked Debian's packages; empty: they are installed.
DEBIAN = os.environ.get("INTEROP_DEBIAN", "")


def program(name):
    places = [f"{DEBIAN}/usr/sbin", f"{DEBIAN}/usr/bin"]
    places += [str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
    found = shutil.which(name, path=os.pathsep.join(places))
    assert found, f"there is no {name}; scripts/interop installs it"
    return found


def environment():
    """With the libraries that were unpacked beside the proxies."""
    libraries = [str(path) for path in pathlib.Path(f"{DEBIAN}/usr/lib").glob("*-linux-*")]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


class Route:
    """One server, the proxy in front of it, and the addresses of both.

    Each has a loopback address of its own, so that the ports can be the ones of the
    documentation, and a server that was stopped finds its port free.
    """

    def __init__(self, name, *flags, edit=lambda text: text):
        self.name = name
        self._flags = flags or FLAGS
        self._edit = edit
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="galaxy-push-interop-"))
        self.host = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))
        self._proxies = []
        self.start_server()
        try:
            if name == "direct":
                self.gateways, self.publishers = self._upstream
            else:
                self.gateways, self.publishers = f"{self.host}:50061", f"{self.host}:50062"
                for command in getattr(self, f"_{name}")():
                    self._start(command)
            self.wait_until_open()
        except BaseException:
            self.close()
            raise

    @property
    def _upstream(self):
        return f"{self.host}:50051", f"{self.host}:50052"

    def start_server(self):
        listen, publish_listen = self._upstream
        self.server = Server(
            *self._flags, listen=listen, publish_listen=publish_listen
        )
        self.server.wait_until_listening()
        self._idle_sockets = self.server.sockets()

    def is_served(self):
        return self.server.process.poll() is None

    def stop_server(self):
        """Asks it to stop, and holds it to what every server must do."""
        exit_code, log = self.server.stop(), self.server.log()
        assert exit_code == 0, log
        assert "panicked" not in log, log

    def upstream_connections(self):
        """How many connections the server has, on both ports."""
        return self.server.sockets() - self._idle_sockets

    def _start(self, command):
        log = open(self._directory / "proxy.log", "ab")
        self._proxies.append(
            subprocess.Popen(
                command,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        )
        log.close()

    def wait_until_open(self):
        for target in (self.gateways, self.publishers):
            wait_until(lambda: self._accepts(target), 30)

    def _accepts(self, target):
        for proxy in self._proxies:
            assert proxy.poll() is None, f"{self.name} has ended:\n{self.log()}"
        host, port = target.split(":")
        try:
            socket.create_connection((host, int(port)), 1).close()
            return True
        except OSError:
            return False

    def log(self):
        return (self._directory / "proxy.log").read_text(errors="replace")

    def _configuration(self, name):
        text = (CONFIGURATIONS / name).read_text()
        path = self._directory / name
        path.write_text(self._edit(text.replace("127.0.0.1", self.host)))
        return path

    def _envoy(self):
        yield [
            program("envoy"),
            *("--config-path", self._configuration("envoy.yaml")),
            # One worker: all gateways are on its connection.
            *("--concurrency", "1"),
            *("--log-level", "warning"),
            "--disable-hot-restart",
        ]

    def _nginx(self):
        # The file is a part of the `http` context; around it is what Debian's nginx.conf
        # has, with all places in our directory.
        temporary = "".join(
            f"{kind}_temp_path {self._directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        whole = self._directory / "whole.conf"
        whole.write_text(
            f"daemon off;\nworker_processes 1;\npid {self._directory}/pid;\n"
            f"error_log stderr warn;\nevents {{ worker_connections 4096; }}\n"
            f"http {{\naccess_log off;\n{temporary}"
            f"include {self._configuration('nginx.conf')};\n}}\n"
        )
        yield [program("nginx"), "-c", whole, "-e", "stderr"]

    def _haproxy(self):
        yield [program("haproxy"), "-db", "-f", self._configuration("haproxy.cfg")]

    def _nghttpx(self):
        for name in ("nghttpx-gateways.conf", "nghttpx-publishers.conf"):
            yield [program("nghttpx"), f"--conf={self._configuration(name)}"]

    def close(self):
        for proxy in self._proxies:
            proxy.terminate()
        for proxy in self._proxies:
            try:
                proxy.wait(10)
            except subprocess.TimeoutExpired:
                proxy.kill()
                proxy.wait()
        try:
            if self.is_served():
                self.stop_server()
        finally:
            shutil.rmtree(self._directory)

