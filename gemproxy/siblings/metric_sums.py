"""The metrics of several processes as those of one daemon. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import add
from typing import Any

from attrs import frozen
from prometheus_client.core import Metric

from gemproxy.metrics import Joining

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels]
"""The name of a sample, and its labels."""

# What is counted only grows, and stays when a process ends.
_COUNTED = ("counter", "histogram")
# Prometheus' client adds when something was counted for the first time.
_SINCE = "_created"
_OF_PROCESSES = "process_"
PROCESS = "process"
"""The label of what each process has for itself, such as its memory."""


@frozen
class Family:
    """
    A metric, with its values.

    @ivar type: in Prometheus' words.
    """

    name: str
    meaning: str
    type: str
    joining: Joining
    samples: dict[Sample, float]

    @property
    def is_counted(self) -> bool:
        return self.type in _COUNTED and self.joining is Joining.SUM

    @property
    def is_of_each(self) -> bool:
        return self.joining is Joining.EACH

    def as_json(self) -> list[Any]:
        samples = [[name, labels, value] for (name, labels), value in self.samples.items()]
        return [self.name, self.meaning, self.type, self.joining.value, samples]

    @classmethod
    def of_json(cls, said: Any) -> Family:
        """@raise ValueError: it is none; likewise TypeError."""
        name, meaning, kind, joining, samples = said
        # JSON has no number for what is infinite.
        values = {
            (sample, tuple((label, text) for label, text in labels)): value
            for sample, labels, value in samples
            if value is not None
        }
        return cls(name, meaning, kind, Joining(joining), values)

    def labelled(self, process: str) -> Family:
        label = (PROCESS, process)
        samples = {
            (name, (*labels, label)): value for (name, labels), value in self.samples.items()
        }
        return Family(self.name, self.meaning, self.type, self.joining, samples)

    def as_metric(self) -> Metric:
        metric = Metric(self.name, self.meaning, self.type)
        for (name, labels), value in self.samples.items():
            metric.add_sample(name, dict(labels), value)
        return metric


Families = Sequence[Family]


def families_in(document: Any) -> Families:
    """Those in the JSON of a process; none if that is of another version, which has others."""
    try:
        return [Family.of_json(said) for said in document]
    except (TypeError, ValueError):
        return ()


def families_of(metrics: Iterable[Metric], joining: Mapping[str, Joining]) -> Families:
    """@param joining: see L{Metrics.joining}."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            _joining_of(metric.name, joining),
            {(one.name, tuple(one.labels.items())): one.value for one in metric.samples},
        )
        for metric in metrics
    ]


def _joining_of(name: str, joining: Mapping[str, Joining]) -> Joining:
    if name.startswith(_OF_PROCESSES):
        return Joining.EACH
    return joining.get(name, Joining.SUM)


def counted(families: Families) -> Families:
    """What stays of a process that has ended: the rest was true of it while it ran."""
    return [family for family in families if family.is_counted]


def joined(processes: Iterable[Families]) -> Families:
    """
    The metrics of all together, in the order of the first that has each. What is each process's own
    must be told apart by labels.
    """
    found: dict[str, Family] = {}
    for family in chain.from_iterable(processes):
        known = found.get(family.name)
        found[family.name] = family if known is None else _together(known, family)
    return list(found.values())


def _together(one: Family, other: Family) -> Family:
    samples = dict(one.samples)
    for place, value in other.samples.items():
        before = samples.get(place)
        samples[place] = value if before is None else _join(place[0], one.joining)(before, value)
    return Family(one.name, one.meaning, one.type, one.joining, samples)


def _join(sample: str, joining: Joining) -> Callable[[float, float], float]:
    if joining is Joining.SUM:
        return min if sample.endswith(_SINCE) else add
    return min if joining is Joining.LOWEST else max
