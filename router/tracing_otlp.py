"""Requests as OpenTelemetry spans, delivered by OTLP over HTTP. Imported only where `tracing.endpoint` is set.

Owns the SDK: sampling, the conversion of steps into spans, delivery. A request's own span and its calls to providers
are begun when they begin, since others are told their ids; its other steps become spans when the request is over, after
its client has been answered.

Delivery runs in a thread of the SDK's `BatchSpanProcessor`, which takes spans from a bounded queue every second or when
a batch is full. Putting one there never waits; when the queue is full the oldest span goes. The thread is a daemon: it
never keeps the process alive, and what it has not delivered within the deadline of the end is lost. After a fork the
child starts a thread of its own with an empty queue; this server never forks.

Must never put into an attribute what a client has sent: no path, query, header, text, key, model or id.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from models.errors import SettingError
from models.tracing_settings import TracingSettings
from models.version import VERSION
from router.headers import HeaderList
from router.observe import log_event
from router.spans import CallSpan, Step

BATCH_SPANS_MAX = 512
DELIVERY_INTERVAL_MS = 1_000
ANSWER_BYTES_MAX = 64 * 1024
"""Of a receiver's answer; it says nothing that we act upon."""

TRACES_PATH = "/v1/traces"

KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_PROPAGATOR = TraceContextTextMapPropagator()


class OtlpTracing:
    """Begins traces and delivers them; see `router.tracing.Tracing`."""

    def __init__(self, settings: TracingSettings) -> None:
        """Set the SDK up, for this server alone: nothing global.

        Raises:
            SettingError: `tracing.headers` cannot be read.
        """
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it quotes what the receiver says; we count
        exporter = OTLPSpanExporter(
            endpoint=endpoint_of(settings.endpoint),
            headers=headers_of(settings.headers.reveal()),
            timeout=settings.timeout_s,
            compression=Compression.Gzip,
            session=ReceiverSession(),
        )
        self._exporter = _CountingExporter(exporter)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=Resource({"service.name": settings.service_name, "service.version": VERSION}),
            shutdown_on_exit=False,  # leaving the block does it, under a deadline
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=settings.queue_max,
                schedule_delay_millis=DELIVERY_INTERVAL_MS,
                max_export_batch_size=min(BATCH_SPANS_MAX, settings.queue_max),
            )
        )
        self.propagates = settings.propagate
        self.tracer: Tracer = self._provider.get_tracer("memoryrouter", VERSION)
        self.ended = 0

    def begin(self, method: str, context: HeaderList, attributes: Mapping[str, str]) -> RequestSpan:
        """A request begins."""
        return RequestSpan(self, method if method in KNOWN_METHODS else "_OTHER", _context_of(context), attributes)

    def statistics(self) -> dict[str, int]:
        """Spans since the start, for metrics."""
        return {"ended": self.ended, "exported": self._exporter.exported, "failed": self._exporter.failed}

    def shut_down(self) -> None:
        """Deliver what waits, and end. Blocks."""
        self._provider.shutdown()

    def end(self, span: Span, *, error: str = "", at_ns: int | None = None) -> None:
        """End a span."""
        if error:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        self.ended += span.is_recording()
        span.end(end_time=at_ns)


