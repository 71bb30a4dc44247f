"""Counters for those who run the proxy, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_MODELS_LIMIT = 200


class Metrics:
    """What happened since the daemon started. Neither keys nor texts are in it."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        build = Info("gemproxy_build", "Version of the running daemon", registry=self.registry)
        build.info({"version": version})
        # Names come from clients: there may be only so many of them.
        self._models: set[str] = set()
        self._requests = Counter(
            "gemproxy_requests",
            "Chat completion requests, by route, model and status",
            ["route", "model", "status"],
            registry=self.registry,
        )
        self._first_token = Histogram(
            "gemproxy_first_token_seconds",
            "Seconds from a request to the first piece of its response",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._duration = Histogram(
            "gemproxy_request_seconds",
            "Seconds from a request to the end of its response",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._retries = Counter(
            "gemproxy_retries",
            "Retries of requests to the Gemini API, by reason",
            ["reason"],
            registry=self.registry,
        )
        self._passed = Counter(
            "gemproxy_passthrough_requests",
            "Requests passed through to the upstream, by response status",
            ["status"],
            registry=self.registry,
        )
        self.responses = Counter(
            "gemproxy_responses",
            "Responses to all requests, including errors and rejected requests",
            ["status"],
            registry=self.registry,
        )
        self._refused_connections = Counter(
            "gemproxy_refused_connections",
            "Connections of clients that were refused, by the limit that they exceed",
            ["limit"],
            registry=self.registry,
        )
        self.heartbeats = Counter(
            "gemproxy_heartbeats", "Heartbeats sent to waiting clients", registry=self.registry
        )
        self.stop_tags = Counter(
            "gemproxy_stop_tags", "Responses ended by a stop tag", registry=self.registry
        )
        self.journal_dropped = Counter(
            "gemproxy_journal_dropped",
            "Exchanges that are missing in the journal, because it could not be written",
            registry=self.registry,
        )
        self.aborted = Counter(
            "gemproxy_aborted_upstreams",
            "Responses whose backend was stopped before their end",
            registry=self.registry,
        )

    def answered(
        self, route: str, model: str, status: int, first_token: float | None, duration: float
    ) -> None:
        """A chat completion has come to its end; times in seconds."""
        if model not in self._models:
            if len(self._models) < _MODELS_LIMIT:
                self._models.add(model)
            else:
                model = "(other)"
        self._requests.labels(route, model, str(status)).inc()
        self._duration.labels(route).observe(duration)
        if first_token is not None:
            self._first_token.labels(route).observe(first_token)

    def retried(self, reason: str) -> None:
        self._retries.labels(reason).inc()

    def passed(self, status: int) -> None:
        self._passed.labels(str(status)).inc()

    def connection_refused(self, limit: str) -> None:
        self._refused_connections.labels(limit).inc()

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show a value that somebody else knows."""
        Gauge(f"gemproxy_{name}", meaning, registry=self.registry).set_function(value)

    def watch_each(
        self, name: str, meaning: str, label: str, keys: Sequence[str], value: Callable[[str], int]
    ) -> None:
        """Show values that somebody else knows, one for each key."""
        gauge = Gauge(f"gemproxy_{name}", meaning, [label], registry=self.registry)
        for key in keys:
            gauge.labels(key).set_function(partial(value, key))

    def render(self) -> bytes:
        return generate_latest(self.registry)
