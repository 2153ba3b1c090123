"""A receiver of traces that speaks OTLP over HTTP as a collector does, and keeps what it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

STATUS_CODE_ERROR = 2
KINDS = {1: "internal", 2: "server", 3: "client"}


class ReceivedSpan(msgspec.Struct, frozen=True):
    """One span, decoded."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    events: list[str]
    failed: bool
    resource: dict[str, Any]


class TraceReceiver:
    """What has come.

    Attributes:
        status: what the next deliveries are answered with.
        hold: while it is cleared, deliveries wait for their answer.
        headers: of each delivery.
        bodies: the same, unpacked and not decoded.
    """

    def __init__(self) -> None:
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        self.url = ""
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.spans: list[ReceivedSpan] = []

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Note a delivery."""
        assert path == "/v1/traces", path
        assert headers["content-type"] == "application/x-protobuf"
        data = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        self.headers.append(headers)
        self.bodies.append(data)
        if self.status == 200:
            self.spans += decode(data)

    def trace(self, name: str) -> tuple[ReceivedSpan, dict[str, ReceivedSpan]]:
        """The span of this name, and all others of its trace by their names."""
        (whole,) = [span for span in self.spans if span.name == name]
        others = [span for span in self.spans if span.trace_id == whole.trace_id and span is not whole]
        assert len({span.name for span in others}) == len(others), [span.name for span in others]
        return whole, {span.name: span for span in others}


def decode(data: bytes) -> Iterator[ReceivedSpan]:
    """The spans of one delivery."""
    message: Any = ExportTraceServiceRequest.FromString(data)
    for resource_spans in message.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    name=span.name,
                    kind=KINDS[span.kind],
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    began_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    events=[event.name for event in span.events],
                    failed=span.status.code == STATUS_CODE_ERROR,
                    resource=resource,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def open_trace_receiver() -> Iterator[TraceReceiver]:
    """A receiver on a free port of loopback."""
    receiver = TraceReceiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.hold.wait()
            answer: bytes = ExportTraceServiceResponse().SerializeToString()
            self.send_response(receiver.status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that did not wait for its answer is what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        serving.start()
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield receiver
        finally:
            receiver.hold.set()
            server.shutdown()
            serving.join()
