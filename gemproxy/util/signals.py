"""What signals mean to a daemon."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFromThreads


class Signals(Service):
    """
    The first SIGTERM or SIGINT stops the daemon, as Twisted has it. A second one ends the wait for
    requests under way. SIGHUP reads the configuration anew: a terminal that closes, or a log that
    is rotated, is no reason to end.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        hurry: Callable[[], None],
        reload: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._hurry = hurry
        self._reload = reload

    def startService(self) -> None:
        super().startService()
        signal.signal(signal.SIGHUP, self._anew)

    def _anew(self, *_: Any) -> None:
        self._reactor.callFromThread(self._reload)

    def stopService(self) -> None:
        super().stopService()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._again)

    def _again(self, *_: Any) -> None:
        self._reactor.callFromThread(self._hurry)
