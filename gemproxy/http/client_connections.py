"""The connections of the clients, and their shutdown without loss of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.http_headers import Headers

from gemproxy.chat.errors import bad_request
from gemproxy.http.connection_limits import ConnectionLimiter, response_of
from gemproxy.http.headers import ALWAYS_SENT
from gemproxy.http.liveness import Probes, limit_unacknowledged, probe, tcp_of

# Seconds after which a connection is closed if the client does not respond or accept data.
STALLED = 600
_PROBES = Probes(60)


class ClientChannel(HTTPChannel):
    """
    A client's connection, registered with its site.

    Twisted answers pipelined requests in a single turn of the reactor, as many as came with one
    read, whether the client takes the answers or not. Here, one request is answered in a turn, and
    the next one is read when the client takes its answers. C{tests/test_twisted_internals.py} fails
    if what this stands on changes.

    @ivar site: the site, with its L{Connections}, its time for the heads of requests, and the
        throttle that has them begin one after the other.
    @ivar address: the client's; empty if it has none, as at a UNIX socket.
    @ivar asked: how many requests have come.
    @ivar is_folded: a header of the current request goes on in a second line.
    """

    transport: Any
    site: Any
    address = ""
    asked = 0
    is_folded = False
    _is_secure = False
    _receive: Callable[[bytes], None] | None = None
    _head_deadline: IDelayedCall | None = None
    _next_request: IDelayedCall | None = None
    _is_held = False
    _has_no_turn = False

    def connectionMade(self) -> None:
        super().connectionMade()
        tcp = tcp_of(self.transport)
        probe(tcp, _PROBES)
        limit_unacknowledged(tcp, STALLED)
        self._is_secure = bool(super().isSecure())
        self._begin_head()
        self._peer, self._host = self.transport.getPeer(), self.transport.getHost()
        self.address = host_of(self._peer)
        self.site.connections.opened(self)

    # What each request asks for, which takes a system call, new objects or an adapted transport:

    def getPeer(self) -> Any:
        return self._peer

    def getHost(self) -> Any:
        return self._host

    def isSecure(self) -> bool:
        return self._is_secure

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end_head()
        if self._next_request is not None:
            self._next_request.cancel()
            self._next_request = None
        # What waits to be parsed has nobody any more who wants an answer.
        self._buffer, self._has_no_turn = b"", False
        super().connectionLost(reason)
        self.site.connections.closed(self)

    def dataReceived(self, data: bytes) -> None:
        if self._receive is not None:
            self._receive(data)
            return
        if self._is_between_requests() and self.site.throttle.is_busy:
            # A request of a burst is not even parsed before those in front of it have begun.
            self.paused = self._has_no_turn = True
            self.site.throttle.spread(self.take_turn)
        super().dataReceived(data)
        if self.paused and len(self._buffer) > self._optimisticEagerReadSize:
            self._networkProducer.pauseProducing()
        if not (self.line_mode or self._handlingRequest) and self.requests:
            self.requests[-1].wait_for_body()
        elif self._head_deadline is None and self._is_within_head():
            self._begin_head()

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

    # The head of a request:

    @property
    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """The method, target and version of the current request."""
        return self._command, self._path, self._version

    def lineReceived(self, line: bytes) -> None:
        if line[:1] in (b" ", b"\t"):
            self.is_folded = True
        super().lineReceived(line)

    def allHeadersReceived(self) -> None:
        self._end_head()
        super().allHeadersReceived()
        self.is_folded = False

    def _is_within_head(self) -> bool:
        # While a body comes or a request is answered, the channel is not in line mode. While it is
        # paused, what is there waits for the daemon.
        return bool(self.line_mode and not self.paused and (self.requests or self._buffer))

    def _is_between_requests(self) -> bool:
        return bool(self.line_mode and not (self.paused or self.requests or self._buffer))

    def _begin_head(self) -> None:
        self._head_deadline = self.callLater(self.site.head_timeout, self._head_is_late)

    def _end_head(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _head_is_late(self) -> None:
        self._head_deadline = None
        self.timeoutConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted's own has no body, and would go into the middle of a response that has begun.
        if not any(request.startedWriting for request in self.requests):
            self.transport.write(response_of(bad_request("This is not valid HTTP/1.1.")))
        self.loseConnection()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        self.asked += 1
        if not self.site.connections.is_leaving:
            return bool(super().checkPersistence(request, version))
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    # Its answer:

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        for name, value in ALWAYS_SENT:
            headers.setRawHeaders(name, [value])
        super().writeHeaders(version, code, reason, headers)

    def requestDone(self, request: Any) -> None:
        # What has come after the request is not parsed while this is set.
        self.paused = bool(self.persistent)
        super().requestDone(request)
        if not self.paused:
            return
        if self._buffer:
            self._go_on_later()
            return
        self.paused = False
        if self._waitingForTransport:
            self._networkProducer.pauseProducing()

    def take_turn(self) -> None:
        """Parse what has come, if it was not its turn yet."""
        if self._has_no_turn:
            self._has_no_turn = False
            self._go_on()

    def _go_on_later(self) -> None:
        self._networkProducer.pauseProducing()
        if self._next_request is None:
            self._next_request = self.callLater(0, self._go_on)

    def _go_on(self) -> None:
        """Read the next request, unless the client leaves its answers where they are."""
        self._next_request = None
        if not self._waitingForTransport:
            self.paused = False
            self._networkProducer.resumeProducing()
            self.dataReceived(b"")

    def rawDataReceived(self, data: bytes) -> None:
        super().rawDataReceived(data)
        if self._handlingRequest and self._waitingForTransport:
            self._is_held = True
            self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        was_held, self._is_held = self._is_held, False
        if self.paused:
            self._go_on_later()
        elif was_held and self._handlingRequest and self._has_room():
            # Nobody would notice that a paused client goes.
            self._networkProducer.resumeProducing()

    def _has_room(self) -> bool:
        return sum(map(len, self._dataBuffer)) <= self._optimisticEagerReadSize


def host_of(address: object) -> str:
    """The IP address in a Twisted address; empty if there is none, as for a UNIX socket."""
    return str(getattr(address, "host", ""))


class Connections:
    """
    The connections of a site.

    @ivar open: the open connections.
    @ivar limiter: counts those of all sites together.
    @ivar is_leaving: whether answers that begin are the last ones of their connections, and say so.
    """

    is_leaving = False

    def __init__(self, limiter: ConnectionLimiter) -> None:
        self.open: set[ClientChannel] = set()
        self.limiter = limiter
        self._ended: list[Deferred[None]] = []

    def idle(self) -> dict[ClientChannel, int]:
        """Those at which nothing is asked, with how much was."""
        return {channel: channel.asked for channel in self.open if not channel.requests}

    def close_idle(self, were: Mapping[ClientChannel, int]) -> None:
        """@param were: what L{idle} said; those that have been so since then are closed."""
        for channel, asked in self.idle().items():
            if were.get(channel) == asked:
                channel.transport.loseConnection()

    def take_in(self) -> None:
        """Have all that has come parsed now, though others are in front of it."""
        for channel in list(self.open):
            channel.take_turn()

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
        self.limiter.opened(channel.address)

    def closed(self, channel: ClientChannel) -> None:
        self.open.discard(channel)
        self.limiter.closed(channel.address)
        if not self.open:
            ended, self._ended = self._ended, []
            for waiting in ended:
                waiting.callback(None)
