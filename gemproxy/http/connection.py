"""A connection to an upstream, and its responses."""

from __future__ import annotations

from enum import Enum
from typing import Any, cast
from typing import Protocol as TypedProtocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer, ITCPTransport, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer

from gemproxy.http.header_map import HeaderMap
from gemproxy.http.liveness import Probes, limit_unacknowledged, probe, tcp_of
from gemproxy.http.request_writer import BodySender, send_at_once
from gemproxy.http.response_parser import Head, ResponseParser
from gemproxy.http.write_coalescer import WriteCoalescer

# Seconds for which a used connection may leave a request unacknowledged. It has not arrived then:
# the connection was dropped without a word while it was idle, as routers do.
UNACKNOWLEDGED = 20.0
_PROBES = Probes(10, 10, 3)
_RESPONSE_DONE = Failure(ResponseDone())


class BadResponse(Exception):
    """An upstream sent an invalid HTTP response; the message contains the reason."""


@implementer(IResponse)
class Response:
    """@ivar request: always None."""

    __slots__ = (
        "_body",
        "code",
        "headers",
        "length",
        "phrase",
        "previousResponse",
        "version",
    )
    request = None

    def __init__(self, head: Head, body: Body) -> None:
        major, _, minor = head.version.partition(".")
        self.version = (b"HTTP", int(major), int(minor))
        self.code = head.code
        self.phrase = head.phrase
        self.headers = HeaderMap.of(head.headers)
        self.length: Any = UNKNOWN_LENGTH if head.length is None else head.length
        self.previousResponse: IResponse | None = None
        self._body = body

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response

    def deliverBody(self, protocol: IProtocol) -> None:
        self._body.deliver(protocol)


@implementer(IPushProducer)
class Body:
    """
    The body of a response being received; also the transport of its reader. At the end of the body
    it detaches from the connection, which may then be used for another exchange.
    """

    __slots__ = ("_connection", "_held", "_is_stopped", "_protocol", "_reason", "_waits")
    # Read by line-based protocols.
    disconnecting = False

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._protocol: IProtocol | None = None
        self._held = b""
        self._reason: Failure | None = None
        self._waits = False
        self._is_stopped = False

    @property
    def is_over(self) -> bool:
        """Whether what its reader has, or gets now, is the last of it."""
        return self._connection is None

    def deliver(self, protocol: IProtocol) -> None:
        if self._protocol is not None:
            raise RuntimeError("The body is already being delivered.")
        self._protocol = protocol
        protocol.makeConnection(cast("ITransport", self))
        held, self._held = self._held, b""
        if held:
            protocol.dataReceived(held)
        if self._reason is not None:
            protocol.connectionLost(self._reason)
        elif self._waits:
            self.resumeProducing()

    # Called by the connection:

    def received(self, data: bytes) -> None:
        """Process received data. The connection is paused until there is a reader."""
        if self._protocol is None:
            self._held += data
            self.pauseProducing()
            self._waits = True
        elif data and not self._is_stopped:
            self._protocol.dataReceived(data)

    def ended(self, reason: Failure, piece: bytes = b"") -> None:
        """
        Process the end of the body.

        @param piece: the last data of the body.
        """
        # Detach first: otherwise a reader that pauses now would pause the next exchange.
        self._connection = None
        try:
            if piece:
                self.received(piece)
        finally:
            self._reason = reason
            if self._protocol is not None:
                self._protocol.connectionLost(reason)

    # Called by the reader, as on any transport:

    def pauseProducing(self) -> None:
        self._waits = False
        if self._connection is not None:
            self._connection.pause()

    def resumeProducing(self) -> None:
        self._waits = False
        if self._connection is not None:
            self._connection.resume()

    def stopProducing(self) -> None:
        self._is_stopped = True
        if self._connection is not None:
            self._connection.abort()

    loseConnection = abortConnection = stopProducing


