"""TLS with client certificates: each gRPC implementation directly, and through proxies that
speak TLS to the server, as docs/proxies.md has it.
"""

import hashlib
import pathlib
import re
import signal
import subprocess
import threading

import grpc
import pytest

from certificates import Certificates
from clients import PATIENCE_SECONDS, PUBLISH, Failed
from galaxy.push.publisher.v1 import publisher_pb2
from peers import numbered, numbers
from routes import FLAGS, Route

PROXIES = ("envoy", "nginx", "haproxy", "nghttpx")
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/proxies.md"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_server(serve, certificates):
    server = serve(*certificates.server_flags())
    # A name, which the certificate has.
    server.gateways = server.gateways.replace("127.0.0.1", "localhost")
    server.publishers = server.publishers.replace("127.0.0.1", "localhost")
    return server


def subscribe_publish_resume(gateway, publisher):
    """Both ends' connections; each event arrives once."""
    stream = gateway.subscribe("gateway-1")
    assert stream.metadata["push-resume"] == "fresh"
    publisher.publish(*numbered(range(1, 11)))
    first = stream.take(4)
    assert numbers(first) == [1, 2, 3, 4]
    stream.cancel()
    resumed = gateway.subscribe("gateway-1", first[-1].cursor)
    assert resumed.metadata["push-resume"] == "resumed"
    assert numbers(resumed.take(6)) == [5, 6, 7, 8, 9, 10]
    # More than a record of TLS holds.
    publisher.publish(*numbered([11], padding=40_000))
    assert numbers(resumed.take(1)) == [11]


@pytest.mark.parametrize("host", ("localhost", "127.0.0.1"))
def test_a_client_with_a_certificate_subscribes_publishes_and_resumes(
    tls_server, certificates, connect, host
):
    def open_connection(address):
        address = address.replace("localhost", host)
        return connect(address, certificates.tls("client"))

    subscribe_publish_resume(
        open_connection(tls_server.gateways), open_connection(tls_server.publishers)
    )


@pytest.mark.parametrize("shown", (None, "stranger"))
def test_a_client_without_a_certificate_of_the_ca_is_unavailable(
    tls_server, certificates, connect, shown
):
    publisher = connect(tls_server.publishers, certificates.tls(shown))
    with pytest.raises(Failed) as failed:
        publisher.publish(*numbered([1]))
    assert failed.value.end.code == "UNAVAILABLE"
    # And those who have one are served.
    connect(tls_server.publishers, certificates.tls("client")).publish(*numbered([2]))


def documented(proxy, certificates):
    """The lines for TLS that docs/proxies.md has for this proxy, with our files and name."""
    section = PAGE.read_text().split("## TLS to galaxy-push", 1)[1].split("\n## ", 1)[0]
    blocks = dict(re.findall(r"```(\w+)[^\n]*\n(.*?)```", section, re.DOTALL))
    lines = blocks["yaml" if proxy == "envoy" else proxy]
    for name in ("ca.pem", "client.pem", "client.key", "client-both.pem"):
        lines = lines.replace(f"/etc/galaxy-push/{name}", certificates.path(name))
    return lines.replace("push.example", "localhost")


def with_tls(proxy, certificates):
    lines = documented(proxy, certificates)

    def edit(text):
        if proxy == "envoy":
            before = "      connect_timeout: 5s\n"
            return text.replace(before, before + lines)
        if proxy == "nginx":
            return lines + text.replace("grpc://", "grpcs://")
        if proxy == "haproxy":
            (flags,) = re.findall(r"(ssl alpn h2 .*)", lines)
            return re.sub(r"(server \S+ \S+) proto h2", rf"\1 {flags}", text)
        backend, rest = lines.split("\n", 1)
        (flags,) = re.findall(r";proto=h2(.*)", backend)
        return text.replace(";proto=h2", f";proto=h2{flags}") + rest

    return edit


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_with_a_certificate_forwards_over_tls(certificates, connect, proxy):
    route = Route(
        proxy,
        *FLAGS,
        *certificates.server_flags(),
        edit=with_tls(proxy, certificates),
    )
    try:
        subscribe_publish_resume(connect(route.gateways), connect(route.publishers))
    finally:
        route.close()


def test_grpcio_sends_a_bearer_token_as_call_credentials(serve, certificates, tmp_path):
    token = "a-token-of-the-orders-service"
    access = tmp_path / "access.toml"
    access.write_text(
        '[[principal]]\nname = "orders"\npublish = ["client_event"]\n'
        f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
    )
    server = serve(*certificates.server_flags(), f"--access={access}")
    tls = certificates.tls("client")
    ssl = grpc.ssl_channel_credentials(
        tls.read("ca"), tls.read("key"), tls.read("certificate")
    )

    def publish(token):
        credentials = grpc.composite_channel_credentials(
            ssl, grpc.access_token_call_credentials(token)
        )
        address = server.publishers.replace("127.0.0.1", "localhost")
        with grpc.secure_channel(address, credentials) as channel:
            call = channel.unary_unary(
                PUBLISH,
                publisher_pb2.PublishRequest.SerializeToString,
                publisher_pb2.PublishResponse.FromString,
            )
            request = publisher_pb2.PublishRequest(events=numbered([1]))
            return call(request, timeout=PATIENCE_SECONDS)

    assert publish(token).first_cursor
    with pytest.raises(grpc.RpcError) as refused:
        publish("another-token")
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_renegotiation_is_refused(serve, certificates):
    server = serve(*certificates.server_flags())
    tls = certificates.tls("client")
    address = server.gateways.replace("127.0.0.1", "localhost")
    client = subprocess.Popen(
        [
            *("openssl", "s_client", "-tls1_2", "-alpn", "h2", "-connect", address),
            *("-CAfile", tls.ca, "-cert", tls.certificate, "-key", tls.key),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    # If it were served further, it would stay.
    too_late = threading.Timer(PATIENCE_SECONDS, client.kill)
    too_late.start()
    try:
        lines = iter(client.stdout.readline, "")
        assert any("Verify return code: 0" in line for line in lines)
        # What openssl takes as a wish to renegotiate.
        client.stdin.write("R\n")
        client.stdin.flush()
        rest = "".join(lines)
        assert client.wait() != -signal.SIGKILL
    finally:
        too_late.cancel()
        client.kill()
        client.wait()
    assert "RENEGOTIATING" in rest
    # It would have looked at a certificate again.
    assert "depth=" not in rest
    assert "renegotiation" not in server.log().lower()
