"""A program as a child process, and what it says: for tests in Python of every kind."""

import os
import pathlib
import re
import signal
import subprocess
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("GALAXY_PUSH_BINARY", ROOT / "target/debug/galaxy-push")

# Nothing here takes long; this only ends a test that would otherwise hang.
SECONDS = 120

# The caller's own settings must not reach the programs under test.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("GALAXY_PUSH_", "OTEL_")) and name != "RUST_LOG"
}


class Child:
    """What it writes to standard output is thrown away; standard error is its log."""

    def __init__(self, *command, environment=None, **how):
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=ENVIRONMENT | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            **how,
        )
        self._lines = []
        self._changed = threading.Condition()
        self._log_ended = False
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
        return "".join(self._lines)

    def wait_for(self, pattern):
        """Where the log has this: a match, once it is there."""
        with self._changed:
            self._changed.wait_for(lambda: re.search(pattern, self.log()) or self._log_ended, SECONDS)
            found = re.search(pattern, self.log())
        assert found, f"no {pattern!r} on standard error:\n{self.log()}"
        return found

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        """The exit code; one that does not end is killed and fails."""
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(SECONDS)
        self.process.stderr.close()
        return self.process.returncode

    def stop(self):
        """Ends it, if it runs; its exit code."""
        if self.process.poll() is None:
            # One that was stopped must go on to be ended.
            self.signal(signal.SIGCONT)
            self.signal()
        return self.wait()


def run(*command, environment=None, seconds=SECONDS):
    """Runs a program to its end: its exit code, standard output and standard error.

    One that does not end is asked to, so that it ends what it has started.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        env=ENVIRONMENT | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, err = process.communicate(timeout=SECONDS)
        raise AssertionError(f"no end within {seconds} s:\n{out}{err}") from None
    return process.returncode, out, err


class Serve(Child):
    """`galaxy-push serve`, on ports of its own where nothing else is said."""

    LISTENERS = {"gateways": "gateways", "publishers": "producers", "admin": "operators"}

    def __init__(
        self,
        *flags,
        listen="127.0.0.1:0",
        publish_listen="127.0.0.1:0",
        admin_listen="none",
        binary=BINARY,
        environment=None,
    ):
        super().__init__(
            binary,
            "serve",
            f"--listen={listen}",
            f"--publish-listen={publish_listen}",
            f"--admin-listen={admin_listen}",
            *flags,
            environment=environment,
        )
        self._has_admin = admin_listen != "none"

    def wait_until_listening(self):
        """Then `gateways`, `publishers` and, if there is one, `admin` are its addresses."""
        for name, who in self.LISTENERS.items():
            if name != "admin" or self._has_admin:
                setattr(self, name, self.wait_for(rf"listening for {who} on (\S+)")[1])
        return self
