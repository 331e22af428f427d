"""The browsers' half of the gateway: sessions, and server-sent events to them."""

import asyncio
import base64
import json

from aiohttp import web

QUEUE_EVENTS = 64


async def authenticate(user, session):
    """Ask your backend here whether the session is valid: this accepts everybody."""
    return True


class Session:
    """A browser's stream of events, from before its authentication until it has `ended`."""

    def __init__(self, name, transport):
        self.name, self.ended = name, False
        self._transport, self._queue = transport, asyncio.Queue(QUEUE_EVENTS)

    def send(self, text):
        if self._queue.full():
            self.end()  # the browser is too slow
        else:
            self._queue.put_nowait(text)

    def end(self):
        """Nothing is delivered any more."""
        self.ended = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)
        # A graceful end would first deliver what the transport has not sent yet.
        if self._transport.get_write_buffer_size():
            self._transport.abort()

    async def next(self):
        """The next event, or None at the end."""
        return await self._queue.get()


class Browsers:
    def __init__(self):
        self.serving = False
        self._sessions = {}  # a set for each user
        self._runner = None

    def __bool__(self):
        return bool(self._sessions)

    def _named(self, message):
        """The session that the message names, or all of the user."""
        name = message.device_session_id
        return [s for s in self._sessions.get(message.user_id, ()) if name in ("", s.name)]

    def forward(self, event):
        content = {"kind": event.kind, "event_id": event.event_id}
        try:
            content["payload"] = event.payload.decode()
        except UnicodeDecodeError:
            content["payload_base64"] = base64.b64encode(event.payload).decode()
        for session in self._named(event):
            session.send(f"data: {json.dumps(content)}\n\n")

    def revoke(self, invalidation):
        for session in self._named(invalidation):
            session.end()

    def refuse(self):
        """Ends every session, and opens none until `serving` is set again."""
        self.serving = False
        for session in [s for sessions in self._sessions.values() for s in sessions]:
            session.end()

    async def listen(self, address):
        """Returns the address, with its port where that was 0."""
        app = web.Application()
        app.add_routes([web.get("/events", self._events), web.get("/healthz", self._healthz)])
        # handler_cancellation: a session ends when its browser disconnects.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=1
        )
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        await web.TCPSite(self._runner, host, int(port)).start()
        return "{}:{}".format(*self._runner.addresses[0])

    async def close(self):
        self.refuse()
        await self._runner.cleanup()

    async def _events(self, request):
        user, name = request.query.get("user"), request.query.get("session")
        if not user or not name:
            return web.Response(status=400)
        if not self.serving:
            return web.Response(status=503)
        # The session can be revoked from here on. An invalidation that the backend's response
        # does not know of may come before that response.
        session = Session(name, request.transport)
        self._sessions.setdefault(user, set()).add(session)
        try:
            if not await authenticate(user, name) or session.ended:
                return web.Response(status=403 if self.serving else 503)
            headers = {"content-type": "text/event-stream", "cache-control": "no-store"}
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            text = ": open\n\n"
            while text:
                await response.write(text.encode())
                text = await session.next()
            return response
        finally:
            self._sessions[user].discard(session)
            if not self._sessions[user]:
                del self._sessions[user]

    async def _healthz(self, _request):
        return web.Response(status=200 if self.serving else 503)
