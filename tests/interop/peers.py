"""The two peers of the server: a gateway that subscribes and a publisher that
publishes. Both can speak in messages and in raw bytes, since what a server does
to bytes shows only in bytes.
"""

import queue
import threading
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from galaxy.backend.push.v1 import push_pb2
from galaxy.push.publisher.v1 import publisher_pb2, publisher_pb2_grpc

# No call takes long; this only ends a test that would otherwise hang.
DEADLINE_SECONDS = 90

SUBSCRIBE = "/galaxy.backend.push.v1.Push/SubscribePush"
PUBLISH = "/galaxy.push.publisher.v1.Publisher/Publish"


def open_channel(target):
    # grpcio lets channels with the same target share a connection; a gateway
    # that does not read would then hold up the others.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.insecure_channel(target, options=options)


def wait_until(condition, seconds=DEADLINE_SECONDS):
    """For conditions that nobody announces, such as another process's state."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


def client_event(user_id="user-1", kind="turn.ready", **fields):
    return push_pb2.PushEvent(
        client_event=push_pb2.ClientEvent(user_id=user_id, kind=kind, **fields)
    )


def session_invalidation(user_id="user-1", **fields):
    return push_pb2.PushEvent(
        session_invalidation=push_pb2.SessionInvalidation(user_id=user_id, **fields)
    )


def numbered(numbers, padding=0):
    """Events that carry their number, each with so many bytes of padding more."""
    return [
        client_event(event_id=str(number), payload=b"x" * padding) for number in numbers
    ]


def numbers(events):
    return [int(event.client_event.event_id) for event in events]


def reason_of(call):
    """Why a call, or the error that it raised, has ended, for machines, and the figures there."""
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(call)
    # A status of the client's own has none.
    for detail in status.details if status else ():
        detail.Unpack(info)
    return info.reason, dict(info.metadata)


class Publisher:
    def __init__(self, target):
        self._channel = open_channel(target)
        self._stub = publisher_pb2_grpc.PublisherStub(self._channel)
        self._publish_raw = self._channel.unary_unary(
            PUBLISH,
            request_serializer=bytes,
            response_deserializer=publisher_pb2.PublishResponse.FromString,
        )

    def publish(self, *events, metadata=None):
        """Publishes one batch; returns its response or raises grpc.RpcError."""
        request = publisher_pb2.PublishRequest(events=events)
        return self._stub.Publish(
            request, timeout=DEADLINE_SECONDS, metadata=metadata
        )

    def publish_raw(self, request):
        """Publishes the bytes of a request as they are."""
        return self._publish_raw(request, timeout=DEADLINE_SECONDS)

    def stream(self):
        return PublishStream(self._stub)

    def close(self):
        self._channel.close()


class PublishStream:
    """A pipelined stream: sending never waits for a response."""

    def __init__(self, stub):
        self._requests = queue.SimpleQueue()
        self._call = stub.PublishStream(
            iter(self._requests.get, None), timeout=DEADLINE_SECONDS
        )

    def send(self, *events):
        self._requests.put(publisher_pb2.PublishRequest(events=events))

    def send_no_more(self):
        self._requests.put(None)

    def response(self):
        """The next response in order; raises grpc.RpcError at an ill end."""
        return next(self._call)

    def responses(self):
        """All further responses, and the status that the stream ended with."""
        responses = []
        try:
            responses.extend(self._call)
        except grpc.RpcError:
            pass  # the code below says it
        return responses, self._call.code(), self._call.details()


class Gateway:
    def __init__(self, target, gateway_id, channel=None):
        self.id = gateway_id
        self._channel = channel or open_channel(target)
        self._subscribe = self._channel.unary_stream(
            SUBSCRIBE,
            request_serializer=push_pb2.GatewaySubscribeRequest.SerializeToString,
            response_deserializer=bytes,
        )

    def beside(self, gateway_id):
        """Another gateway on this one's connection."""
        return Gateway(None, gateway_id, self._channel)

    def subscribe(self, cursor="", metadata=None):
        request = push_pb2.GatewaySubscribeRequest(
            gateway_client_id=self.id, cursor=cursor
        )
        return Stream(
            self._subscribe(request, timeout=DEADLINE_SECONDS, metadata=metadata)
        )

    def close(self):
        self._channel.close()


class Stream:
    """One subscription. It reads only when it is asked to."""

    def __init__(self, call):
        self._call = call

    @property
    def metadata(self):
        """The initial metadata; waits for it, not for an event."""
        return dict(self._call.initial_metadata())

    @property
    def push_metadata(self):
        """The part of it that is ours."""
        return {
            key: value for key, value in self.metadata.items() if key.startswith("push-")
        }

    @property
    def start_cursor(self):
        return self.metadata["push-start-cursor"]

    def next_raw(self):
        """The bytes of the next PushEvent; raises grpc.RpcError at the end."""
        return next(self._call)

    def next(self):
        return push_pb2.PushEvent.FromString(self.next_raw())

    def take(self, count):
        return [self.next() for _ in range(count)]

    def rest(self):
        """What else arrives, until the stream ends by itself."""
        events = []
        try:
            while True:
                events.append(self.next())
        except grpc.RpcError:
            return events

    @property
    def code(self):
        """The final status; waits for the end."""
        return self._call.code()

    @property
    def details(self):
        return self._call.details()

    @property
    def trailers(self):
        return dict(self._call.trailing_metadata())

    @property
    def reason(self):
        """Why it has ended, for machines, and the figures there."""
        return reason_of(self._call)

    def cancel(self):
        self._call.cancel()


class Reader:
    """Reads a stream on a thread of its own, so that a test can do other things."""

    def __init__(self, stream):
        self.stream = stream
        self._events = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            while True:
                event = self.stream.next()
                with self._changed:
                    self._events.append(event)
                    self._changed.notify_all()
        except (grpc.RpcError, StopIteration):
            pass  # the stream's code says it
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def count(self):
        """How many events it has read."""
        with self._changed:
            return len(self._events)

    def wait_for(self, count):
        """Waits until it has read so many events; returns all that it has."""
        with self._changed:
            reached = self._changed.wait_for(
                lambda: len(self._events) >= count or self._ended, DEADLINE_SECONDS
            )
            assert reached and len(self._events) >= count, (
                f"{len(self._events)} of {count} events, ended: {self._ended}"
            )
            return list(self._events)

    def all(self):
        """Waits for the stream's end; returns all events that came before it."""
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the stream does not end"
        return self._events
