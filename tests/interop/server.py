"""The real binary, as a child process on ports of its own."""

import os
import pathlib
import re
import signal
import subprocess
import threading

from peers import Gateway, Publisher

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("GALAXY_PUSH_BINARY", ROOT / "target/debug/galaxy-push")

# Nothing here takes long; these only end a test that would otherwise hang.
START_SECONDS = 60
STOP_SECONDS = 60


class Server:
    def __init__(
        self,
        *flags,
        listen="127.0.0.1:0",
        publish_listen="127.0.0.1:0",
        binary=BINARY,
        variables=None,
    ):
        # The caller's own settings must not reach the server under test.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GALAXY_PUSH_", "OTEL_")) and name != "RUST_LOG"
        }
        environment.update(variables or {})
        self.process = subprocess.Popen(
            [
                binary,
                "serve",
                f"--listen={listen}",
                f"--publish-listen={publish_listen}",
                "--admin-listen=none",
                *flags,
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines = []
        self._changed = threading.Condition()
        self._log_ended = False
        self._clients = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self):
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._log_ended = True
            self._changed.notify_all()

    def log(self):
        with self._changed:
            return "".join(self._lines)

    def _find(self, pattern):
        return re.search(pattern, "".join(self._lines))

    def wait_until_listening(self):
        for pattern in (
            r"listening for gateways on (\S+)",
            r"listening for producers on (\S+)",
        ):
            with self._changed:
                self._changed.wait_for(
                    lambda: self._find(pattern) or self._log_ended, START_SECONDS
                )
                found = self._find(pattern)
            assert found, f"no line {pattern!r} on standard error:\n{self.log()}"
            if "gateways" in pattern:
                self.gateways = found[1]
            else:
                self.publishers = found[1]

    def gateway(self, gateway_id="gateway-1"):
        client = Gateway(self.gateways, gateway_id)
        self._clients.append(client)
        return client

    def publisher(self):
        client = Publisher(self.publishers)
        self._clients.append(client)
        return client

    def close_clients(self):
        for client in self._clients:
            client.close()
        self._clients.clear()

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        """The exit code; a server that does not end is killed and fails."""
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(STOP_SECONDS)
        self.process.stderr.close()
        return self.process.returncode

    def stop(self):
        if self.process.poll() is None:
            self.signal()
        return self.wait()

    def sockets(self):
        """How many sockets the process holds open."""
        count = 0
        for descriptor in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                count += os.readlink(descriptor).startswith("socket:")
            except FileNotFoundError:
                pass  # closed since the directory was read
        return count

    def peak_memory_bytes(self):
        """The most memory that the process ever held at once."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
