"""The timer for heartbeats to waiting clients."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from gemproxy.util.log import make_logger

_LOOKS_PER_INTERVAL = 20


class Waiting(Protocol):
    """A response that may need a heartbeat."""

    def look(self) -> None:
        """Send a heartbeat if it is due."""


class HeartbeatTimer:
    """
    A single LoopingCall for all waiting clients, which runs while there are any. One timer per
    client would cost more than everything else in an idle stream.
    """

    log = make_logger()

    def __init__(self, clock: IReactorTime, interval: float | None) -> None:
        """@param interval: seconds between two heartbeats; None for no heartbeats."""
        self._seconds = None if interval is None else interval / _LOOKS_PER_INTERVAL
        self._waiting: set[Waiting] = set()
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def add(self, waiting: Waiting) -> None:
        if self._seconds is None:
            return
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
                # An error must not stop the heartbeats of the others.
                self.log.failure("a heartbeat failed")
