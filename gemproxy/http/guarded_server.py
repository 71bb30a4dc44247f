"""
An HTTP/1.1 server for requests that are small or refused, such as those of a process of our own.

It looks at the head of a request before it takes the body. Requests are parsed by llhttp, the
parser of Node.js, and a response of one piece is one write, which takes a third of the CPU time of
twisted.web's server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from gemproxy.util.log import make_logger

Guard = Callable[[bytes, bytes], bool]
"""Whether requests with this method and target are taken."""

# Seconds for which a client may keep a connection without a request, as it is told. The client
# of Node.js would otherwise close it after 4, and open another one for the next request.
_KEPT = 60
# Seconds for a request to arrive, and for the next one to begin.
_PATIENCE = 90.0
_HEAD_LIMIT = 64 * 1024

_TOO_LARGE = b"413 Content Too Large"


@frozen
class Request:
    """@ivar headers: their names in small letters."""

    headers: dict[bytes, bytes]
    body: bytes = field(repr=False)


@frozen
class Response:
    """@ivar status: such as C{404 Not Found}."""

    status: bytes
    media_type: bytes
    body: bytes = field(repr=False)

    def encode(self) -> bytes:
        return (
            b"HTTP/1.1 %b\r\nContent-Type: %b\r\nKeep-Alive: timeout=%d\r\n"
            b"Content-Length: %d\r\n\r\n%b"
        ) % (self.status, self.media_type, _KEPT, len(self.body), self.body)


@define(eq=False)
class GuardedFactory(Factory):
    """
    @ivar serve: answers a request that was received whole, at once.
    @ivar body_limit: bytes of a request's body at most.
    """

    noisy = False

    guard: Guard
    serve: Callable[[Request], Response]
    body_limit: int
    clock: Any

    def buildProtocol(self, addr: object) -> _Channel:
        return _Channel(self)


class _Channel(Protocol, TimeoutMixin):
    """A client's connection. It carries one request at a time."""

    log = make_logger()
    transport: Any

    def __init__(self, factory: GuardedFactory) -> None:
        self._factory = factory
        # None from when no more is read.
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        # Bytes of the head so far, or once there is one, of the body and whatever follows it.
        self._size = 0
        self._has_head = False
        self._is_whole = False

    def callLater(self, delay: float, function: Callable[[], None]) -> Any:
        return self._factory.clock.callLater(delay, function)

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.setTimeout(_PATIENCE)

    def dataReceived(self, data: bytes) -> None:
        if self._parser is None:
            return
        self.resetTimeout()
        pieces = len(self._pieces)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._hang_up(b"400 Bad Request")
        if len(self._pieces) == pieces:
            self._size += len(data)
        if self._has_head and self._size > self._factory.body_limit:
            self._hang_up(_TOO_LARGE)
        elif not self._has_head and self._size > _HEAD_LIMIT:
            self._hang_up(b"431 Request Header Fields Too Large")
        if self._is_whole and self._parser is not None:
            self._serve()

    def _serve(self) -> None:
        request = Request(self._headers, b"".join(self._pieces))
        self._pieces.clear()
        self._is_whole = False
        try:
            response = self._factory.serve(request)
        except Exception:
            self.log.failure("serving a request failed")
            self._hang_up(b"500 Internal Server Error")
            return
        self.transport.write(response.encode())
        if self._parser is None or not self._parser.should_keep_alive():
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)
        self._parser = None

    def _hang_up(self, status: bytes) -> None:
        """Close the connection, with an answer to what was not read."""
        if self._parser is None:
            return
        # Break the reference cycle.
        self._parser = None
        self.transport.write(
            b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
        )
        self.transport.loseConnection()

    # Called by llhttp:

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise ValueError("A request was sent before the last one was answered.")
        self._target, self._headers, self._has_head = b"", {}, False

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101 - for mypy
        self._size, self._has_head = 0, True
        if not self._factory.guard(self._parser.get_method(), self._target):
            self._hang_up(b"404 Not Found")
        elif int(self._headers.get(b"content-length", b"0")) > self._factory.body_limit:
            self._hang_up(_TOO_LARGE)

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)

    def on_message_complete(self) -> None:
        self._is_whole = True
