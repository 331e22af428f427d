"""A plain server that keeps the contract, for the conformance kit to judge.

It is made from `docs/protocol.md` and the protobuf files, and shares no code with the
real server: a kit that finds nothing wrong with either judges the contract, not one
implementation. It has no extras: no heartbeats, no missed revocations, no receipts.
Each method is one rule; `server_mutants.py` breaks one at a time.
"""

import argparse
import asyncio
import contextlib
import pathlib
import random
import signal
import sys
import time
import unicodedata
from typing import NamedTuple

import grpc
from google.protobuf.message import DecodeError

from messages import TEXTS, RawEvent, RawRequest, publisher_pb2, push_pb2

# What the other tests of tests/interop use.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

from cursors import FORM, Cursor, parse
from wire import field

CURSOR_FIELD = push_pb2.PushEvent.CURSOR_FIELD_NUMBER
MAX_ID_BYTES = 256
REQUIRED = {"client_event": ("user_id", "kind"), "session_invalidation": ("user_id",)}
# At a stop, gateways have so long to take what was published before.
GATEWAYS_GRACE_SECONDS = 10
# Nothing ends a PublishStream before, because it waits for the publisher.
PUBLISHERS_GRACE_SECONDS = 0.5
OPTIONS = (
    # Otherwise two servers can have one port, and each gets some of its connections.
    ("grpc.so_reuseport", 0),
    # Otherwise the server cuts a client that pings a quiet connection.
    ("grpc.http2.max_ping_strikes", 0),
)


class Ended(Exception):
    """Refuses or ends a call with this status."""

    def __init__(self, code, message, *trailers):
        super().__init__(message)
        self.code = code
        self.message = message
        self.trailers = trailers


def invalid(message):
    return Ended(grpc.StatusCode.INVALID_ARGUMENT, message)


class Start(NamedTuple):
    """A stream's start: after the event at `position`."""

    resume: str
    reason: str
    position: int
    missed: int | None = None


class Problem(NamedTuple):
    """Why an event is refused. Without a field, it is the whole event."""

    field: str
    text: str


class Subscription:
    def __init__(self, gateway_id, position):
        self.gateway_id = gateway_id
        # The position of the last event that it has taken from the ring.
        self.position = position
        # Set when there may be something new for it.
        self.wake = asyncio.Event()
        # Why it ends, once a newer subscription has its id.
        self.end = None


