"""Tells systemd how the daemon is, by the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall


class Manager(Protocol):
    """
    Starts and ends daemons.

    @ivar watchdog: seconds after which it ends a daemon that gives no sign of life; None for never.
    """

    @property
    def watchdog(self) -> float | None: ...

    def tell(self, *assignments: str) -> None:
        """@param assignments: such as C{READY=1}. Whether it gets them makes no difference."""


@frozen
class ServiceManager:
    """
    The one that has started this process, such as systemd.

    @ivar address: of its socket, with NUL in front of an abstract one; None if nobody listens.
    @ivar watchdog: see L{Manager}.
    """

    address: str | None = None
    watchdog: float | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> ServiceManager:
        """As C{NOTIFY_SOCKET}, C{WATCHDOG_USEC} and C{WATCHDOG_PID} say."""
        address = environ.get("NOTIFY_SOCKET")
        if not address:
            return cls()
        if address.startswith("@"):
            address = "\0" + address[1:]
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        seconds = int(microseconds) / 1e6 if is_ours and microseconds.isdecimal() else 0.0
        return cls(address, seconds or None)

    def tell(self, *assignments: str) -> None:
        """See L{Manager}."""
        if self.address is None:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            # A manager that does not read must not stop the reactor.
            sender.setblocking(False)
            sender.sendto("\n".join(assignments).encode(), self.address)


class ManagedService(Service):
    """Says that the daemon is ready, alive and stopping. It starts after what it speaks for."""

    def __init__(
        self, manager: Manager, clock: IReactorTime, ready: Deferred[None] | None = None
    ) -> None:
        """@param ready: fires when the daemon is ready; None if it is as soon as it has started."""
        self._manager = manager
        self._ready = ready
        self._alive = LoopingCall(manager.tell, "WATCHDOG=1")
        self._alive.clock = clock

    def startService(self) -> None:
        super().startService()
        if self._ready is None:
            self._say_ready()
        else:
            self._ready.addCallback(self._say_ready)
        if self._manager.watchdog is not None:
            self._alive.start(self._manager.watchdog / 2)

    def _say_ready(self, _: None = None) -> None:
        self._manager.tell("READY=1")

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        # The watchdog watches the end as well.
        self._manager.tell("STOPPING=1")
        return None
