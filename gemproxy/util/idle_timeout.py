"""A limit on the time without data from a backend."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

_T = TypeVar("_T")


class IdleTimeout:
    """Cancels work that shows no activity for too long."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        """@param seconds: the time without activity after which the work is cancelled."""
        self._clock = clock
        self._seconds = seconds
        self._last = clock.seconds()
        self._work: Deferred[Any] | None = None
        self._check: IDelayedCall | None = None
        self._too_long = False
        self._paused = False

    def reset(self) -> None:
        """Report activity; restarts the time limit."""
        self._last = self._clock.seconds()

    def pause(self) -> None:
        """Suspend the time limit, because the work is waiting for the client."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self.reset()

    def watch(self, work: Deferred[_T]) -> Deferred[_T]:
        """
        Cancel the work when it shows no activity for too long.

        @return: the same Deferred; it fails with a TimeoutError in that case.
        """
        self._work = work
        self._last = self._clock.seconds()
        self._watch(self._seconds)
        return work.addBoth(self._over)

    def _over(self, result: _T | Failure) -> _T | Failure:
        if self._check is not None and self._check.active():
            self._check.cancel()
        self._work = None
        if self._too_long and isinstance(result, Failure) and result.check(CancelledError):
            return Failure(TimeoutError())
        return result

    def _watch(self, seconds: float) -> None:
        self._check = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        if self._paused:
            self.reset()
        left = self._last + self._seconds - self._clock.seconds()
        if left > 0:
            self._watch(left)
        elif self._work is not None:
            self._too_long = True
            self._work.cancel()
