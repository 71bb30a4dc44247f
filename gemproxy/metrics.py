"""Counters for those who run the proxy, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import lru_cache, partial
from itertools import accumulate

from attrs import frozen
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_MODELS_LIMIT = 200
# To look up the child of a metric takes more work than to count.
_CHILDREN_KEPT = 1000


class Joining(Enum):
    """What the values of several processes are together."""

    SUM = "sum"
    HIGHEST = "highest"
    LOWEST = "lowest"
    EACH = "each"


@frozen
class _Watched(Collector):
    """A metric whose values somebody else knows."""

    metric: Callable[[], Metric]

    def collect(self) -> Iterable[Metric]:
        return [self.metric()]


class Metrics:
    """
    What happened since the daemon started. Neither keys nor texts are in it.

    @ivar joining: by names; what is not there is added up.
    """

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self.joining = {"gemproxy_build": Joining.HIGHEST}
        build = Info("gemproxy_build", "Version of the running daemon", registry=self.registry)
        build.info({"version": version})
        # Memory, CPU time and descriptors, by Prometheus' standard names; on Linux only.
        ProcessCollector(registry=self.registry)
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
        self._responses = Counter(
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
        self.usage_dropped = Counter(
            "gemproxy_usage_dropped",
            "Requests that are missing in the usage, because it could not be written",
            registry=self.registry,
        )
        self.aborted = Counter(
            "gemproxy_aborted_upstreams",
            "Responses whose backend was stopped before their end",
            registry=self.registry,
        )

        self.refused_keys = Counter(
            "gemproxy_refused_keys",
            "Requests that were refused because of their key, by the key that was needed",
            ["needed"],
            registry=self.registry,
        )
        for key in ("client", "admin"):
            # Prometheus needs the 0 to see a first one.
            self.refused_keys.labels(key)
        kept = lru_cache(_CHILDREN_KEPT)
        self._requests_of = kept(self._requests.labels)
        self._first_token_of = kept(self._first_token.labels)
        self._duration_of = kept(self._duration.labels)
        self._responses_of = kept(self._responses.labels)

    def answered(
        self, route: str, model: str, status: int, first_token: float | None, duration: float
    ) -> None:
        """A chat completion has come to its end; times in seconds."""
        if model not in self._models:
            if len(self._models) < _MODELS_LIMIT:
                self._models.add(model)
            else:
                model = "(other)"
        self._requests_of(route, model, status).inc()
        self._duration_of(route).observe(duration)
        if first_token is not None:
            self._first_token_of(route).observe(first_token)

    def responded(self, status: int) -> None:
        """Any response has come to its end."""
        self._responses_of(status).inc()

    def retried(self, reason: str) -> None:
        self._retries.labels(reason).inc()

    def passed(self, status: int) -> None:
        self._passed.labels(str(status)).inc()

    def connection_refused(self, limit: str) -> None:
        self._refused_connections.labels(limit).inc()

    def watch(
        self,
        name: str,
        meaning: str,
        value: Callable[[], float],
        joining: Joining = Joining.SUM,
    ) -> None:
        """Show a value that somebody else knows."""
        name = f"gemproxy_{name}"
        self.joining[name] = joining
        Gauge(name, meaning, registry=self.registry).set_function(value)

    def watch_each(
        self, name: str, meaning: str, label: str, keys: Sequence[str], value: Callable[[str], int]
    ) -> None:
        """Show values that somebody else knows, one for each key."""
        gauge = Gauge(f"gemproxy_{name}", meaning, [label], registry=self.registry)
        for key in keys:
            gauge.labels(key).set_function(partial(value, key))

    def watch_counts(
        self, name: str, meaning: str, label: str, counts: Callable[[], Mapping[str, int]]
    ) -> None:
        """Show what somebody else counts, by one label."""
        self.watch_counts_by(
            name, meaning, [label], lambda: {(key,): count for key, count in counts().items()}
        )

    def watch_counts_by(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str],
        counts: Callable[[], Mapping[tuple[str, ...], float]],
    ) -> None:
        """The same by several labels."""

        def metric() -> Metric:
            family = CounterMetricFamily(f"gemproxy_{name}", meaning, labels=labels)
            for key, count in counts().items():
                family.add_metric(key, count)
            return family

        self.registry.register(_Watched(metric))

    def watch_histogram(
        self,
        name: str,
        meaning: str,
        bounds: Sequence[float],
        values: Callable[[], tuple[Sequence[int], float]],
    ) -> None:
        """
        Show a histogram that somebody else keeps.

        @param bounds: the upper bounds of its buckets.
        @param values: the number of values in each bucket, with one more for those beyond all
            bounds, and their sum.
        """

        def metric() -> Metric:
            counts, total = values()
            names = [*map(str, bounds), "+Inf"]
            family = HistogramMetricFamily(f"gemproxy_{name}", meaning)
            family.add_metric([], list(zip(names, accumulate(counts), strict=True)), total)
            return family

        self.registry.register(_Watched(metric))

    def render(self) -> bytes:
        return generate_latest(self.registry)
