"""The connections of the clients, and how they are ended without losing what is on its way."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.server import Site

# Seconds for which a client may be gone, or not take what is sent to it, until the connection is
# given up.
STALLED = 600
_PROBES_AFTER = 60


class Connections(WrappingFactory[ProtocolWrapper]):
    """Serves a site and knows who is connected to it."""

    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._ended: list[Deferred[None]] = []

    def close(self) -> Deferred[None]:
        """
        Close all connections as soon as what was written to them is sent; fires when the last one
        is gone.
        """
        for connection in list(self.protocols):
            # Otherwise the end is waited for by a producer that has nothing more to say.
            connection.unregisterProducer()
            connection.loseConnection()
        return self._when_ended()

    def abort(self) -> Deferred[None]:
        """The same without waiting for anything to be sent."""
        for connection in list(self.protocols):
            connection.abortConnection()
        return self._when_ended()

    def _when_ended(self) -> Deferred[None]:
        if not self.protocols:
            return succeed(None)
        ended: Deferred[None] = Deferred(self._ended.remove)
        self._ended.append(ended)
        return ended

    def registerProtocol(self, p: ProtocolWrapper) -> None:
        super().registerProtocol(p)
        _watch_over(p)

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        if not self.protocols:
            ended, self._ended = self._ended, []
            for waiting in ended:
                waiting.callback(None)


def _watch_over(connection: ProtocolWrapper) -> None:
    """Have the system notice when a client has gone without a word, or stands still."""
    transport: Any = connection.transport
    transport.setTcpKeepAlive(True)
    for name, value in (
        ("TCP_KEEPIDLE", _PROBES_AFTER),
        ("TCP_USER_TIMEOUT", STALLED * 1000),
    ):
        # Not every system has them.
        if (option := getattr(socket, name, None)) is not None:
            transport.getHandle().setsockopt(socket.IPPROTO_TCP, option, value)
