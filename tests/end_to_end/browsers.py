"""Browsers: they log in, follow their events, come back with their cookie, log in again."""

import asyncio
import base64
import json
import random
import time

import aiohttp

# As a browser's EventSource does.
RETRY_SECONDS = 0.3
# What a browser gets when the session was revoked, or nobody knows whether it was.
REVOKED, LOG_IN_AGAIN = 4001, 4002


class Session:
    """What happened to one session, by the clock of the publisher."""

    def __init__(self, user, name, logged_in_at):
        self.user = user
        self.name = name
        self.logged_in_at = logged_in_at
        # (from, to) of each stream; `to` is None while it is open.
        self.streams = []
        # Each event's number, and when it came.
        self.received = []
        # Why its last stream was closed: a code and a text.
        self.closed = None

    def is_open(self):
        return bool(self.streams) and self.streams[-1][1] is None

    def is_served_at(self, moment):
        return any(
            begin <= moment and (end is None or moment < end) for begin, end in self.streams
        )


class Browser:
    def __init__(self, http, user, gateway):
        self._http = http
        self.user = user
        # The gateway's address.
        self._base = f"http://{gateway}"
        self._cookie = None
        self.sessions = []
        self.refused = 0

    @property
    def session(self):
        """The session that it has, if its stream is open."""
        if self.sessions and self.sessions[-1].is_open():
            return self.sessions[-1]
        return None

    async def run(self):
        while True:
            try:
                if not self._cookie:
                    await self._log_in()
                await self._follow()
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                pass
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.5))

    async def _log_in(self):
        headers = {"origin": self._base}
        body = {"user": self.user}
        async with self._http.post(f"{self._base}/login", json=body, headers=headers) as response:
            response.raise_for_status()
            said = await response.json()
            self._cookie = response.headers["set-cookie"].split(";")[0]
            self.sessions.append(Session(self.user, said["session"], time.monotonic()))

    async def _follow(self):
        session = self.sessions[-1]
        headers = {"cookie": self._cookie}
        async with self._http.get(f"{self._base}/sse", headers=headers) as response:
            if response.status == 401:
                self._cookie = None
                self.refused += 1
                return
            response.raise_for_status()
            stream = [time.monotonic(), None]
            session.streams.append(stream)
            try:
                async for line in response.content:
                    self._line(session, line)
            finally:
                stream[1] = time.monotonic()

    def _line(self, session, line):
        now = time.monotonic()
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name != "data":
            return
        data = json.loads(value)
        if "payload" in data:
            payload = json.loads(base64.urlsafe_b64decode(data["payload"] + "=="))
            session.received.append((payload["number"], now))
        elif "code" in data:
            session.closed = data["code"], data["reason"]
            if data["code"] in (REVOKED, LOG_IN_AGAIN):
                self._cookie = None