class Server:
    """All calls run on one event loop: nothing interferes between two `await`s."""

    def __init__(self, ring_events):
        self.epoch = self.birth()
        self.ring_events = ring_events
        # The newest events, each as gateways get it, by position. The first is 1.
        self.ring = {}
        self.head = 0
        self.subscriptions = []
        self.stopping = False

    # Cursors

    def birth(self):
        return time.time_ns() // 1_000_000 << 18 | random.getrandbits(18)

    def cursor_at(self, position):
        return str(Cursor(self.epoch, position))

    def parse_cursor(self, text):
        """Epoch and position, or None if the text is not a cursor."""
        return parse(text) if FORM.fullmatch(text) else None

    # Gateways

    async def subscribe(self, data, context):
        try:
            request = push_pb2.GatewaySubscribeRequest.FromString(data)
        except DecodeError:
            raise invalid("the request is not a GatewaySubscribeRequest") from None
        self.check_id(request.gateway_client_id)
        start = self.start(request.cursor)
        # From here the older stream takes no event. The newer one has no headers yet.
        self.take_over(request.gateway_client_id)
        subscription = self.subscription(request.gateway_client_id, start)
        self.subscriptions.append(subscription)
        try:
            await self.send_headers(context, subscription, self.metadata(start))
            while True:
                frame = await self.next_frame(subscription)
                # Waits while the gateway's flow-control window is full.
                await self.send_frame(context, subscription, frame)
        finally:
            self.subscriptions.remove(subscription)

    def check_id(self, gateway_id):
        size = len(gateway_id.encode())
        if not 1 <= size <= MAX_ID_BYTES:
            message = f"gateway_client_id has {size} bytes, not 1 to {MAX_ID_BYTES}"
            raise invalid(message)
        if any(unicodedata.category(character) == "Cc" for character in gateway_id):
            raise invalid("gateway_client_id has a control character")

    def start(self, text):
        """The table of starts, row by row."""
        if not text:
            return self.fresh("no-cursor")
        cursor = self.parse_cursor(text)
        if cursor is None:
            return self.fresh("malformed")
        epoch, position = cursor
        if epoch != self.epoch:
            return self.fresh("other-epoch")
        if position > self.head:
            return self.fresh("ahead")
        if position < self.head and position + 1 not in self.ring:
            return self.expired(position)
        return Start("resumed", "requested", position)

    def fresh(self, reason):
        return Start("fresh", reason, self.head)

    def expired(self, position):
        return Start("fresh", "expired", self.head, missed=self.head - position)

    def metadata(self, start):
        metadata = {
            "push-resume": start.resume,
            "push-resume-reason": start.reason,
            "push-start-cursor": self.cursor_at(start.position),
        }
        if start.missed is not None:
            metadata["push-missed"] = str(start.missed)
        return metadata

    def take_over(self, gateway_id):
        for older in self.subscriptions:
            if older.gateway_id == gateway_id:
                self.end_older(older)

    def end_older(self, older):
        message = "a newer subscription has this gateway_client_id"
        older.end = Ended(grpc.StatusCode.ABORTED, message)
        older.wake.set()

    def subscription(self, gateway_id, start):
        return Subscription(gateway_id, start.position)

    async def send_headers(self, context, subscription, metadata):
        await context.send_initial_metadata(tuple(metadata.items()))

    async def send_frame(self, context, subscription, frame):
        await context.write(frame)

    async def next_frame(self, subscription):
        """The next event for this subscription, once it is there."""
        while True:
            subscription.wake.clear()
            if subscription.end:
                raise subscription.end
            frame = self.take(subscription)
            if frame is not None:
                return frame
            if self.stopping:
                raise self.stopped()
            await subscription.wake.wait()

    def take(self, subscription):
        """The next event from the ring, or None if it has taken them all."""
        if subscription.position >= self.head:
            return None
        if subscription.position + 1 not in self.ring:
            raise self.lagged(self.head - subscription.position)
        subscription.position += 1
        return self.ring[subscription.position]

    def lagged(self, missed):
        message = f"the stream was too slow for the ring: {missed} events are missed"
        return Ended(
            grpc.StatusCode.OUT_OF_RANGE, message, ("push-missed", str(missed))
        )

    # Publishers

    async def publish(self, data):
        """One batch. There is no `await` within, so its events lie side by side."""
        if self.stopping:
            raise self.stopped()
        events = self.split(data)
        self.check(events)
        first = self.head + 1
        for event in events:
            self.append(event)
        return self.response(first, self.head)

    async def publish_stream(self, requests):
        async for data in requests:
            yield await self.publish(data)

    def split(self, data):
        """The events of a request, as they came."""
        try:
            return list(RawRequest.FromString(data).events)
        except DecodeError:
            raise invalid("the request is not a PublishRequest") from None

    def check(self, events):
        if not events:
            raise invalid("events is empty")
        for index, event in enumerate(events):
            for problem in self.problems(event):
                raise self.refusal(index, problem)

    def problems(self, data):
        try:
            event = RawEvent.FromString(data)
        except DecodeError:
            yield Problem("", "is not a PushEvent")
            return
        if event.cursor:
            yield Problem("cursor", "is set")
        kind = event.WhichOneof("kind")
        if kind is None:
            yield Problem("kind", "is not set")
            return
        message = getattr(event, kind)
        for name in REQUIRED[kind]:
            if not getattr(message, name):
                yield Problem(f"{kind}.{name}", "is empty")
        for name in TEXTS[kind]:
            try:
                getattr(message, name).decode()
            except UnicodeDecodeError:
                yield Problem(f"{kind}.{name}", "is not UTF-8")
        try:
            push_pb2.PushEvent.FromString(data)
        except DecodeError:
            # Of a field that comes twice, only the last was looked at above.
            yield Problem(kind, "is not UTF-8")

    def refusal(self, index, problem):
        field = problem.field and f".{problem.field}"
        return invalid(f"events[{index}]{field} {problem.text}")

    def append(self, event):
        self.head += 1
        self.ring[self.head] = self.encode(event, self.cursor_at(self.head))
        self.ring.pop(self.head - self.ring_events, None)
        for subscription in self.subscriptions:
            subscription.wake.set()

    def encode(self, event, cursor):
        """The bytes as they were published, and the cursor as one more field."""
        return event + field(CURSOR_FIELD, cursor.encode())

    def response(self, first, last):
        return publisher_pb2.PublishResponse(
            first_cursor=self.cursor_at(first), last_cursor=self.cursor_at(last)
        )

    # The stop

    def stop(self):
        """From now on nothing is published, and streams end when they have it all."""
        self.stopping = True
        for subscription in self.subscriptions:
            subscription.wake.set()

    def stopped(self):
        return Ended(grpc.StatusCode.UNAVAILABLE, "the server is stopping")

    # gRPC: handlers without serializers take and give messages as bytes.

    def gateways_service(self):
        method = grpc.unary_stream_rpc_method_handler(self.call_subscribe)
        return grpc.method_handlers_generic_handler(
            "galaxy.backend.push.v1.Push", {"SubscribePush": method}
        )

    def publishers_service(self):
        unary = grpc.unary_unary_rpc_method_handler(self.call_publish)
        stream = grpc.stream_stream_rpc_method_handler(self.call_publish_stream)
        return grpc.method_handlers_generic_handler(
            "galaxy.push.publisher.v1.Publisher",
            {"Publish": unary, "PublishStream": stream},
        )

    async def call_subscribe(self, data, context):
        async with self.statuses(context):
            await self.subscribe(data, context)

    async def call_publish(self, data, context):
        async with self.statuses(context):
            return (await self.publish(data)).SerializeToString()

    async def call_publish_stream(self, requests, context):
        async with self.statuses(context):
            async for response in self.publish_stream(requests):
                yield response.SerializeToString()

    @contextlib.asynccontextmanager
    async def statuses(self, context):
        try:
            yield
        except Ended as ended:
            await self.end_call(context, ended)

    async def end_call(self, context, ended):
        await context.abort(ended.code, ended.message, ended.trailers)


