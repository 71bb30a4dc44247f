"""Writes what is collected in batches, one at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Batches:
    """Has its owner write a moment after something is there, and once more if something is left."""

    def __init__(
        self,
        clock: IReactorTime,
        write: Callable[[], Awaitable[bool]],
        is_left: Callable[[], bool],
        delay: float,
        retry_delay: float,
    ) -> None:
        """
        @param write: writes all that is there; returns whether it could.
        @param is_left: whether there is something to be written after that.
        @param delay: seconds in which a batch is collected.
        @param retry_delay: seconds after which what could not be written is tried again.
        """
        self._clock = clock
        self._write = write
        self._is_left = is_left
        self._delay = delay
        self._retry_delay = retry_delay
        self._timer: IDelayedCall | None = None
        self._writing: Deferred[None] | None = None

    @property
    def is_writing(self) -> bool:
        return self._writing is not None

    def added(self) -> None:
        """Something is there."""
        if self._timer is None and self._writing is None:
            self._timer = self._clock.callLater(self._delay, self.write)

    def write(self) -> None:
        """Write now. Nothing may be under way."""
        self._timer = None
        self._writing = Deferred.fromCoroutine(self._run())
        if self._writing.called:
            self._writing = None

    def stop(self) -> None:
        """Begin no batch that waits; one that is being written goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def until_idle(self) -> None:
        """@raise Exception: what the batch under way fails with."""
        if self._writing is not None:
            await self._writing

    async def _run(self) -> None:
        is_written = await self._write()
        self._writing = None
        if self._is_left():
            delay = self._delay if is_written else self._retry_delay
            self._timer = self._clock.callLater(delay, self.write)
