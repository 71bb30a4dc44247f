"""Traces by OpenTelemetry's SDK, which sends them from a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from attrs import define, frozen
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AnyValue
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from gemproxy.chat.request import Headers
from gemproxy.exchange import Exchange
from gemproxy.tracing.attributes import OPERATION, attributes_of, name_of
from gemproxy.tracing.tracer import Trace, Tracer, parent_in
from gemproxy.util.threads import Threads

FIRST_TOKEN = "first token"  # noqa: S105 - an event
_NONE = Context()
_PROPAGATOR = TraceContextTextMapPropagator()
# For what is left at the end.
_LAST_SECONDS = 3.0
_NANOSECONDS = 1e9
_NO_ERROR = Status(StatusCode.UNSET)
# Without words: they may quote what was asked.
_ERROR = Status(StatusCode.ERROR)


class _OneResource(Resource):
    """That of all spans, hashed once: the exporter hashes each span's, and the SDK its JSON."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@frozen(eq=False)
class _Spans:
    """
    Makes spans of requests, and has them sent.

    It takes the SDK's parts, but not its C{Span}, which any thread may change at any time: with its
    locks, copies and checks a small answer would cost a tenth more. Until a request ends, its
    context alone is needed, and then all of its span is known.

    @ivar provider: has the sampler and the ids that OpenTelemetry's variables choose.
    @ivar limits: of a span, by the same variables.
    """

    provider: TracerProvider
    processor: BatchSpanProcessor
    scope: InstrumentationScope
    resource: Resource
    limits: SpanLimits

    @classmethod
    def sent_to(cls, endpoint: str, version: str) -> _Spans:
        own = {"service.name": "gemproxy", "service.version": version}
        resource = Resource.create(own).merge(OTELResourceDetector().detect())
        return cls(
            TracerProvider(resource=resource, shutdown_on_exit=False),
            BatchSpanProcessor(OTLPSpanExporter(endpoint)),
            InstrumentationScope("gemproxy", version),
            _OneResource(resource.attributes, resource.schema_url),
            SpanLimits(),
        )

    def begin(self, traceparent: str | None, time: float) -> _Begun:
        """@param traceparent: the client's."""
        asked, client = _NONE, INVALID_SPAN_CONTEXT
        if traceparent is not None:
            asked = _PROPAGATOR.extract({"traceparent": traceparent}, _NONE)
            client = get_current_span(asked).get_span_context()
        ids = self.provider.id_generator
        if client.is_valid:
            trace, is_random = client.trace_id, client.trace_flags.random_trace_id
        else:
            trace, is_random = ids.generate_trace_id(), ids.is_trace_id_random()
        sampling = self.provider.sampler.should_sample(asked, trace, OPERATION, SpanKind.SERVER)
        flags = TraceFlags.RANDOM_TRACE_ID if is_random else TraceFlags.DEFAULT
        if sampling.decision.is_sampled():
            flags |= TraceFlags.SAMPLED
        context = SpanContext(
            trace, ids.generate_span_id(), False, TraceFlags(flags), sampling.trace_state
        )
        return _Begun(self, context, client, sampling.attributes, time)

    def send(self, begun: _Begun, exchange: Exchange) -> None:
        first = exchange.first_token
        events = () if first is None else (Event(FIRST_TOKEN, None, _at(begun.time + first)),)
        span = ReadableSpan(
            name_of(exchange),
            begun.context,
            begun.client if begun.client.is_valid else None,
            self.resource,
            self._within_limits({**begun.attributes, **attributes_of(exchange)}),
            events if self.limits.max_events != 0 else (),
            kind=SpanKind.SERVER,
            status=_NO_ERROR if exchange.error is None else _ERROR,
            start_time=_at(begun.time),
            end_time=_at(begun.time + (exchange.duration or 0.0)),
            instrumentation_scope=self.scope,
        )
        self.processor.on_end(span)

    def _within_limits(self, attributes: Mapping[str, AnyValue]) -> Mapping[str, AnyValue]:
        most, longest = self.limits.max_span_attributes, self.limits.max_span_attribute_length
        if longest is None and (most is None or len(attributes) <= most):
            return attributes
        return BoundedAttributes(most, attributes, max_value_len=longest)


@define(eq=False)
class _Begun:
    """
    The span of a request until it ends.

    @ivar client: the span of which it is a part; not valid if it is the first of its trace.
    @ivar attributes: the sampler's.
    @ivar time: that of the request, in seconds since the epoch.
    """

    spans: _Spans
    context: SpanContext
    client: SpanContext
    attributes: Mapping[str, AnyValue]
    time: float

    @property
    def parent(self) -> bytes:
        context = self.context
        return b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)

    def end(self, exchange: Exchange) -> None:
        if self.context.trace_flags.sampled:
            self.spans.send(self, exchange)


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
        self._spans: _Spans | None = None

    def startService(self) -> None:
        super().startService()
        # Not before: a thread does not outlive the fork into the background.
        self._spans = _Spans.sent_to(self._endpoint, self._version)

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        spans, self._spans = self._spans, None
        if spans is None:
            return None
        # It sends what is left. A collector that does not answer must not keep the daemon.
        sent = Deferred.fromCoroutine(self._threads.call(spans.processor.shutdown))
        return sent.addTimeout(_LAST_SECONDS, self._reactor, lambda *_: None)

    def begin(self, headers: Headers, time: float) -> Trace | None:
        if self._spans is None:
            return None
        return self._spans.begin(parent_in(headers), time)


def _at(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)
