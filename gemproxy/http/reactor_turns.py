"""The turns of Twisted's reactor: from each end of its wait for events to the next wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore

from gemproxy.util.turns import Turns, Watchdog


class _WatchedPoller:
    """
    Takes the place of a reactor's poller, C{select.epoll} or C{select.poll}.

    @ivar register: see C{select.epoll}; likewise modify and unregister.
    """

    def __init__(self, poller: Any, turns: Turns) -> None:
        self.register, self.modify = poller.register, poller.modify
        self.unregister = poller.unregister
        self._poll: Callable[..., Any] = poller.poll
        self._begin, self._end = turns.begin, turns.end

    def poll(self, *args: Any) -> Any:
        self._end()
        events = self._poll(*args)
        self._begin()
        return events


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
        watched = self._reactor._poller = _WatchedPoller(before, self._turns)

        def undo() -> None:
            # Unless somebody else has taken the place since.
            if self._reactor._poller is watched:
                self._reactor._poller = before

        self._undo = undo
        self._watchdog = Watchdog(self._turns)
        self._watchdog.start()

    def stopService(self) -> None:
        super().stopService()
        self._undo()
        if self._watchdog is not None:
            self._watchdog.stop()
