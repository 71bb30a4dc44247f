"""In which order many requests that come at once are served."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

# So many requests may begin within so many seconds: more than there can be, unless they come all
# at once.
_AT_ONCE = 8
_MOMENT = 0.005


class AdmissionThrottle:
    """
    Lets the requests of a burst begin a few at a time, once in every turn of the reactor: between
    two turns, what has come for those before them is passed on. If all began first, the first one
    would be answered as late as the last one.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._begun: deque[float] = deque([0.0] * _AT_ONCE, maxlen=_AT_ONCE)
        self._waiting: deque[Callable[[], None]] = deque()

    def spread(self, begin: Callable[[], None]) -> None:
        """Begin now, or when it is its turn."""
        now = self._clock.seconds()
        if self._waiting or now - self._begun[0] < _MOMENT:
            if not self._waiting:
                self._clock.callLater(0, self._next)
            self._waiting.append(begin)
        else:
            self._begun.append(now)
            begin()

    def _next(self) -> None:
        some = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
        if self._waiting:
            self._clock.callLater(0, self._next)
        for begin in some:
            begin()
