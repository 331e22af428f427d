"""An OpenTelemetry collector, and a backend that it hands spans to."""

import concurrent.futures
import pathlib
import socket
import sysconfig
import tempfile
import threading

import grpc
from opentelemetry.proto.collector.trace.v1 import (
    trace_service_pb2,
    trace_service_pb2_grpc,
)
from opentelemetry.proto.trace.v1 import trace_pb2

from child import Child
from peers import DEADLINE_SECONDS, wait_until

ROTEL = pathlib.Path(sysconfig.get_path("purelib")) / "rotel" / "rotel-agent"


def value_of(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


class Span:
    """A span as the backend has got it."""

    def __init__(self, resource, span):
        self.resource = {pair.key: value_of(pair.value) for pair in resource.attributes}
        self.name = span.name
        self.kind = trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
        self.trace = span.trace_id.hex()
        self.id = span.span_id.hex()
        self.parent = span.parent_span_id.hex()
        self.links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        self.attributes = {pair.key: value_of(pair.value) for pair in span.attributes}
        self.start = span.start_time_unix_nano
        self.end = span.end_time_unix_nano
        self.is_error = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR

    def __repr__(self):
        return f"<{self.name} {self.trace} {self.id} of {self.parent} {self.attributes}>"


class Backend(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes what is exported by OTLP over gRPC; over TLS, if it has a key and a certificate."""

    def __init__(self, pair=None):
        self._spans = []
        self._metadata = []
        self.raw = b""
        self._changed = threading.Condition()
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        if pair is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
            self.url = f"http://127.0.0.1:{port}"
        else:
            credentials = grpc.ssl_server_credentials([pair])
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
            self.url = f"https://localhost:{port}"
        self._server.start()

    def Export(self, request, context):
        with self._changed:
            self.raw += request.SerializeToString()
            self._metadata.append(dict(context.invocation_metadata()))
            for of_resource in request.resource_spans:
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        self._spans.append(Span(of_resource.resource, span))
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, name=None):
        with self._changed:
            return [span for span in self._spans if name in (None, span.name)]

    def metadata(self):
        with self._changed:
            return list(self._metadata)

    def wait_for(self, name, count=1, where=lambda span: True):
        """Waits for so many spans of this name, and returns all of them."""

        def found():
            return [s for s in self._spans if s.name == name and where(s)]

        with self._changed:
            reached = self._changed.wait_for(
                lambda: len(found()) >= count, DEADLINE_SECONDS
            )
            assert reached, f"not {count} spans {name!r} among {self._spans}"
            return found()

    def close(self):
        self._server.stop(None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Collector:
    """Rotel, which receives OTLP over gRPC and passes it on to a backend."""

    def __init__(self, backend):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._folder = tempfile.TemporaryDirectory(prefix="galaxy-push-rotel-")
        self._agent = Child(
            ROTEL,
            "start",
            f"--otlp-grpc-endpoint=127.0.0.1:{port}",
            f"--otlp-http-endpoint=127.0.0.1:{free_port()}",
            "--exporter=otlp",
            f"--otlp-exporter-endpoint={backend.url}",
            f"--pid-file={self._folder.name}/pid",
        )
        wait_until(lambda: self._accepts(port))

    def _accepts(self, port):
        assert self._agent.process.poll() is None, self._agent.log()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def close(self):
        self._agent.stop()
        self._folder.cleanup()
