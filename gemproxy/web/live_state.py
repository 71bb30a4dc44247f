"""What a page that watches the daemon shows, and what has changed since it was last told. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Any

from attrs import define

from gemproxy.web.under_way import Progress, Running

# Requests that a page is told of. It could not show more, and nobody could read them.
MOST_SHOWN = 2000
# The share of the newest measurement in a speed: an answer comes in bursts.
_SHARE_OF_NEWEST = 0.4
_FIELDS = Progress._fields


@define
class _Row:
    """
    A request on the page.

    @ivar facts: what does not change.
    @ivar speed: tokens in a second, of late.
    """

    facts: dict[str, Any]
    progress: Progress
    speed: float | None = None

    def whole(self) -> dict[str, Any]:
        return self.facts | self.progress._asdict() | {"speed": self.speed}

    def advance(self, progress: Progress, elapsed: float) -> dict[str, Any]:
        """
        The fields that have changed since.

        @param elapsed: seconds since then.
        """
        before = self.progress
        if before == progress and not self.speed:
            return {}
        self.progress = progress
        changed: dict[str, Any] = {
            name: now
            for name, then, now in zip(_FIELDS, before, progress, strict=True)
            if now != then
        }
        if progress.tokens is not None and before.tokens is not None and elapsed > 0:
            speed = _next_speed(self.speed, max(0.0, (progress.tokens - before.tokens) / elapsed))
            if speed != self.speed:
                self.speed = changed["speed"] = speed
        return changed


def _next_speed(speed: float | None, newest: float) -> float | None:
    if speed is None:
        return round(newest, 1) or None
    return round(speed + _SHARE_OF_NEWEST * (newest - speed), 1)


class LiveState:
    """
    The state that was last told. It has as many rows as there are requests under way, whatever came
    before.
    """

    def __init__(self) -> None:
        self._time = 0.0
        self._rows: dict[str, _Row] = {}
        self._fields: dict[str, Any] = {}

    def whole(self) -> dict[str, Any]:
        """All of it."""
        rows = [row.whole() for row in self._rows.values()]
        return {"time": self._time, "requests": rows} | self._fields

    def advance(
        self, time: float, clock: float, running: Mapping[str, Running], fields: dict[str, Any]
    ) -> dict[str, Any]:
        """
        Take the state of now. Returns what has changed; empty if nothing has.

        @param time: now, in seconds since the epoch.
        @param clock: the same on the clock of L{Running.began}.
        @param fields: everything but the requests; C{requests_total} may be there if it is known.
        """
        elapsed, self._time = time - self._time, time
        rows: dict[str, _Row] = {}
        new: list[dict[str, Any]] = []
        changed: list[dict[str, Any]] = []
        for id, one in islice(running.items(), MOST_SHOWN):
            row = self._rows.get(id)
            if row is None:
                began = round(time - (clock - one.began), 3)
                row = _Row(one.facts() | {"began": began}, one.progress())
                new.append(row.whole())
            elif difference := row.advance(one.progress(), elapsed):
                changed.append({"id": id} | difference)
            rows[id] = row
        ended = [id for id in self._rows if id not in rows]
        self._rows = rows
        fields = {"requests_total": len(running)} | fields
        difference = {
            name: value for name, value in fields.items() if self._fields.get(name) != value
        }
        self._fields = fields
        if new or changed or ended:
            difference["requests"] = {"new": new, "changed": changed, "ended": ended}
        return {"time": time} | difference if difference else {}


def requests_of_all(
    own: Mapping[str, Running], others: Mapping[str, Running]
) -> Mapping[str, Running]:
    """The requests of several processes, the oldest first."""
    if not others:
        return own
    return dict(sorted(chain(own.items(), others.items()), key=lambda item: item[1].began))


def fields_of_all(fields: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """
    The other fields of several processes, as those of one.

    @param fields: of each of them, and C{requests_total}.
    """
    queues = {name: sum(one["queues"][name] for one in fields) for name in fields[0]["queues"]}
    return {
        "workers": list(chain.from_iterable(one["workers"] for one in fields)),
        "keys": _keys_of_all(fields),
        "upstreams": _upstreams_of_all(fields),
        "queues": queues,
        "requests_total": sum(one["requests_total"] for one in fields),
    }


def _keys_of_all(fields: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each with its longest rest for each model."""
    rests: dict[str, dict[str | None, dict[str, Any]]] = {}
    for key in chain.from_iterable(one["keys"] for one in fields):
        longest = rests.setdefault(key["key"], {})
        for rest in key["rests"]:
            known = longest.get(rest["model"])
            if known is None or rest["until"] > known["until"]:
                longest[rest["model"]] = rest
    return [{"key": key, "rests": list(longest.values())} for key, longest in rests.items()]


def _upstreams_of_all(fields: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each as the process has it in which it rests longest."""
    found: dict[str, dict[str, Any]] = {}
    for one in chain.from_iterable(one["upstreams"] for one in fields):
        known = found.setdefault(one["name"], one)
        if (one["until"] or 0) > (known["until"] or 0):
            found[one["name"]] = one
    return list(found.values())
