"""A gateway for browsers: server-sent events from a galaxy-push server. See ../README.md."""

import argparse
import asyncio
import logging
import os
import pathlib
import random
import signal
import socket
import sys

import grpc

import retry
from browsers import Browsers

# grpcio-tools makes these modules from the .proto file while they are imported.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[3] / "proto"))
push_pb2, push_pb2_grpc = grpc.protos_and_services("galaxy/backend/push/v1/push.proto")

FIRST_BACKOFF_SECONDS = 0.2
HEADERS_SECONDS = 20
STORE_SECONDS = 0.1
# A new connection, and not that of the stream before, which may be dead.
CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
log = logging.getLogger("gateway")


class Violation(Exception):
    """The server broke the protocol."""


class Gateway:
    def __init__(self, options):
        self.options, self.browsers = options, Browsers()
        self.position = options.state.read_text().strip() if options.state.exists() else ""
        self.backoff = FIRST_BACKOFF_SECONDS
        self.stale_timer = None

    async def run(self):
        """Runs until a signal comes, and returns the exit code."""
        log.info("listening on %s", await self.browsers.listen(self.options.listen))
        self.subscription = asyncio.create_task(self._subscribe())
        store = asyncio.create_task(self._store())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.subscription.cancel)
        await asyncio.wait([self.subscription])
        await self.browsers.close()
        await store
        return 0 if self.subscription.cancelled() else self.subscription.result()

    async def _subscribe(self):
        """One stream after another. Returns when the server calls the request invalid."""
        while True:
            delay = 0
            try:
                await self._stream()
            except grpc.aio.AioRpcError as error:
                delay = retry.delay(error)
                log.warning("the stream ended: %s: %s", error.code().name, error.details())
                if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                    return 1
                if error.code() is grpc.StatusCode.ABORTED:
                    self._refuse("another process has the id")
                    self.backoff = self.options.max_backoff
            except TimeoutError:
                log.warning("the stream was dropped: nothing came in time")
            except (Violation, OSError, ValueError) as error:
                log.warning("the stream was dropped: %s", error)
            await self._pause(delay)

    async def _pause(self, least):
        await asyncio.sleep(max(least, random.uniform(self.backoff / 2, self.backoff)))
        self.backoff = min(2 * self.backoff, self.options.max_backoff)

    async def _stream(self):
        options, clock = self.options, asyncio.get_running_loop().time
        metadata = [
            ("push-heartbeat", f"{options.heartbeat}s"),
            ("push-revocations", "replay"),
            ("push-instance", f"{socket.gethostname()}/{os.getpid()}"),
        ]
        if options.token_file:
            metadata.append(("authorization", f"Bearer {options.token_file.read_text().strip()}"))
        request = push_pb2.GatewaySubscribeRequest(
            gateway_client_id=options.id, cursor=self.position
        )
        channel = grpc.aio.insecure_channel(options.connect, CHANNEL_OPTIONS)
        async with channel, asyncio.timeout(HEADERS_SECONDS) as watchdog:
            call = push_pb2_grpc.PushStub(channel).SubscribePush(request, metadata=metadata)
            start = dict(await call.initial_metadata())
            if "push-resume" not in start:  # a refusal, whose status `read` raises
                raise Violation(f"no start of a stream, but {await call.read()}")
            self._begin(start)
            silence = 2 * options.heartbeat if "push-heartbeat" in start else float("inf")
            watchdog.reschedule(clock() + silence)
            async for event in call:
                if event is None:  # what grpcio makes of a message that it cannot parse
                    raise Violation("a message is malformed")
                watchdog.reschedule(clock() + silence)
                self._handle(event)

    def _begin(self, start):
        fresh = start["push-resume"] != "resumed"
        # How many messages are to come before the replay's end mark. Below 0: it is over.
        self.replay = int(start.get("push-revocations-count", -1))
        if fresh and self.browsers:
            self._gap(start)
        if self.replay < 0:
            self._processed(start.get("push-start-cursor") if fresh else "")
            self._alive()

    def _gap(self, start):
        log.warning("a gap: %s", {key: start[key] for key in start if key.startswith("push-")})
        if start.get("push-revocations") != "complete":
            self._refuse("revocations may be missing")

    def _handle(self, event):
        kind = event.WhichOneof("kind")
        if not kind and self.replay > 0:
            return  # a heartbeat within the replay: its cursor may be that of the end mark
        repeated = self.replay < 0 and self._is_repeated(event.cursor)
        self.replay -= 1
        if kind == "session_invalidation":
            self._revoke(event.session_invalidation, event.cursor)
        if kind and repeated:
            raise Violation(f"{event.cursor} came after {self.position}")
        if kind == "client_event":
            self._forward(event.client_event)
        if not repeated:
            self._processed(event.cursor)
        self.backoff = FIRST_BACKOFF_SECONDS
        if self.replay < 0:
            self._alive()

    def _is_repeated(self, cursor):
        same_epoch = cursor[:12] == self.position[:12]
        return same_epoch and cursor <= self.position

    def _forward(self, event):
        self.browsers.forward(event)

    def _revoke(self, message, cursor):
        self.browsers.revoke(message)
        text = "revoked: user %r, session %r, reason %r, cursor %s"
        log.warning(text, message.user_id, message.device_session_id, message.reason, cursor)

    def _alive(self):
        """Every revocation up to now is known, which is good for a limited time."""
        self.browsers.serving = True
        if self.stale_timer:
            self.stale_timer.cancel()
        later = asyncio.get_running_loop().call_later
        self.stale_timer = later(self.options.stale, self._refuse, "no stream has been alive")

    def _refuse(self, reason):
        log.error("no session is served: %s", reason)
        self.browsers.refuse()

    def _processed(self, cursor):
        self.position = cursor or self.position

    async def _store(self):
        stored = self.position
        while stored != self.position or not self.subscription.done():
            await asyncio.sleep(STORE_SECONDS)
            if stored != self.position:
                stored = self.position
                await asyncio.to_thread(self._write, stored)

    def _write(self, cursor):
        new = pathlib.Path(f"{self.options.state}.new")
        try:
            with open(new, "wb", buffering=0) as file:
                file.write(cursor.encode())
                os.fsync(file)
            new.replace(self.options.state)
        except OSError as error:  # the older cursor stays: a restart repeats events
            log.error("the cursor is not stored: %s", error)


def main(gateway_class=Gateway):
    parser = argparse.ArgumentParser(description=__doc__)
    for flag in ("--connect", "--id", "--listen"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--token-file", type=pathlib.Path)
    parser.add_argument("--heartbeat", type=int, default=15)
    parser.add_argument("--stale", type=float, default=45)
    parser.add_argument("--max-backoff", type=float, default=30)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    sys.exit(asyncio.run(gateway_class(parser.parse_args()).run()))


if __name__ == "__main__":
    main()
