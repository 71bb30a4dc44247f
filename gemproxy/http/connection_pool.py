"""Keeps idle connections to upstreams for further requests."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from gemproxy.http.connection import Connection

# The maximum number of idle connections; the least recently used ones are closed.
IDLE_CONNECTIONS = 512
# Seconds for which an idle connection is kept; also the interval of the checks.
IDLE_TIME = 240.0
_LOOK = 30.0


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
            self._look_later = self._clock.callLater(_LOOK, self._look)

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
        oldest = self._clock.seconds() - IDLE_TIME
        while self._idle and next(iter(self._idle.values())) <= oldest:
            self._close_oldest()
        if self._idle:
            self._look_later = self._clock.callLater(_LOOK, self._look)

    def _close_oldest(self) -> None:
        oldest = next(iter(self._idle))
        del self._idle[oldest]
        oldest.close()

    def _say_if_closed(self) -> None:
        if self._closed is not None and not self._closed.called and not self._idle:
            self._closed.callback(None)
