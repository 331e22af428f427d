"""What happens to servers and gateways meanwhile: they are killed, stopped, held up and started
again, at random.
"""

import asyncio
import random
import re
import signal

from child import BINARY, Child

RING_EVENTS = 1500
# So many large events are more than a gateway that is held up, and what lies on the way to it, can
# take, and a whole ring beyond.
LAP_EVENTS = 1200 + RING_EVENTS


class Part:
    """A program that is started again after each end, with the same flags."""

    def __init__(self, name, *command, ready):
        self.name = name
        self._command = command
        self._ready = ready
        self.logs = []
        self.is_disturbed = False
        self.start()

    def start(self):
        self.child = Child(*self._command)
        self.child.wait_for(self._ready)

    def end(self, number):
        """Ends it: what it has written is kept."""
        self.child.signal(number)
        code = self.child.wait()
        self.logs.append(self.child.log())
        return code

    def log(self):
        return "".join(self.logs) + self.child.log()

    def stop(self):
        return self.child.stop()

    def kill(self):
        """Ends it whatever it is doing, if it runs."""
        if self.child.process.poll() is None:
            self.child.signal(signal.SIGKILL)
            self.child.wait()


def server(name, listen, publish_listen):
    return Part(
        name,
        BINARY,
        "serve",
        f"--listen={listen}",
        f"--publish-listen={publish_listen}",
        "--admin-listen=none",
        f"--max-events={RING_EVENTS}",
        "--stall-timeout=5s",
        "--shutdown-grace=2s",
        ready="listening for producers",
    )


def gateway(name, program, listen, state, servers, lease):
    return Part(
        name,
        program,
        *(f"--connect={address}" for address in servers),
        f"--id={name}",
        f"--listen={listen}",
        f"--state={state}",
        f"--lease={lease}",
        ready="browsers connect to",
    )


class Faults:
    def __init__(self, servers, gateways, publisher, chance):
        self._servers = servers
        self._gateways = gateways
        self._publisher = publisher
        self._random = chance
        self.counts = {}

    async def run(self, until):
        """One fault after another, some at once."""
        kinds = [
            (self._kill, self._servers),
            (self._terminate, self._servers),
            (self._hold, self._servers),
            (self._kill, self._gateways),
            (self._hold, self._gateways),
            (self._lap, self._gateways),
            (self._strand, self._gateways),
        ]
        self._running = running = set()
        while not until.is_set():
            disturb, parts = self._random.choice(kinds)
            part = self._random.choice(parts)
            # One server is always there.
            others = [it for it in self._servers if not it.is_disturbed and it is not part]
            if not part.is_disturbed and others:
                self._begin(disturb, part)
            await asyncio.sleep(self._random.uniform(0.3, 3))
        while running:
            await asyncio.gather(*running)

    def _begin(self, disturb, part):
        task = asyncio.create_task(self._disturb(disturb, part))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _disturb(self, disturb, part):
        part.is_disturbed = True
        kind = disturb.__name__.strip("_")
        what = f"{kind} {re.sub(r'[^a-z]', '', part.name)}"
        self.counts[what] = self.counts.get(what, 0) + 1
        try:
            await disturb(part)
        finally:
            part.is_disturbed = False

    async def _pause(self, least, most):
        await asyncio.sleep(self._random.uniform(least, most))

    async def _kill(self, part):
        await asyncio.to_thread(part.end, signal.SIGKILL)
        await self._pause(0.1, 3)
        await asyncio.to_thread(part.start)

    async def _terminate(self, part):
        code = await asyncio.to_thread(part.end, signal.SIGTERM)
        assert code == 0, part.logs[-1]
        await self._pause(0.1, 2)
        await asyncio.to_thread(part.start)

    async def _hold(self, part):
        part.child.signal(signal.SIGSTOP)
        await self._pause(0.3, 3)
        part.child.signal(signal.SIGCONT)

    async def _strand(self, part):
        """A gateway is held up while a server goes, which may be its own."""
        part.child.signal(signal.SIGSTOP)
        free = [it for it in self._servers if not it.is_disturbed]
        if len(free) > 1:
            self._begin(self._kill, self._random.choice(free))
        await self._pause(1, 3)
        part.child.signal(signal.SIGCONT)

    async def _lap(self, part):
        """A gateway is held up while more is published than the ring has."""
        part.child.signal(signal.SIGSTOP)
        for _ in range(LAP_EVENTS // 100):
            for _ in range(100):
                self._publisher.send("nobody", more="x" * (16 << 10))
            await asyncio.sleep(0.05)
        part.child.signal(signal.SIGCONT)
