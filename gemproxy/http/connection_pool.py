"""Keeps idle connections to upstreams for further requests."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from gemproxy.http.connection import Connection

# The maximum number of idle connections; the least recently used ones are closed.
IDLE_CONNECTIONS = 512
# Seconds for which an idle connection is kept. Routers and load balancers forget connections,
# some of them after little more than a minute.
IDLE_TIME = 60.0
# The shortest time between two checks.
_LOOK = 1.0


class ConnectionPool:
    """The idle connections of one origin."""

    def __init__(self, clock: IReactorTime, limit: int = IDLE_CONNECTIONS) -> None:
        """@param limit: the maximum number of connections."""
        self._limit = limit
        self._clock = clock
        # Maps each connection to the time since which it is idle; the oldest is first.
        self._idle: dict[Connection, float] = {}
        self._look_later: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None

    def acquire(self) -> Connection | None:
        """
        The most recently used connection, which the upstream is least likely to close; None if
        there is none.
        """
        while self._idle and self._closed is None:
            connection, _ = self._idle.popitem()
            if connection.is_open:
                return connection
        return None

    def release(self, connection: Connection) -> None:
        if self._closed is not None:
            connection.abort()
            return
        self._idle[connection] = self._clock.seconds()
        if len(self._idle) > self._limit:
            self._close_oldest()
        if self._look_later is None:
            self._look_later = self._clock.callLater(IDLE_TIME, self._look)

    def discard(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._say_if_closed()

    def close(self) -> Deferred[None]:
        """Close all connections and keep none from now on; fires when they are closed."""
        if self._look_later is not None:
            self._look_later.cancel()
            self._look_later = None
        closed: Deferred[None] = Deferred()
        self._closed = closed
        for connection in self._idle:
            connection.abort()
        self._say_if_closed()
        return closed

    def _look(self) -> None:
        self._look_later = None
        while self._idle:
            since = next(iter(self._idle.values()))
            left = since + IDLE_TIME - self._clock.seconds()
            if left > 0:
                self._look_later = self._clock.callLater(max(left, _LOOK), self._look)
                break
            self._close_oldest()

    def _close_oldest(self) -> None:
        oldest = next(iter(self._idle))
        del self._idle[oldest]
        oldest.close()

    def _say_if_closed(self) -> None:
        if self._closed is not None and not self._closed.called and not self._idle:
            self._closed.callback(None)
