"""Traces: spans as a collector gets them by OTLP, and the trace that goes on to the upstream."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pytest_twisted import ensureDeferred

from gemproxy.tracing.tracer import endpoint_in, parent_in, with_parent
from testing.fake_newapi import answer, document, events
from tests.support import Relay, gpt, running_relay

pytestmark = pytest.mark.slow

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes spans, as http://localhost:4318/v1/traces of a collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Exports)
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}
        self.paths: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Exports(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.paths.add(self.path)
        sent = ExportTraceServiceRequest()
        sent.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in sent.resource_spans:
            self.server.resource |= values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def values(attributes: Any) -> dict[str, Any]:
    def of(value: Any) -> Any:
        kind = value.WhichOneof("value")
        found = getattr(value, kind)
        return [of(each) for each in found.values] if kind == "array_value" else found

    return {each.key: of(each.value) for each in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@asynccontextmanager
async def tracing(collector: Collector) -> AsyncIterator[Relay]:
    """A Stream Proxy; the collector has all of its spans when it has stopped."""
    async with running_relay(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as relay:
        yield relay


@ensureDeferred
async def test_a_span_says_what_was_asked_and_what_came_of_it(collector: Collector) -> None:
    async with tracing(collector) as relay:
        relay.upstream.play(events(*answer("Hel", "lo", usage=True)))
        body = gpt("Hello", stream=True, stream_options={"include_usage": True})
        reply = await relay.ask(body, traceparent=f"00-{TRACE}-{PARENT}-01")
        assert reply.status == 200
        (passed,) = relay.upstream.calls[-1].all_headers("traceparent")
    (span,) = collector.spans
    assert collector.paths == {"/v1/traces"}
    assert collector.resource["service.name"] == "gemproxy"
    assert (span.name, span.kind) == ("chat gpt-x", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert passed == f"00-{TRACE}-{span.span_id.hex()}-01"
    said = values(span.attributes)
    assert said.pop("gemproxy.request") == reply.headers["x-request-id"]
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "newapi",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 2,
        "gemproxy.stream": True,
        "http.response.status_code": 200,
    }
    (first,) = span.events
    assert first.name == "first token"
    assert span.start_time_unix_nano < first.time_unix_nano < span.end_time_unix_nano
    assert b"Hel" not in span.SerializeToString()


@ensureDeferred
async def test_an_error_is_one_in_the_trace_without_its_words(collector: Collector) -> None:
    async with tracing(collector) as relay:
        relay.upstream.play(document({"error": {"message": "Never 'Hello'"}}, status=400))
        assert (await relay.ask(gpt("Hello"))).status == 400
        assert len(relay.upstream.calls[-1].all_headers("traceparent")) == 1
    (span,) = collector.spans
    assert not span.parent_span_id
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert values(span.attributes)["error.type"] == "400"
    assert b"Never" not in span.SerializeToString()


@ensureDeferred
async def test_what_the_client_does_not_sample_is_not_sent(collector: Collector) -> None:
    async with tracing(collector) as relay:
        await relay.ask(gpt(), traceparent=f"00-{TRACE}-{PARENT}-00")
        (passed,) = relay.upstream.calls[-1].all_headers("traceparent")
    assert passed.startswith(f"00-{TRACE}-")
    assert passed.endswith("-00")
    assert collector.spans == []


@ensureDeferred
async def test_opentelemetrys_variables_choose_what_is_sent(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with tracing(collector) as relay:
        await relay.ask(gpt(), traceparent=f"00-{TRACE}-{PARENT}-01")
        await relay.ask(gpt())
        with_parent, without = [
            call.all_headers("traceparent")[0] for call in relay.upstream.calls[-2:]
        ]
    assert with_parent.startswith(f"00-{TRACE}-")
    assert with_parent.endswith("-00")
    # Its number is random, but nobody keeps it.
    assert without.endswith("-02")
    assert collector.spans == []

    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "5")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "0")
    async with tracing(collector) as relay:
        relay.upstream.play(events(*answer("Hello")))
        await relay.ask(gpt(stream=True), traceparent=f"00-{TRACE}-{PARENT}-00")
    (span,) = collector.spans
    said = values(span.attributes)
    assert len(said) == 5
    assert {len(value) for value in said.values() if isinstance(value, str)} == {3}
    assert not span.events


@ensureDeferred
async def test_without_a_collector_the_trace_passes_as_it_is(relay: Relay) -> None:
    parent = f"00-{TRACE}-{PARENT}-01"
    await relay.ask(gpt(), traceparent=parent)
    assert relay.upstream.calls[-1].all_headers("traceparent") == [parent]


@ensureDeferred
async def test_a_collector_that_is_away_costs_nobody_an_answer() -> None:
    async with running_relay(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") as relay:
        assert (await relay.ask(gpt())).status == 200


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, "http://c/x"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "True"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_opentelemetrys_variables_say_where_traces_go(
    environ: dict[str, str], endpoint: str | None
) -> None:
    assert endpoint_in(environ) == endpoint


def test_there_is_one_parent_in_the_end() -> None:
    headers = ((b"A", b"b"), (b"Traceparent", b"x"), (b"traceparent", b"y"))
    assert parent_in(headers) is None
    assert parent_in(headers[:2]) == "x"
    assert with_parent(headers, b"z") == ((b"A", b"b"), (b"traceparent", b"z"))
