"""How many connections clients may have, and what those get that are too many."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from gemproxy.chat.errors import ChatError, overloaded
from gemproxy.http.headers import ALWAYS_SENT
from gemproxy.util.log import make_logger

_RETRY_AFTER = 5
# Seconds for which a refused client is listened to; those between two warnings.
_PATIENCE = 2.0
_WARN_EVERY = 60.0


def soft_limit() -> int:
    """How many file descriptors this process may have (C{ulimit -n})."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if limit == resource.RLIM_INFINITY else limit


def reserve(limit: int) -> int:
    """
    How many of so many descriptors are not for clients, but for what serves them: connections to
    upstreams, processes, files.
    """
    return max(16, min(256, limit // 8))


def descriptors_are_short() -> bool:
    """Whether few descriptors are left, as far as one number tells: the lowest that is free."""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return True
    os.close(lowest)
    limit = soft_limit()
    return lowest >= limit - reserve(limit)


class ConnectionLimiter:
    """
    Decides which connections are accepted, for all ports of a daemon together.

    Twisted's C{LimitTotalConnectionsFactory} and its like close what is too many without a word,
    and put a layer around each transport.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        total: int | None,
        per_client: int | None,
        is_proxy: Callable[[str], bool],
        refused: Callable[[str], None],
        are_short: Callable[[], bool] = descriptors_are_short,
        changed: Callable[[int], None] = lambda number: None,
    ) -> None:
        """
        @param total: open connections at most; None for any number.
        @param per_client: those of one address at most; likewise.
        @param is_proxy: whether many clients come from an address.
        @param refused: told the limit that each refused connection exceeds.
        @param are_short: whether the process runs out of file descriptors.
        @param changed: told how many connections are open, whenever that changes.
        """
        self._clock = clock
        self._total = total
        self._per_client = per_client
        self._is_proxy = is_proxy
        self._refused = refused
        self._are_short = are_short
        self._changed = changed
        self._open = 0
        self._clients: Counter[str] = Counter()
        self._warned: float | None = None

    def refusal(self, address: str) -> ChatError | None:
        """
        Why a further connection is refused; None if it is accepted.

        @param address: the client's; empty if it has none, as at a UNIX socket.
        """
        if self._total is not None and self._open >= self._total:
            return self._refuse(
                "total",
                overloaded(
                    f"{self._total} connections are open, which is the limit (MAX_CONNECTIONS).",
                    _RETRY_AFTER,
                ),
            )
        limit = self._per_client
        if (
            limit is not None
            and address
            and self._clients[address] >= limit
            and not self._is_proxy(address)
        ):
            return self._refuse(
                "client",
                ChatError(
                    429,
                    "rate_limit_error",
                    f"{limit} connections from this address are open, which is the limit "
                    "(CLIENT_CONNECTIONS).",
                    "too_many_connections",
                    retry_after=_RETRY_AFTER,
                ),
            )
        return self.without_descriptor() if self._are_short() else None

    def without_descriptor(self) -> ChatError:
        """What a client gets that there is no file descriptor for."""
        return self._refuse(
            "descriptors",
            overloaded(
                "The daemon has no file descriptors left for further connections (ulimit -n).",
                _RETRY_AFTER,
            ),
        )

    def opened(self, address: str) -> None:
        self._open += 1
        self._clients[address] += 1
        self._changed(self._open)

    def closed(self, address: str) -> None:
        self._open -= 1
        self._clients[address] -= 1
        if not self._clients[address]:
            del self._clients[address]
        self._changed(self._open)

    def _refuse(self, limit: str, error: ChatError) -> ChatError:
        self._refused(limit)
        now = self._clock.seconds()
        if self._warned is None or now - self._warned >= _WARN_EVERY:
            self._warned = now
            self.log.warn("connections are refused: {error}", error=error.message)
        return error


class RefusedConnections:
    """
    Those that are listened to for a moment, since most clients read an answer only when they have
    sent a request. If there are too many, the oldest one is not listened to any longer.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # In the order in which they came.
        self._open: dict[RefusedConnection, None] = {}

    def protocol(self, error: ChatError) -> RefusedConnection:
        """@param error: what the client gets."""
        return RefusedConnection(self._clock, response_of(error), self)

    def opened(self, connection: RefusedConnection) -> None:
        if len(self._open) >= reserve(soft_limit()) // 2:
            next(iter(self._open)).end()
        self._open[connection] = None

    def closed(self, connection: RefusedConnection) -> None:
        self._open.pop(connection, None)

    def close(self) -> None:
        """End all of them."""
        for connection in list(self._open):
            connection.end()


class RefusedConnection(Protocol):
    """Answers whatever comes first with an error."""

    transport: Any

    def __init__(self, clock: IReactorTime, answer: bytes, others: RefusedConnections) -> None:
        self._clock = clock
        self._answer = answer
        self._others = others
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._deadline = self._clock.callLater(_PATIENCE, self._expire)
        self._others.opened(self)

    def dataReceived(self, data: bytes) -> None:
        # What follows is read and discarded: closing would reset the connection of a client that
        # is still sending, and it might never see the answer.
        if self._send() and not isinstance(self.transport, ProtocolWrapper):
            self.transport.loseWriteConnection()

    def end(self) -> None:
        """Answer it if that has not been done, and close it."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._expire()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._others.closed(self)

    def _expire(self) -> None:
        self._deadline = None
        self._others.closed(self)
        self._send()
        self.transport.loseConnection()

    def _send(self) -> bool:
        """Returns whether there was anything left to send."""
        answer, self._answer = self._answer, b""
        self.transport.write(answer)
        return bool(answer)


def response_of(error: ChatError) -> bytes:
    """A whole response, after which the connection is closed."""
    content_type, body = error.body()
    lines = [
        b"HTTP/1.1 %d %b" % (error.status, error.reason()),
        b"Content-Type: " + content_type,
        b"Content-Length: %d" % len(body),
        *(f"{name}: {value}".encode() for name, value in error.headers().items()),
        *(name + b": " + value for name, value in ALWAYS_SENT),
        b"Connection: close",
    ]
    return b"\r\n".join([*lines, b"", body])
