"""A push server, and the example gateway before browsers; each is a child process."""

import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

from child import BINARY, ROOT, SECONDS, Child, Serve

GATEWAY = os.environ.get("EXAMPLE_GATEWAY_BINARY", ROOT / "target/debug/examples/gateway")


class Deployment:
    def __init__(self, folder: pathlib.Path, *serve_flags, lease=45):
        self.folder = folder
        self.lease = lease
        self.server = Serve(*serve_flags).wait_until_listening()
        self.address = "127.0.0.1:0"
        self.start_gateway()

    def start_gateway(self):
        """At the address that it had before, if it had one."""
        self.gateway = Child(
            GATEWAY,
            f"--connect={self.server.gateways}",
            f"--listen={self.address}",
            f"--state={self.folder}",
            f"--lease={self.lease}",
        )
        self.address = self.gateway.wait_for(r"browsers connect to http://(\S+)/")[1]
        self.gateway.wait_for("subscribed")
        ends = time.monotonic() + SECONDS
        while not self.serves():
            assert time.monotonic() < ends, self.gateway.log()
            time.sleep(0.01)

    def serves(self):
        """Whether it knows what is revoked."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=SECONDS):
                return True
        except urllib.error.HTTPError:
            return False

    @property
    def url(self):
        return f"http://{self.address}"

    def publish_lines(self, lines):
        self.publish("-", stdin="".join(f"{line}\n" for line in lines))

    def publish(self, *arguments, stdin=None):
        """What it says on standard error."""
        done = subprocess.run(
            [BINARY, "publish", f"--connect={self.server.publishers}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def send(self, user, payload, *arguments):
        self.publish("--user-id", user, "--kind", "chat", "--payload", payload, *arguments)

    def ban(self, user, reason, *arguments):
        return self.publish("--invalidate", "--user-id", user, "--reason", reason, *arguments)

    def stop_gateway(self):
        exit_code = self.gateway.stop()
        assert exit_code == 0, self.gateway.log()
        assert "panicked" not in self.gateway.log(), self.gateway.log()

    def close(self):
        if self.gateway.process.poll() is None:
            self.stop_gateway()
        assert self.server.stop() == 0, self.server.log()
