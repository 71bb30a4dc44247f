"""Traces by OpenTelemetry's SDK, which sends them from a thread of its own."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from gemproxy.chat.request import Headers
from gemproxy.exchange import Exchange
from gemproxy.tracing.attributes import OPERATION, attributes_of, name_of
from gemproxy.tracing.tracer import Trace, Tracer, parent_in
from gemproxy.util.threads import Threads

FIRST_TOKEN = "first token"  # noqa: S105 - an event
_NONE = Context()
# For what is left at the end.
_LAST_SECONDS = 3.0
_NANOSECONDS = 1e9


class _SpanOfRequest:
    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def parent(self) -> bytes:
        context = self._span.get_span_context()
        return b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)

    def end(self, exchange: Exchange) -> None:
        span = self._span
        if not span.is_recording():
            span.end()
            return
        span.update_name(name_of(exchange))
        span.set_attributes(attributes_of(exchange))
        if exchange.error is not None:
            # The words of an error may quote what was asked.
            span.set_status(Status(StatusCode.ERROR))
        if exchange.first_token is not None:
            span.add_event(FIRST_TOKEN, timestamp=_at(exchange.time + exchange.first_token))
        span.end(_at(exchange.time + (exchange.duration or 0.0)))


class OpenTelemetry(Service, Tracer):
    """
    Begins spans while it runs, as OpenTelemetry's variables say (C{OTEL_SERVICE_NAME},
    C{OTEL_TRACES_SAMPLER}, C{OTEL_EXPORTER_OTLP_HEADERS} and so on).
    """

    def __init__(self, reactor: Any, endpoint: str, version: str) -> None:
        """
        @param endpoint: the URL that takes spans by OTLP over HTTP.
        @param version: of gemproxy.
        """
        self._reactor = reactor
        self._threads = Threads(reactor, 1, "traces")
        self._endpoint = endpoint
        self._version = version
        self._propagator = TraceContextTextMapPropagator()
        self._provider: TracerProvider | None = None
        self._tracer: Any = None

    def startService(self) -> None:
        super().startService()
        # Not before: a thread does not outlive the fork into the background.
        own = {"service.name": "gemproxy", "service.version": self._version}
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        provider = self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(self._endpoint)))
        self._tracer = provider.get_tracer("gemproxy", self._version)

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        provider, self._provider, self._tracer = self._provider, None, None
        if provider is None:
            return None
        # It sends what is left. A collector that does not answer must not keep the daemon.
        sent = Deferred.fromCoroutine(self._threads.call(provider.shutdown))
        return sent.addTimeout(_LAST_SECONDS, self._reactor, lambda *_: None)

    def begin(self, headers: Headers, time: float) -> Trace | None:
        if self._tracer is None:
            return None
        context = _NONE
        if (parent := parent_in(headers)) is not None:
            context = self._propagator.extract({"traceparent": parent}, _NONE)
        span = self._tracer.start_span(
            OPERATION, context, SpanKind.SERVER, start_time=_at(time), record_exception=False
        )
        return _SpanOfRequest(span)


def _at(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)
