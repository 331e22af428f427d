"""CAs of the tests' own and what they sign, made with the openssl command."""

import pathlib
import subprocess
from typing import NamedTuple


class Tls(NamedTuple):
    """What a client needs: the paths of PEM files."""

    ca: str
    certificate: str | None = None
    key: str | None = None

    def read(self, name):
        path = getattr(self, name)
        return pathlib.Path(path).read_bytes() if path else None


class Certificates:
    """A CA of servers and one of clients; a server's certificate for `localhost`, a client's,
    and a client's that another CA has signed."""

    def __init__(self, directory):
        self._directory = pathlib.Path(directory)
        for ca in ("ca", "client-ca", "another-ca"):
            self._make(ca, "-days", "30", "-subj", f"/CN={ca}")
        self._issue("server", "ca", "DNS:localhost,IP:127.0.0.1")
        gateway = "URI:spiffe://galaxy/gateway/gateway-1"
        self._issue("client", "client-ca", gateway)
        self._issue("stranger", "another-ca", gateway)
        # HAProxy wants both in one file.
        both = self.read("client.pem") + self.read("client.key")
        self._path("client-both.pem").write_text(both)

    def _path(self, name):
        return self._directory / name

    def path(self, name):
        return str(self._path(name))

    def read(self, name):
        return self._path(name).read_text()

    def _openssl(self, *arguments):
        subprocess.run(
            ["openssl", *arguments], cwd=self._directory, check=True, capture_output=True
        )

    def _make(self, name, *arguments):
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
            *arguments,
        )

    def _issue(self, name, ca, alternative_names):
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
            *("-subj", f"/CN={name}"),
        )
        self._path("extensions").write_text(f"subjectAltName={alternative_names}\n")
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "30"),
            *("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial"),
            *("-extfile", "extensions"),
        )

    def server_flags(self):
        """Of a server that wants a certificate of every client."""
        return (
            f"--tls-cert={self.path('server.pem')}",
            f"--tls-key={self.path('server.key')}",
            f"--tls-client-ca={self.path('client-ca.pem')}",
        )

    def tls(self, client=None):
        if client is None:
            return Tls(self.path("ca.pem"))
        return Tls(
            self.path("ca.pem"), self.path(f"{client}.pem"), self.path(f"{client}.key")
        )
