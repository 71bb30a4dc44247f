"""A value from elsewhere that many need: read once for all of them, and kept for a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime

_T = TypeVar("_T")


class SharedRead(Service, Generic[_T]):
    """
    Reads a value when it is needed, and again when it is needed after its lifetime. The old value
    serves until there is a new one. Stopping the service ends a read under way.

    @ivar value: the last one that was read; None if there is none.
    @ivar stopped: whether nothing is read any more.
    """

    def __init__(self, clock: IReactorTime, lifetime: float, rest: float) -> None:
        """
        @param lifetime: seconds after which a value is read again.
        @param rest: seconds after a failure in which nothing is read.
        """
        self.value: _T | None = None
        self._clock = clock
        self._lifetime = lifetime
        self._rest = rest
        self._due = clock.seconds()
        self._reading: Deferred[None] | None = None
        self._waiting: list[Deferred[_T | None]] = []
        self.stopped = False

    def get(self, read: Callable[[], Awaitable[tuple[_T | None, bool]]]) -> Deferred[_T | None]:
        """
        The value, at once if there is one; None if it cannot be read. Cancelling ends the wait, not
        the read.

        @param read: the value, and whether all of it was read; None if there is none. It is called
            only if nothing is being read yet.
        """
        idle = self._reading is None and not self.stopped
        if idle and self._clock.seconds() >= self._due:
            reading = self._reading = Deferred.fromCoroutine(self._read(read))
            if reading.called:
                self._reading = None
        if self.value is not None or self._reading is None:
            return succeed(self.value)
        waiting: Deferred[_T | None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    async def _read(self, read: Callable[[], Awaitable[tuple[_T | None, bool]]]) -> None:
        value, whole = None, False
        try:
            value, whole = await read()
        except CancelledError:
            pass
        finally:
            self._due = self._clock.seconds() + (self._lifetime if whole else self._rest)
            self._reading = None
            if value is not None:
                self.value = value
            while self._waiting:
                self._waiting.pop(0).callback(self.value)

    def stopService(self) -> None:
        super().stopService()
        self.stopped = True
        if self._reading is not None:
            self._reading.cancel()
