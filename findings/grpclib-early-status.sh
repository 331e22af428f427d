#!/usr/bin/env bash
# When a grpclib client reads a status that comes before it has ended its requests.
#
# Versions:  grpclib 0.4.9 against grpcio 1.85.1, both as client (PyPI); h2 4.4.1 for the
#            server.
# Input:     a bidirectional call. The server responds with a message, then with the status
#            INVALID_ARGUMENT and END_STREAM, and asks with RST_STREAM NO_ERROR for no more
#            requests (RFC 9113, 8.1): in the same write, or in a later one. The client
#            reads until there is no more message, and leaves the call.
# Expected:  the status, however TCP cuts the bytes.
# Seen:      grpclib gives the status only if RST_STREAM is in the same read. Otherwise the
#            call fails with ProtocolError ("Outgoing stream was not ended"), which client.py
#            raises in Stream.recv_trailing_metadata although the trailers have arrived.
#            After an own `end()` it gives the status.
# So what:   a grpclib client must call `end()` when `recv_message` returns None. A server
#            can help by one write; a proxy that writes twice, as nginx does, undoes that.
. "$(dirname "$0")/lib/setup.sh"
python grpcio==1.85.1 grpclib==0.4.9 h2==4.4.1

seen=$(python3 - <<'PYTHON'
import asyncio
import threading
import time

import grpc
import grpclib.client
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, ProtocolError
from wire import Server

HOST = "127.31.7.2"
STATUS = [("grpc-status", "3"), ("grpc-message", "bad request")]


class Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


def with_grpcio():
    with grpc.insecure_channel(f"{HOST}:50051") as channel:
        requests_go_on = threading.Event()
        requests = (request for request in iter(requests_go_on.wait, True))
        call = channel.stream_stream("/demo.Demo/Chat")(requests)
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        finally:
            requests_go_on.set()


def with_grpclib(ends=False):
    async def chat():
        channel = grpclib.client.Channel(HOST, 50051, codec=Bytes())
        method = grpclib.client.StreamStreamMethod(channel, "/demo.Demo/Chat", bytes, bytes)
        try:
            async with method.open() as stream:
                await stream.send_message(b"hello")
                async for _ in stream:
                    pass
                if ends:
                    await stream.end()
        except GRPCError as error:
            return f"{error.status.name}: {error.message}"
        except ProtocolError as error:
            return f"ProtocolError: {error}"
        finally:
            channel.close()

    return asyncio.run(chat())


def respond(writes):
    """The end of the next call's response."""
    peer, stream = server.calls.get(timeout=10)
    with peer.lock:
        peer.h2.send_headers(stream, STATUS, end_stream=True)
        if writes == 2:
            peer.flush()
            # Long enough for the client to have read the status.
            time.sleep(0.5)
        peer.h2.reset_stream(stream, 0)
        peer.flush()


server = Server(HOST)
for name, client in (
    ("grpcio", with_grpcio),
    ("grpclib", with_grpclib),
    ("grpclib with end()", lambda: with_grpclib(ends=True)),
):
    for writes in (1, 2):
        responder = threading.Thread(target=respond, args=[writes])
        responder.start()
        print(f"{name}, {writes} write(s):", client(), flush=True)
        responder.join()
PYTHON
)
same "$seen" "grpcio, 1 write(s): INVALID_ARGUMENT: bad request
grpcio, 2 write(s): INVALID_ARGUMENT: bad request
grpclib, 1 write(s): INVALID_ARGUMENT: bad request
grpclib, 2 write(s): ProtocolError: Outgoing stream was not ended
grpclib with end(), 1 write(s): INVALID_ARGUMENT: bad request
grpclib with end(), 2 write(s): INVALID_ARGUMENT: bad request"
