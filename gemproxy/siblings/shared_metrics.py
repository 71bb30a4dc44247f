"""One C{/metrics} for all processes of a daemon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from attrs import frozen
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from twisted.application.service import Service

from gemproxy.metrics import Metrics
from gemproxy.siblings.asking import SILENT, Siblings
from gemproxy.siblings.counts_left import CountsLeft
from gemproxy.siblings.metric_sums import Families, counted, families_in, families_of, joined
from gemproxy.util.log import make_logger

_PATH = "/metrics"


class SharedMetrics(Service):
    """
    What all processes have counted, also those that have ended: Prometheus takes a counter that
    falls for one that has begun anew, and would count everything again.

    So what a process tells of its counters is in a file before it is told. If the process is
    killed, that stays counted; what came after is lost, as when a daemon of one process is killed.
    """

    log = make_logger()

    def __init__(self, metrics: Metrics, siblings: Siblings) -> None:
        """@param siblings: start before this service does."""
        self._metrics = metrics
        self._siblings = siblings
        place = siblings.place
        self._left = None if place.folder is None else CountsLeft(place.folder, place.name)
        self._number = str(place.number)
        self._is_bad = False
        if self._left is not None:
            metrics.watch("processes", "Processes that are in these values", lambda: 1)
        siblings.answer(_PATH, lambda _: [family.as_json() for family in self._own()])

    def startService(self) -> None:
        super().startService()
        if self._left is not None:
            with self._complaining():
                self._left.add_up(self._siblings.names())

    def stopService(self) -> None:
        super().stopService()
        if self._left is not None:
            self._own()

    async def render(self) -> bytes:
        """In Prometheus' format."""
        if self._left is None:
            return self._metrics.render()
        answers = await self._siblings.ask(_PATH)
        own = self._own()
        left = self._left.read()
        others = dict(left.by_name)
        for name, answer in answers.items():
            if answer is not SILENT and name not in left.added_up:
                others[name] = families_in(answer)
        return _rendered(joined([own, *others.values(), left.ended]))

    def _own(self) -> Families:
        """What is known of this process, of which the counts are in its file then."""
        assert self._left is not None  # noqa: S101 - for mypy
        families = families_of(self._metrics.registry.collect(), self._metrics.joining)
        with self._complaining():
            self._left.leave(counted(families))
        return [
            family.labelled(self._number) if family.is_of_each else family for family in families
        ]

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """Of a disk, once, until it is better."""
        try:
            yield
            self._is_bad = False
        except OSError as error:
            if not self._is_bad:
                self._is_bad = True
                self.log.warn(
                    "what a process has counted is lost when it ends: {error}", error=error
                )


@frozen(eq=False)
class _These(Collector):
    metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def _rendered(families: Families) -> bytes:
    registry = CollectorRegistry()
    registry.register(_These([family.as_metric() for family in families]))
    return generate_latest(registry)
