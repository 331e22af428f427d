"""An HTTP/2 server and client that tell every event, on hyper-h2; and the four proxies in
front of the server, each with the shortest configuration that gRPC works with."""

import glob
import os
import pathlib
import queue
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import h2.config
import h2.connection
import h2.errors
import h2.events

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/demo.Demo/Watch"),
    (":authority", "demo"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]
MESSAGE = b"\0\0\0\0\5hello"


def code(number):
    return f"{h2.errors.ErrorCodes(number).name} ({int(number)})"


class Peer:
    """One HTTP/2 connection; what it hears is in `events`."""

    def __init__(self, sock, client):
        self.sock = sock
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client, header_encoding="utf-8")
        )
        self.events = queue.Queue()
        self.lock = threading.Lock()
        self.h2.initiate_connection()
        self.flush()
        threading.Thread(target=self.read, daemon=True).start()

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def read(self):
        try:
            while data := self.sock.recv(65536):
                with self.lock:
                    events = self.h2.receive_data(data)
                    for event in events:
                        if isinstance(event, h2.events.DataReceived):
                            self.h2.acknowledge_received_data(
                                event.flow_controlled_length, event.stream_id
                            )
                    self.flush()
                for event in events:
                    self.events.put(event)
        except OSError:
            pass
        self.events.put(None)

    def wait_for(self, *kinds, seconds=10):
        """The next event of these kinds, or None when the connection has ended."""
        while True:
            event = self.events.get(timeout=seconds)
            if event is None or isinstance(event, kinds):
                return event

    def do(self, act, *arguments, **more):
        with self.lock:
            act(*arguments, **more)
            self.flush()

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


class Server:
    """Responds to each call with headers and a message, and leaves it open."""

    def __init__(self, host):
        self.listener = socket.create_server((host, 50051))
        self.calls = queue.Queue()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=[sock], daemon=True).start()

    def serve(self, sock):
        peer = Peer(sock, client=False)
        while event := peer.wait_for(h2.events.RequestReceived, seconds=60):
            stream = event.stream_id
            peer.do(peer.h2.send_headers, stream, RESPONSE)
            peer.do(peer.h2.send_data, stream, MESSAGE)
            self.calls.put((peer, stream))
            return  # the rest of the events is the test's


def connect(host, port):
    for _ in range(200):
        try:
            return Peer(socket.create_connection((host, port)), client=True)
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def call(peer, end=True):
    stream = peer.h2.get_next_available_stream_id()
    peer.do(peer.h2.send_headers, stream, REQUEST)
    peer.do(peer.h2.send_data, stream, MESSAGE, end_stream=end)
    return stream


CONFIGURATIONS = {
    "envoy": """
static_resources:
  listeners:
    - address: { socket_address: { address: HOST, port_value: 50061 } }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: demo
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
                route_config:
                  virtual_hosts:
                    - { name: demo, domains: ["*"], routes: [{ match: { prefix: "/" }, route: { cluster: demo, timeout: 0s } }] }
  clusters:
    - name: demo
      load_assignment: { cluster_name: demo, endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: HOST, port_value: 50051 } } } }] }] }
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }
""",
    "nginx": """
daemon off; worker_processes 1; pid FOLDER/pid; error_log stderr crit; events {}
http { access_log off; client_body_temp_path FOLDER/a; proxy_temp_path FOLDER/b;
fastcgi_temp_path FOLDER/c; uwsgi_temp_path FOLDER/d; scgi_temp_path FOLDER/e;
server { listen HOST:50061 http2; location / { grpc_pass grpc://HOST:50051; } } }
""",
    "haproxy": """
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend demo
    bind HOST:50061 proto h2
    default_backend demo
backend demo
    server demo HOST:50051 proto h2
""",
    "nghttpx": """
frontend=HOST,50061;no-tls
backend=HOST,50051;;proto=h2
""",
}
COMMANDS = {
    "envoy": "envoy --config-path FILE --concurrency 1 --log-level off --disable-hot-restart",
    "nginx": "nginx -c FILE -e stderr",
    "haproxy": "haproxy -db -q -f FILE",
    "nghttpx": "nghttpx --conf=FILE",
}


class Proxy:
    def __init__(self, name, server=Server, edit=lambda text: text):
        # A loopback address of its own: the ports are free on it.
        self.host = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))
        self.folder = tempfile.mkdtemp()
        self.server = server(self.host)
        suffix = ".yaml" if name == "envoy" else ".conf"
        file = pathlib.Path(self.folder, name + suffix)
        text = edit(CONFIGURATIONS[name])
        file.write_text(text.replace("HOST", self.host).replace("FOLDER", self.folder))
        debian = os.environ["DEBIAN"]
        libraries = ":".join(glob.glob(f"{debian}/usr/lib/*-linux-*"))
        path = f"{debian}/usr/sbin:{debian}/usr/bin:{os.environ['PATH']}"
        self.process = subprocess.Popen(
            COMMANDS[name].replace("FILE", str(file)).split(),
            env={**os.environ, "PATH": path, "LD_LIBRARY_PATH": libraries},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = connect(self.host, 50061)

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.folder)
