"""The real server, with real gateways and publishers: `galaxy-push serve`, `tail` and
`publish`, each a child process.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("GALAXY_PUSH_BINARY", str(ROOT / "target/debug/galaxy-push"))

# Nothing here takes long; this only ends a test that would otherwise hang.
SECONDS = 60

LISTENING = {
    "gateways": r"listening for gateways on (\S+)",
    "publishers": r"listening for producers on (\S+)",
    "admin": r"listening for operators on (\S+)",
}


class Child:
    """A command of the binary, and what it says on standard error."""

    def __init__(self, *arguments):
        # The caller's own settings must not reach it.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GALAXY_PUSH_") and name != "RUST_LOG"
        }
        self.process = subprocess.Popen(
            [BINARY, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines = []
        self._has_ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def log(self):
        return "".join(self._lines)

    def wait_for(self, pattern):
        """The first line that has this."""
        with self._changed:
            self._changed.wait_for(lambda: re.search(pattern, self.log()) or self._has_ended, SECONDS)
            found = re.search(pattern, self.log())
        assert found, f"no {pattern!r} on standard error:\n{self.log()}"
        return found

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        """Ends it if it runs; its exit code."""
        if self.process.poll() is None:
            # One that was stopped must go on to be ended.
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(SECONDS)
        self.process.stderr.close()
        return self.process.returncode


class Real:
    def __init__(self, *flags, admin="127.0.0.1:0"):
        self.flags = flags
        self.gateways = []
        self.start(admin)

    def start(self, admin):
        self.server = Child(
            "serve", "--listen=127.0.0.1:0", "--publish-listen=127.0.0.1:0", f"--admin-listen={admin}", *self.flags
        )
        self.addresses = {name: self.server.wait_for(pattern)[1] for name, pattern in LISTENING.items()}

    @property
    def url(self):
        return f"http://{self.addresses['admin']}"

    def restart(self):
        """Another process at the same address; its gateways have gone."""
        assert self.server.end() == 0, self.server.log()
        for gateway in self.gateways:
            gateway.end()
        self.gateways = []
        self.start(self.addresses["admin"])

    def tail(self, id, *flags):
        gateway = Child("tail", f"--connect={self.addresses['gateways']}", f"--id={id}", *flags)
        gateway.wait_for("subscribed as")
        self.gateways.append(gateway)
        return gateway

    def publish(self, *arguments, stdin=None):
        done = subprocess.run(
            [BINARY, "publish", f"--connect={self.addresses['publishers']}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def publish_events(self, events):
        lines = "".join(f"{json.dumps(event, ensure_ascii=False)}\n" for event in events)
        return self.publish("-", stdin=lines)

    def close(self):
        for gateway in self.gateways:
            gateway.end()
        exit_code = self.server.end()
        assert exit_code == 0, self.server.log()
        assert "panicked" not in self.server.log(), self.server.log()
