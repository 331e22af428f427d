#!/usr/bin/env bash
# What a graceful GOAWAY does to a grpclib client's calls.
#
# Versions:  grpclib 0.4.9 against grpcio 1.85.1, both as client (PyPI).
# Input:     an ordinary grpcio server streams messages; it is told to stop with a grace
#            period, and sends what is left within it. On the wire: GOAWAY NO_ERROR with
#            2^31-1 as the last stream, then the messages, then the status.
# Expected:  both clients get all messages and the status: such a GOAWAY only forbids new
#            streams (RFC 9113, 6.8).
# Seen:      grpclib closes the connection at once. Its call fails with
#            StreamTerminatedError, without the remaining messages and without a status.
# So what:   whatever a stopping server says in its statuses, no grpclib client that is
#            connected directly reads it. A proxy in between hides the GOAWAY, and heals it.
. "$(dirname "$0")/lib/setup.sh"
python grpcio==1.85.1 grpclib==0.4.9 h2==4.4.1

seen=$(python3 - <<'PYTHON'
import asyncio
import threading
from concurrent import futures

import grpc
import grpclib.client
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import StreamTerminatedError


class Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


class Stopping:
    """A server whose call goes on after the stop has begun."""

    def __init__(self):
        self.stopped = threading.Event()
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        handler = grpc.unary_stream_rpc_method_handler(self.watch)
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("demo.Demo", {"Watch": handler})]
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def watch(self, request, context):
        yield b"first"
        assert self.stopped.wait(20)
        # Long enough for the GOAWAY to be on its way.
        threading.Event().wait(0.5)
        yield b"second"
        context.abort(grpc.StatusCode.UNAVAILABLE, "maintenance")

    def stop(self):
        self.server.stop(20)
        self.stopped.set()


def with_grpcio():
    server, messages = Stopping(), []
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_stream("/demo.Demo/Watch")(b"")
        try:
            for message in call:
                messages.append(message.decode())
                if len(messages) == 1:
                    server.stop()
        except grpc.RpcError as error:
            return messages, f"{error.code().name}: {error.details()}"


async def with_grpclib():
    server, messages = Stopping(), []
    channel = grpclib.client.Channel("127.0.0.1", server.port, codec=Bytes())
    method = grpclib.client.UnaryStreamMethod(channel, "/demo.Demo/Watch", bytes, bytes)
    try:
        async with method.open() as stream:
            await stream.send_message(b"", end=True)
            async for message in stream:
                messages.append(message.decode())
                if len(messages) == 1:
                    server.stop()
    except StreamTerminatedError as error:
        return messages, type(error).__name__


print("grpcio:", *with_grpcio())
print("grpclib:", *asyncio.run(with_grpclib()))
PYTHON
)
same "$seen" "grpcio: ['first', 'second'] UNAVAILABLE: maintenance
grpclib: ['first'] StreamTerminatedError"
