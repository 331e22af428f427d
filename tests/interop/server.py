"""The real binary, as a child process on ports of its own."""

import os
import pathlib
import re

from child import Serve
from peers import Gateway, Publisher


class Server(Serve):
    def __init__(self, *flags, **how):
        super().__init__(*flags, **how)
        self._clients = []

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