class Tunnel(Body):
    """The same after the connection has switched to another protocol: it is written to as well."""

    __slots__ = ()

    def write(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.transport.write(data)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Have what is written come from a producer, which is paused while it is not taken."""
        if self._connection is not None:
            self._connection.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self._connection is not None:
            self._connection.transport.unregisterProducer()

    def loseConnection(self) -> None:
        """Close the connection after all written data is sent."""
        if self._connection is not None:
            self._connection.resume()
            self._connection.close()


class IConnectionPool(TypedProtocol):
    """Keeps connections between exchanges."""

    def release(self, connection: Connection) -> None:
        """Take back a connection that can be used for another exchange."""

    def discard(self, connection: Connection) -> None:
        """Remove a closed connection, if it is in the pool."""


class ConnectionState(Enum):
    """
    @cvar CONNECTING: it has not been opened yet.
    @cvar IDLE: it can carry a request.
    @cvar BUSY: it carries one.
    @cvar CLOSED: it is closed, or about to be.
    """

    CONNECTING = "connecting"
    IDLE = "idle"
    BUSY = "busy"
    CLOSED = "closed"


class Connection(Protocol):
    """
    Carries one exchange at a time.

    @ivar state: what it can be used for.
    """

    transport: Any

    def __init__(
        self,
        coalescer: WriteCoalescer,
        pool: IConnectionPool,
        unacknowledged: float = UNACKNOWLEDGED,
    ) -> None:
        """
        @param unacknowledged: seconds for which a request on a used connection may be.
        """
        self.state = ConnectionState.CONNECTING
        self._coalescer = coalescer
        self._pool = pool
        self._unacknowledged = unacknowledged
        self._tcp: Any | None = None
        self._is_used = False
        self._is_in_doubt = False
        self._parser: ResponseParser | None = None
        self._sender: BodySender | None = None
        self._asked: Deferred[IResponse] | None = None
        self._body: Body | None = None
        self._is_paused = False

    @property
    def is_open(self) -> bool:
        return self.state in (ConnectionState.IDLE, ConnectionState.BUSY)

    def connectionMade(self) -> None:
        self.state = ConnectionState.IDLE
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self._tcp = tcp_of(self.transport)
            probe(self._tcp, _PROBES)

    def ask(
        self, method: bytes, head: bytes, body: IBodyProducer | None, may_switch: bool = False
    ) -> Deferred[IResponse]:
        """
        Send a request; fires with the response. Cancelling closes the connection.

        @param head: the request line, the headers and the blank line.
        @param may_switch: the request asks for another protocol. If the response has the status
            101, the transport of its body is a L{Tunnel}.
        """
        asked = self._asked = Deferred(self._cancelled)
        self.state = ConnectionState.BUSY
        self._parser = ResponseParser(method, may_switch)
        if self._is_used:
            self._is_in_doubt = True
            limit_unacknowledged(self._tcp, self._unacknowledged)
        self._is_used = True
        if body is None:
            send_at_once(self.transport, head)
        else:
            self._sender = BodySender(self.transport, head, body)
            self._sender.start(self._sent)
        return asked

    def close(self) -> None:
        """Close the connection after all written data is sent."""
        self.state = ConnectionState.CLOSED
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once."""
        self.state = ConnectionState.CLOSED
        self.transport.abortConnection()

    def pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.transport.pauseProducing()

    def resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self.transport.resumeProducing()

    # Request events:

    def _sent(self, failure: Failure | None) -> None:
        self._sender = None
        if failure is not None:
            self._fail(failure, b"")

    def _cancelled(self, _: Deferred[IResponse]) -> None:
        self._clear()
        self.abort()

    # Response events:

    def dataReceived(self, data: bytes) -> None:
        if self.state is not ConnectionState.BUSY:
            # There is no request: the data must not be treated as the response to the next one.
            self.abort()
        else:
            self._coalescer.read(self._receive, data)

    def _receive(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None  # noqa: S101 - for mypy
        if self._is_in_doubt:
            # A server that is slow to take the rest of a large request is not lost.
            self._is_in_doubt = False
            limit_unacknowledged(self._tcp, 0)
        piece = parser.feed(data)
        if self._asked is not None and parser.head is not None:
            asked, self._asked = self._asked, None
            self._body = Tunnel(self) if parser.switched else Body(self)
            asked.callback(Response(parser.take_head(), self._body))
        if parser.error is not None:
            self._fail(Failure(BadResponse(parser.error)), piece)
        elif parser.done:
            self._finish(piece, parser.keep_alive)
        elif self._body is not None:
            self._body.received(piece)

    def _finish(self, piece: bytes, keep_alive: bool) -> None:
        is_whole = self._sender is None
        body = self._clear()
        assert body is not None  # noqa: S101 - for mypy
        if not is_whole:
            # The upstream responded before the end of the request.
            self.abort()
        elif keep_alive and self.is_open:
            self.resume()
            self._pool.release(self)
        else:
            self.close()
        body.ended(_RESPONSE_DONE, piece)

    def _fail(self, failure: Failure, piece: bytes) -> None:
        """@param piece: data of the body received before the failure."""
        asked, body = self._asked, self._clear()
        self.abort()
        if asked is not None:
            asked.errback(Failure(ResponseFailed([failure])))
        elif body is not None:
            body.ended(Failure(ResponseFailed([failure])), piece)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.state = ConnectionState.CLOSED
        parser, asked, body = self._parser, self._asked, self._clear()
        self._pool.discard(self)
        if parser is None:
            return
        if asked is not None:
            kind = ResponseFailed if parser.heard else ResponseNeverReceived
            asked.errback(Failure(kind([reason])))
        elif body is not None:
            lost = PotentialDataLoss() if parser.until_closed else ResponseFailed([reason])
            body.ended(Failure(lost))

    def _clear(self) -> Body | None:
        """Detach from the exchange; returns its body."""
        if self._parser is not None:
            self._parser.close()
        if self._sender is not None:
            self._sender.stop()
        body = self._body
        self._parser = self._sender = self._asked = self._body = None
        if self.state is ConnectionState.BUSY:
            self.state = ConnectionState.IDLE
        return body