async def start(service, address):
    """The listener, and its address with the port that it has."""
    listener = grpc.aio.server(options=OPTIONS)
    listener.add_generic_rpc_handlers([service])
    port = listener.add_insecure_port(address)
    await listener.start()
    return listener, f"{address.rpartition(':')[0]}:{port}"


async def serve(server, listen, publish_listen):
    gateways, gateways_address = await start(server.gateways_service(), listen)
    publishers, publishers_address = await start(
        server.publishers_service(), publish_listen
    )
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    print("listening", gateways_address, publishers_address, flush=True)
    await asked_to_stop.wait()
    server.stop()
    await asyncio.gather(
        gateways.stop(GATEWAYS_GRACE_SECONDS), publishers.stop(PUBLISHERS_GRACE_SECONDS)
    )


def main():
    # The mutants import this module by its name, and must not get a second one.
    sys.modules["mock_server"] = sys.modules[__name__]
    from server_mutants import MUTANTS

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    address = {"metavar": "HOST:PORT", "default": "127.0.0.1:0"}
    parser.add_argument("--listen", help="for gateways", **address)
    parser.add_argument("--publish-listen", help="for publishers", **address)
    parser.add_argument("--ring-events", metavar="N", type=int, default=1024)
    parser.add_argument(
        "--fault", metavar="NAME", choices=MUTANTS, help="one of: " + ", ".join(MUTANTS)
    )
    arguments = parser.parse_args()
    kind = MUTANTS[arguments.fault].server if arguments.fault else Server
    server = kind(arguments.ring_events)
    asyncio.run(serve(server, arguments.listen, arguments.publish_listen))


if __name__ == "__main__":
    main()
