"""A limit for log lines that anybody can cause."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

MOST = 10
PERIOD = 60.0


@define(eq=False)
class _Period:
    """What happened to the lines of one kind since a time."""

    since: float
    lines: int = 0
    left_out: int = 0
    end: IDelayedCall | None = None


@define(eq=False)
class LogLimit:
    """
    Lets some lines of each kind through in a period, and tells of the number of the others.

    @ivar told: called at the end of a period with the kind, and how many lines were left out.
    @ivar most: lines of one kind in a period.
    @ivar period: in seconds.
    """

    _clock: IReactorTime
    _told: Callable[[int, int], None]
    _most: int = MOST
    _period: float = PERIOD
    _periods: dict[int, _Period] = field(init=False, factory=dict)

    def allows(self, kind: int) -> bool:
        """Whether a line is to be written; if not, it is counted."""
        now = self._clock.seconds()
        current = self._periods.get(kind)
        if current is None or now - current.since >= self._period:
            self._end(kind)
            current = self._periods[kind] = _Period(now)
        if current.lines < self._most:
            current.lines += 1
            return True
        current.left_out += 1
        if current.end is None:
            left = current.since + self._period - now
            current.end = self._clock.callLater(left, self._end, kind)
        return False

    def stop(self) -> None:
        """Tell of what was left out so far."""
        for kind in list(self._periods):
            self._end(kind)

    def _end(self, kind: int) -> None:
        ended = self._periods.pop(kind, None)
        if ended is None:
            return
        if ended.end is not None and ended.end.active():
            ended.end.cancel()
        if ended.left_out:
            self._told(kind, ended.left_out)
