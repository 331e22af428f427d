"""grpclib: gRPC in pure Python on asyncio, with hyper-h2 below it."""

import asyncio
import ssl
import threading

import grpclib.client
from google.rpc import status_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from galaxy.backend.push.v1 import push_pb2
from galaxy.push.publisher.v1 import publisher_pb2

from . import (
    PATIENCE_SECONDS,
    PUBLISH,
    PUBLISH_STREAM,
    SUBSCRIBE,
    Responses,
    End,
    Events,
    Failed,
    ours,
)


class Grpclib:
    """All connections share one event loop, on a thread of its own."""

    # It closes a connection at any GOAWAY, and leaves its calls without their status.
    hears_goodbyes = False

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(
            PATIENCE_SECONDS
        )

    def connect(self, target, tls=None):
        return Connection(self.run, target, tls)

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)


class Connection:
    def __init__(self, run, target, tls):
        self._run = run
        host, port = target.rsplit(":", 1)

        async def open_channel():
            return grpclib.client.Channel(host, int(port), ssl=tls and context(tls))

        self._channel = run(open_channel())
        self._calls = []
        codecs = (publisher_pb2.PublishRequest, publisher_pb2.PublishResponse)
        self._subscribe = grpclib.client.UnaryStreamMethod(
            self._channel, SUBSCRIBE, push_pb2.GatewaySubscribeRequest, push_pb2.PushEvent
        )
        self._publish = grpclib.client.UnaryUnaryMethod(self._channel, PUBLISH, *codecs)
        self._publish_stream = grpclib.client.StreamStreamMethod(
            self._channel, PUBLISH_STREAM, *codecs
        )

    def subscribe(self, gateway_id, cursor="", timeout=None):
        request = push_pb2.GatewaySubscribeRequest(
            gateway_client_id=gateway_id, cursor=cursor
        )
        timeout = timeout or PATIENCE_SECONDS
        self._calls.append(Stream(self._run, self._subscribe, timeout, request))
        return self._calls[-1]

    def publish(self, *events):
        async def publish():
            async with self._publish.open(timeout=PATIENCE_SECONDS) as call:
                await call.send_message(
                    publisher_pb2.PublishRequest(events=events), end=True
                )
                response = await call.recv_message()
                # The status of a refusal is in the trailers.
                await call.recv_trailing_metadata()
                return response

        try:
            return self._run(publish())
        except GRPCError as error:
            end = End(error.status.name, error.message, {})
            raise Failed(end.says(packed(error))) from None
        except (StreamTerminatedError, OSError) as error:
            # It has no status for these.
            raise Failed(End(Status.UNAVAILABLE.name, repr(error), {})) from None

    def feed(self):
        self._calls.append(Feed(self._run, self._publish_stream, PATIENCE_SECONDS))
        return self._calls[-1]

    def close(self):
        for call in self._calls:
            call.cancel()

        async def close():
            self._channel.close()

        self._run(close())


def packed(error):
    """The `google.rpc.Status` of an error. grpclib gives its details only, decoded, where it
    finds the modules of googleapis."""
    if not error.details:
        return b""
    status = status_pb2.Status(code=error.status.value, message=error.message)
    for detail in error.details:
        status.details.add().Pack(detail)
    return status.SerializeToString()


def context(tls):
    context = ssl.create_default_context(cafile=tls.ca)
    context.set_alpn_protocols(["h2"])
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


class Call:
    """One call, which a task of its own opens and leaves: grpclib's are context managers,
    and end with their block."""

    def __init__(self, run, method, timeout, request=None):
        self._run = run
        self._end = None
        self._has_ended_requests = request is not None

        async def open_call():
            self._wanted = asyncio.Queue()
            self._task = asyncio.current_task().get_loop().create_task(
                self._serve(method, timeout, request)
            )

        run(open_call())

    async def _serve(self, method, timeout, request):
        """Does what is asked for, one thing at a time, until the call has ended."""
        call = pending = None
        try:
            async with method.open(timeout=timeout) as call:
                if request is not None:
                    await call.send_message(request, end=True)
                while True:
                    act, pending = await self._wanted.get()
                    result = await act(call)
                    if act is _receive and result is None:
                        # Leaving the block takes the status, and needs the requests to be
                        # ended unless RST_STREAM was in the same read as the status.
                        if not self._has_ended_requests:
                            await call.end()
                        break
                    pending.set_result(result)
            self._end = self._made_of(None, call)
            pending.set_result(None)
        except BaseException as error:
            # The block has put the status in the place of what was raised within.
            self._end = self._made_of(error, call)
        self._refuse(pending)
        while not self._wanted.empty():
            self._refuse(self._wanted.get_nowait()[1])

    def _refuse(self, pending):
        if pending and not pending.done():
            pending.set_exception(Failed(self._end))

    @staticmethod
    def _made_of(error, call):
        trailers = ours((getattr(call, "trailing_metadata", None) or {}).items())
        if error is None:
            return End(Status.OK.name, "", trailers)
        if isinstance(error, GRPCError):
            end = End(error.status.name, error.message or "", trailers)
            return end.says(packed(error))
        if isinstance(error, asyncio.TimeoutError):
            return End(Status.DEADLINE_EXCEEDED.name, "", trailers)
        if isinstance(error, asyncio.CancelledError):
            return End(Status.CANCELLED.name, "", trailers)
        # It has no status for a stream that was reset or a connection that was lost.
        if isinstance(error, (StreamTerminatedError, OSError)):
            return End(Status.UNAVAILABLE.name, repr(error), trailers)
        return End(Status.UNKNOWN.name, repr(error), trailers)

    def _do(self, act):
        async def ask():
            if self._task.done():
                raise Failed(self._end)
            pending = asyncio.get_running_loop().create_future()
            self._wanted.put_nowait((act, pending))
            return await pending

        return self._run(ask())

    def _receive(self):
        message = self._do(_receive)
        if message is None:
            raise StopIteration
        return message

    @property
    def status(self):
        """Reads on to the end, as grpclib's calls have a status only then."""
        try:
            while self._do(_receive) is not None:
                pass
        except Failed:
            pass
        return self._end

    def cancel(self):
        async def cancel():
            self._task.cancel()
            await asyncio.wait([self._task])

        self._run(cancel())


async def _receive(call):
    return await call.recv_message()


class Stream(Call, Events):
    @property
    def metadata(self):
        async def headers(call):
            if call.initial_metadata is None:
                await call.recv_initial_metadata()
            return ours(call.initial_metadata.items())

        return self._do(headers)

    def next(self):
        return self._receive()


class Feed(Call, Responses):
    def send(self, *events):
        async def send(call):
            await call.send_message(publisher_pb2.PublishRequest(events=events))
            return True

        self._do(send)

    def finish(self):
        async def finish(call):
            await call.end()
            self._has_ended_requests = True
            return True

        self._do(finish)

    def response(self):
        return self._receive()
