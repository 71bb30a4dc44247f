"""Numbers of several rounds made into one."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

Measures = dict[str, float | None]


def percentile(ordered: Sequence[float], percent: float, factor: float = 1.0) -> float | None:
    """@param ordered: ascending."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * factor


def medians(rounds: Sequence[Measures]) -> Measures:
    """The median of each measure, of those rounds that have it."""
    names = dict.fromkeys(name for measures in rounds for name in measures)
    result: Measures = {}
    for name in names:
        values = [value for measures in rounds if (value := measures.get(name)) is not None]
        result[name] = round(median(values), 4) if values else None
    return result
