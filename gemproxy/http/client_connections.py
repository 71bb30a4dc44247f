"""The connections of the clients, and their shutdown without loss of data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from gemproxy.http.liveness import Probes, limit_unacknowledged, probe

# Seconds after which a connection is closed if the client does not respond or accept data.
STALLED = 600
_PROBES = Probes(60)


class ClientChannel(HTTPChannel):
    """
    A client's connection, registered with its site.

    @ivar site: the site, with its L{Connections}.
    """

    transport: Any
    site: Any
    _receive: Callable[[bytes], None] | None = None

    def dataReceived(self, data: bytes) -> None:
        if self._receive is None:
            super().dataReceived(data)
        else:
            self._receive(data)

    def take_over(self, receive: Callable[[bytes], None]) -> None:
        """
        Give all that comes from the client from now on to somebody else. What came after the
        request, which the channel keeps for when it is answered, comes first.
        """
        early, self._dataBuffer = b"".join(self._dataBuffer), []
        self._receive = receive
        # The channel has paused it if that was much.
        self.transport.resumeProducing()
        if early:
            receive(early)

    @property
    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """The method, target and version of the current request."""
        return self._command, self._path, self._version

    def connectionMade(self) -> None:
        super().connectionMade()
        probe(self.transport, _PROBES)
        limit_unacknowledged(self.transport, STALLED)
        self.site.connections.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.site.connections.closed(self)


class Connections:
    """
    The connections of a site.

    @ivar open: the open connections.
    """

    def __init__(self) -> None:
        self.open: set[ClientChannel] = set()
        self._ended: list[Deferred[None]] = []

    def close(self) -> Deferred[None]:
        """
        Close all connections after their written data is sent; fires when all are closed.
        """
        for channel in list(self.open):
            # Otherwise the transport would wait for a producer that writes no more data.
            channel.transport.unregisterProducer()
            channel.transport.loseConnection()
        return self._when_ended()

    def abort(self) -> Deferred[None]:
        """Close all connections at once; fires when all are closed."""
        for channel in list(self.open):
            channel.transport.abortConnection()
        return self._when_ended()

    def _when_ended(self) -> Deferred[None]:
        if not self.open:
            return succeed(None)
        ended: Deferred[None] = Deferred(self._ended.remove)
        self._ended.append(ended)
        return ended

    def opened(self, channel: ClientChannel) -> None:
        self.open.add(channel)

    def closed(self, channel: ClientChannel) -> None:
        self.open.discard(channel)
        if not self.open:
            ended, self._ended = self._ended, []
            for waiting in ended:
                waiting.callback(None)
