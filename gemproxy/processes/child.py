"""The program of one of several processes: a daemon that does what its parent says."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.internet.interfaces import IReactorTime, IReadDescriptor
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.scripts import twistd
from zope.interface import implementer

from gemproxy.processes.process import COMMANDS, HURRY, LEAVE, STATUS, STOP
from gemproxy.util.log import make_logger

# Seconds that a process has to end when its parent is gone, before the system ends it.
_LAST_MOMENTS = 30
_AT_ONCE = 4096
# Seconds between two looks.
_LOOKS = 0.1


def when(clock: IReactorTime, condition: Callable[[], bool], seconds: float) -> Deferred[None]:
    """
    Fires as soon as a condition holds.

    @param seconds: after which it fires all the same.
    """
    fired: Deferred[None] = Deferred()
    end = clock.seconds() + seconds

    def look() -> None:
        if condition() or clock.seconds() >= end:
            looks.stop()
            fired.callback(None)

    looks = LoopingCall(look)
    looks.clock = clock
    looks.start(_LOOKS)
    return fired


class Parent:
    """
    Told how the daemon is, as a service manager is.

    @ivar watchdog: see L{gemproxy.util.service_manager.ServiceManager}.
    """

    def __init__(self, watchdog: float | None = None) -> None:
        self.watchdog = watchdog

    def tell(self, *assignments: str) -> None:
        """@param assignments: such as C{READY=1}."""
        with suppress(OSError):
            os.write(STATUS, "".join(f"{one}\n" for one in assignments).encode())

    def give_reason(self, text: str) -> None:
        """@param text: why the daemon does not start."""
        self.tell(f"STATUS={' '.join(text.split())}")


@implementer(IReadDescriptor)
class Commands(Service):
    """
    What the parent says, also while the daemon ends. The end of the pipe is that of the parent:
    nobody else would end the daemon.
    """

    log = make_logger()

    def __init__(
        self,
        reactor: Any,
        hurry: Callable[[], None],
        leave: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """
        @param hurry: has the daemon end without finishing what is under way.
        @param leave: has it leave its clients to others, before it ends.
        """
        self._reactor = reactor
        self._hurry = hurry
        self._leave = leave
        self._begun = b""

    def startService(self) -> None:
        super().startService()
        self._reactor.addReader(self)

    def fileno(self) -> int:
        return COMMANDS

    def logPrefix(self) -> str:
        return "parent"

    def doRead(self) -> Any:
        data = os.read(COMMANDS, _AT_ONCE)
        *words, self._begun = (self._begun + data).split(b"\n")
        for word in words:
            self._do(word)
        return None if data else ConnectionDone()

    def _stop(self) -> None:
        # It may be stopping already, by a signal to all processes.
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def connectionLost(self, reason: Failure) -> None:
        """Of another reason, it is the reactor that ends."""
        if not reason.check(ConnectionDone):
            return
        # Even if it hangs.
        signal.alarm(_LAST_MOMENTS)
        self.log.warn("the parent process is gone: this one ends, too")
        self._do(STOP)
        self._do(HURRY)

    def _do(self, word: bytes) -> None:
        if word == STOP:
            self._stop()
        elif word == LEAVE:
            leaving = Deferred.fromCoroutine(self._leave())
            leaving.addErrback(lambda failure: self.log.failure("it leaves at once", failure))
            leaving.addCallback(lambda _: self._stop())
        elif word == HURRY:
            self._hurry()


def main() -> None:
    # What is typed at a terminal is for the parent.
    os.setsid()
    os.set_inheritable(STATUS, False)
    # A parent that does not read must not stop the reactor.
    os.set_blocking(STATUS, False)
    try:
        twistd.run()
    except SystemExit as end:
        if isinstance(end.code, str):
            Parent().give_reason(end.code.removeprefix("gemproxy: "))
            sys.exit(1)
        raise


if __name__ == "__main__":
    main()
