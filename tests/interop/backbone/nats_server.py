"""Real servers of NATS, and what an operator does to their streams."""

import asyncio
import pathlib
import shutil
import socket
import sysconfig
import tempfile

from nats.aio.client import Client
from nats.js.api import StreamConfig

from child import Child

STREAM = "GALAXY_PUSH"
# From the environment's packages, and the oldest that has to work.
NEWEST = pathlib.Path(sysconfig.get_path("scripts")) / "nats-server"
OLDEST = "nats-server"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Nats:
    """One server with JetStream, whose files outlive it."""

    def __init__(self, binary=NEWEST, configuration=""):
        self._binary = binary
        self._port = free_port()
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="galaxy-push-nats-"))
        self._file = self._folder / "nats.conf"
        self._file.write_text(
            f'listen: "127.0.0.1:{self._port}"\n'
            f'jetstream {{ store_dir: "{self._folder}/js" }}\n{configuration}'
        )
        self.address = f"127.0.0.1:{self._port}"
        self.child = None
        self.start()

    def start(self):
        self.child = Child(self._binary, "-c", self._file)
        self.child.wait_for("Server is ready")

    def kill(self):
        self.child.process.kill()
        self.child.wait()

    def restart(self):
        self.kill()
        self.start()

    def close(self):
        self.child.stop()
        shutil.rmtree(self._folder)

    def manage(self, what):
        """Runs `what`, a coroutine function of JetStream's manager and context."""

        async def run():
            client = Client()
            await client.connect(f"nats://{self.address}")
            try:
                return await what(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(run())

    def info(self, stream=STREAM):
        return self.manage(lambda js: js.stream_info(stream))

    def messages(self, stream=STREAM):
        """Each message of the stream, as (sequence, subject, headers, payload)."""

        async def read(js):
            state = (await js.stream_info(stream)).state
            found = []
            for sequence in range(state.first_seq, state.last_seq + 1):
                message = await js.get_msg(stream, sequence)
                found.append((sequence, message.subject, message.headers, message.data))
            return found

        return self.manage(read)

    def make_stream(self, name=STREAM, **settings):
        config = StreamConfig(
            name=name, subjects=[f"{name}.evt", f"{name}.inv"], **settings
        )
        return self.manage(lambda js: js.add_stream(config))

    def delete_stream(self, name=STREAM):
        return self.manage(lambda js: js.delete_stream(name))

    def delete_messages(self, *sequences, stream=STREAM):
        async def delete(js):
            for sequence in sequences:
                assert await js.delete_msg(stream, sequence)

        return self.manage(delete)

    def publish(self, subject, payload, headers=None):
        return self.manage(lambda js: js.publish(subject, payload, headers=headers))
