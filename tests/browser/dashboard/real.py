"""The real server, with real gateways and publishers: `galaxy-push serve`, `tail` and
`publish`, each a child process.
"""

import json
import subprocess

from child import BINARY, SECONDS, Child, Serve


class Real:
    def __init__(self, *flags, admin="127.0.0.1:0"):
        self.flags = flags
        self.gateways = []
        self.start(admin)

    def start(self, admin):
        self.server = Serve(*self.flags, admin_listen=admin).wait_until_listening()

    @property
    def url(self):
        return f"http://{self.server.admin}"

    def restart(self):
        """Another process at the same address; its gateways have gone."""
        address = self.server.admin
        assert self.server.stop() == 0, self.server.log()
        for gateway in self.gateways:
            gateway.stop()
        self.gateways = []
        self.start(address)

    def tail(self, id, *flags):
        gateway = Child(BINARY, "tail", f"--connect={self.server.gateways}", f"--id={id}", *flags)
        gateway.wait_for("subscribed as")
        self.gateways.append(gateway)
        return gateway

    def publish(self, *arguments, stdin=None):
        done = subprocess.run(
            [BINARY, "publish", f"--connect={self.server.publishers}", *arguments],
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
            gateway.stop()
        exit_code = self.server.stop()
        assert exit_code == 0, self.server.log()
        assert "panicked" not in self.server.log(), self.server.log()
