"""The turns of Twisted's reactor: from each end of its wait for events to the next wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore

from gemproxy.util.log import make_logger
from gemproxy.util.turns import Turns, Watchdog


class _TurningPoller:
    """
    Takes the place of a reactor's poller, C{select.epoll} or C{select.poll}. It measures the turns,
    and hands each event to the reactor's own method itself.

    Twisted does so in a log context of its own for each event, from which messages of its old log
    take a prefix. That is a sixth of the CPU of a chunk (docs/performance.md).

    @ivar register: see C{select.epoll}; likewise modify and unregister.
    """

    log = make_logger()

    def __init__(self, reactor: Any, turns: Turns) -> None:
        poller = reactor._poller
        self.register, self.modify = poller.register, poller.modify
        self.unregister = poller.unregister
        self._poll: Callable[..., Iterable[tuple[int, int]]] = poller.poll
        self._begin, self._end = turns.begin, turns.end
        self._selectables = reactor._selectables
        self._read_or_write = reactor._doReadOrWrite

    def poll(self, *args: Any) -> tuple[()]:
        """Wait for events, and have them processed. No event is left to the caller."""
        self._end()
        events = self._poll(*args)
        self._begin()
        for fd, event in events:
            # An event before it may have removed it.
            selectable = self._selectables.get(fd)
            if selectable is not None:
                try:
                    self._read_or_write(selectable, fd, event)
                except Exception:
                    self.log.failure("an event was not processed")
        return ()


class TurnService(Service):
    """
    Measures the turns of a reactor, while it runs. There is nothing to measure in a reactor that
    has no poller, such as asyncio's.

    @ivar can_measure: whether the reactor has one.
    """

    def __init__(self, reactor: IReactorCore, turns: Turns) -> None:
        self._reactor: Any = reactor
        self._turns = turns
        self._watchdog: Watchdog | None = None
        self._undo: Callable[[], None] = lambda: None
        self.can_measure = hasattr(reactor, "_poller")

    def startService(self) -> None:
        super().startService()
        if not self.can_measure:
            return
        before = self._reactor._poller
        turning = self._reactor._poller = _TurningPoller(self._reactor, self._turns)

        def undo() -> None:
            # Unless somebody else has taken the place since.
            if self._reactor._poller is turning:
                self._reactor._poller = before

        self._undo = undo
        self._watchdog = Watchdog(self._turns)
        self._watchdog.start()

    def stopService(self) -> None:
        super().stopService()
        self._undo()
        if self._watchdog is not None:
            self._watchdog.stop()
