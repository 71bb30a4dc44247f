"""Spreads the answers to requests that arrive at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

# At most _AT_ONCE requests start within _MOMENT seconds; only a burst is delayed by this limit. Nor
# does another one start in a turn of the reactor that has lasted that long: on a machine where each
# takes long, _AT_ONCE of them never start within a moment, and all would start in one turn.
_AT_ONCE = 8
_MOMENT = 0.005


class AdmissionThrottle:
    """
    Starts the requests of a burst a few at a time, in successive turns of the reactor. In between,
    data for earlier requests is passed on. If all were started first, the first response would be
    as late as the last. Refusals are started here too: they take a turn's time as well.

    What has come of a request may wait here before it is parsed. It starts as soon as it is then.
    """

    def __init__(self, clock: IReactorTime, turn_lasts: Callable[[], float] = lambda: 0.0) -> None:
        """
        @param turn_lasts: the seconds since the present turn of the reactor began; 0 if that is
            not known.
        """
        self._clock = clock
        self._turn_lasts = turn_lasts
        self._begun: deque[float] = deque([0.0] * _AT_ONCE, maxlen=_AT_ONCE)
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_starting = False

    @property
    def is_busy(self) -> bool:
        """Whether what comes now has to wait."""
        return bool(self._waiting) and not self._is_starting

    def spread(self, begin: Callable[[], None]) -> None:
        """Start a request, now or in a later turn of the reactor."""
        if self._is_starting:
            # It has had its turn.
            begin()
            return
        now = self._clock.seconds()
        is_burst = now - self._begun[0] < _MOMENT or self._turn_lasts() > _MOMENT
        if self._waiting or is_burst:
            if not self._waiting:
                self._clock.callLater(0, self._next)
            self._waiting.append(begin)
        else:
            self._begun.append(now)
            begin()

    def _next(self) -> None:
        end = self._clock.seconds() + _MOMENT
        self._is_starting = True
        try:
            for _ in range(min(_AT_ONCE, len(self._waiting))):
                self._waiting.popleft()()
                if self._clock.seconds() > end:
                    break
        finally:
            self._is_starting = False
            if self._waiting:
                self._clock.callLater(0, self._next)
