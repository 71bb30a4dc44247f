"""What signals mean while the daemon runs."""

from __future__ import annotations

import signal
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFromThreads

from gemproxy.service import Daemon


class Signals(Service):
    """
    The first SIGTERM or SIGINT stops the daemon, as Twisted has it; from then on another one ends
    the waiting for requests under way. SIGHUP means nothing: a terminal that goes away, or a log
    that is rotated, is no reason to end.
    """

    def __init__(self, reactor: IReactorFromThreads, daemon: Daemon) -> None:
        self._reactor = reactor
        self._daemon = daemon

    def startService(self) -> None:
        super().startService()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def stopService(self) -> None:
        super().stopService()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._again)

    def _again(self, *_: Any) -> None:
        self._reactor.callFromThread(self._daemon.hurry)