class RequestSpan:
    """One request's span and what happened within; see `router.spans.RequestTrace`."""

    def __init__(self, tracing: OtlpTracing, method: str, context: Context, attributes: Mapping[str, str]) -> None:
        self._tracing = tracing
        self._method = method
        given = {"http.request.method": method, **attributes}
        self._span = tracing.tracer.start_span(method, context=context, kind=SpanKind.SERVER, attributes=given)
        self._inside = api.set_span_in_context(self._span, context)
        self.trace_id = api.format_trace_id(self._span.get_span_context().trace_id)
        self.steps: list[Step] | None = [] if self._span.is_recording() else None
        self.attributes: dict[str, str | int | float | bool] = {}

    def begin_call(self, provider: str) -> CallSpan:
        """A call to a provider begins."""
        return _Call(self._tracing, self._inside, provider)

    def end(self, status: int, memory_status: str) -> None:
        """The request is over."""
        span = self._span
        if self.steps is None:
            span.end()
            return
        made: dict[int, Context] = {}
        for whole in [step for step in self.steps if step.parent is None]:
            made[id(whole)] = self._record(whole, self._inside)
        for part in [step for step in self.steps if step.parent is not None]:
            self._record(part, made.get(id(part.parent), self._inside))
        span.set_attributes(self.attributes)
        if route := self.attributes.get("http.route"):
            span.update_name(f"{self._method} {route}")
        if memory_status:
            span.set_attribute("memoryrouter.memory_status", memory_status)
        if status:
            span.set_attribute("http.response.status_code", status)
        error = "" if 0 < status < 500 else str(status or "no_answer")
        self._tracing.end(span, error=error)

    def _record(self, step: Step, context: Context) -> Context:
        span = self._tracing.tracer.start_span(
            step.name, context=context, start_time=step.began_ns, attributes=step.attributes
        )
        self._tracing.end(span, error=step.error, at_ns=step.ended_ns)
        return api.set_span_in_context(span, context)


class _Call:
    """A call to a provider."""

    def __init__(self, tracing: OtlpTracing, context: Context, provider: str) -> None:
        self._tracing = tracing
        attributes = {"memoryrouter.provider": provider}
        self._span = tracing.tracer.start_span("upstream", context=context, kind=SpanKind.CLIENT, attributes=attributes)

    def answered(self, status: int, attempts: int) -> None:
        """The head of the answer is here."""
        self._span.add_event("first_byte")
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("memoryrouter.attempts", attempts)
        if status >= 400:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))

    def headers(self) -> HeaderList:
        """`traceparent` and `tracestate` of this call, if providers may have them."""
        if not self._tracing.propagates:
            return []
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, api.set_span_in_context(self._span, Context()))
        return list(carrier.items())

    def end(self, error: str = "") -> None:
        """The call is over."""
        self._tracing.end(self._span, error=error)


class ReceiverSession(requests.Session):
    """HTTP to the one receiver that is configured: no proxies, no .netrc, and no answer that could fill the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """The answer to one delivery, with the beginning of its body.

        Raises:
            requests.RequestException: there is none, or it sends us elsewhere, where nothing is delivered.
        """
        response = super().send(request, **{**kwargs, "stream": True})
        body: bytes = response.raw.read(ANSWER_BYTES_MAX, decode_content=False)
        response.close()
        response.raw = io.BytesIO(body)
        if response.is_redirect:
            raise requests.TooManyRedirects("The receiver of traces sends us elsewhere.")
        return response


class _CountingExporter(SpanExporter):
    """Says how delivery goes: in numbers, and in the log when it begins to fail and when it works again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver a batch. Called in the SDK's thread."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
            if self._failing:
                log_event("traces_delivered_again")
        else:
            self.failed += len(spans)
            if not self._failing:
                log_event("traces_not_delivered", level=logging.WARNING, spans=len(spans))
        self._failing = result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """Give up what is under way."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)


def _context_of(headers: HeaderList) -> Context:
    """The caller's trace; an empty context where there is none, or more than one."""
    names = [name for name, _ in headers]
    if names.count("traceparent") != 1:
        return Context()
    states = ",".join(value for name, value in headers if name == "tracestate")
    carrier = {**dict(headers), "tracestate": states}
    return _PROPAGATOR.extract(carrier, Context())


def endpoint_of(url: str) -> str:
    """Where traces go: the URL as it is, with the standard's path if it has none."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + TRACES_PATH


def headers_of(text: str) -> dict[str, str]:
    """`name=value,name=value`, values percent-encoded where they need be, as OTEL_EXPORTER_OTLP_HEADERS has it.

    Raises:
        SettingError: it is not of this form.
    """
    headers = {}
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise SettingError("tracing.headers must be `name=value`, with commas between several.")
        headers[name.strip().lower()] = unquote(value.strip())
    return headers
