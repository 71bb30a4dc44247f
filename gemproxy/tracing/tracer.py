"""The interface of what traces requests, and the one that traces nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gemproxy.chat.request import Headers
from gemproxy.exchange import Exchange

_ENDPOINTS = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "", "OTEL_EXPORTER_OTLP_ENDPOINT": "/v1/traces"}
_PARENT = b"traceparent"


class Trace(Protocol):
    """That of one request."""

    @property
    def parent(self) -> bytes:
        """What whoever is asked for the answer is told of it: W3C's C{traceparent}."""

    def end(self, exchange: Exchange) -> None:
        """The exchange has ended."""


class Tracer:
    """Begins the traces of requests. This one traces nothing."""

    def begin(self, headers: Headers, time: float) -> Trace | None:
        """
        @param headers: the client's.
        @param time: that of the request, in seconds since the epoch.
        """
        return None


NO_TRACER = Tracer()


def endpoint_in(environ: Mapping[str, str]) -> str | None:
    """
    Where traces are to be sent, by OpenTelemetry's own variables; None for nowhere.

    opentelemetry.io/docs/specs/otel/protocol/exporter
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "").strip() not in ("", "otlp"):
        return None
    for name, path in _ENDPOINTS.items():
        if url := environ.get(name, "").strip():
            return url.rstrip("/") + path if path else url
    return None


def parent_in(headers: Headers) -> str | None:
    """The trace of which a request is a part, as its client says."""
    found = [value for name, value in headers if name.lower() == _PARENT]
    # More than one is none: w3.org/TR/trace-context
    return found[0].decode("latin-1") if len(found) == 1 else None


def with_parent(headers: Headers, parent: bytes) -> Headers:
    """Headers for whoever is asked, with the part of the trace that this is."""
    return (*[each for each in headers if each[0].lower() != _PARENT], (_PARENT, parent))
