"""The beat at which waiting clients are looked after."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from gemproxy.util.log import make_logger

_LOOKS_PER_INTERVAL = 20


class Waiting(Protocol):
    """Somebody who may be waiting for a sign of life."""

    def look(self) -> None:
        """Give one, if it is time."""


class HeartbeatTimer:
    """
    One LoopingCall for all who wait, which runs while there are any: a timer for each would cost
    more than all the rest of a quiet stream.
    """

    log = make_logger()

    def __init__(self, clock: IReactorTime, interval: float) -> None:
        """@param interval: seconds between two signs of life."""
        self._seconds = interval / _LOOKS_PER_INTERVAL
        self._waiting: set[Waiting] = set()
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def add(self, waiting: Waiting) -> None:
        self._waiting.add(waiting)
        if not self._loop.running:
            self._loop.start(self._seconds, now=False)

    def remove(self, waiting: Waiting) -> None:
        self._waiting.discard(waiting)
        if not self._waiting and self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        for waiting in list(self._waiting):
            try:
                waiting.look()
            except Exception:
                # One that fails must not stop the beat for the others.
                self.log.failure("a heartbeat failed")
