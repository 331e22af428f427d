"""`galaxy-push conformance`, and what it is run against."""

import json
import shlex
import signal
import subprocess
import sys
import threading

from child import BINARY, ENVIRONMENT, SECONDS, run


def judge(side, *flags):
    """Each promise's name, with its verdict and its detail."""
    command = [BINARY, "conformance", side, "--format", "json", *flags]
    code, out, err = run(*command, seconds=3 * SECONDS)
    # Without a report it says why on standard error.
    assert out, err
    found = {
        promise["name"]: (promise["verdict"], promise.get("detail", ""))
        for promise in json.loads(out)["promises"]
    }
    is_broken = any(verdict == "broken" for verdict, _ in found.values())
    assert code == int(is_broken), err
    return found


def unkept(found):
    return {name: it for name, it in found.items() if it[0] != "kept"}


class Restarting:
    """A server that is started again at the same addresses whenever it ends.

    Its first line says at which: `listening GATEWAYS PUBLISHERS`.
    """

    def __init__(self, directory, *command, at_addresses):
        self._command = [sys.executable, *map(str, command)]
        self._at_addresses = at_addresses
        self._pid_file = directory / "pid"
        self._is_stopping = False
        self.gateways, self.publishers = self._start()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _start(self, *flags):
        self._process = subprocess.Popen(
            [*self._command, *flags],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pid_file.write_text(str(self._process.pid))
        word, *addresses = self._process.stdout.readline().split() or [""]
        assert word == "listening", self._process.wait(SECONDS)
        return addresses

    def _run(self):
        while True:
            self._process.wait()
            self._process.stdout.close()
            if self._is_stopping:
                return
            self._start(*self._at_addresses(self.gateways, self.publishers))

    @property
    def restart_command(self):
        """Ends when the server that runs now has ended."""
        pid = f"pid=$(cat {shlex.quote(str(self._pid_file))})"
        return f"{pid}; kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.02; done"

    def stop(self):
        self._is_stopping = True
        self._process.send_signal(signal.SIGTERM)
        self._thread.join(SECONDS)
