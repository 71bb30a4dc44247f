"""A TCP transport that sends at once, which saves CPU time for streams of small pieces."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet import tcp
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from gemproxy.http.write_coalescer import WriteCoalescer

# Large enough for a burst of clients.
_BACKLOG = 1024
_Port = TypeVar("_Port", bound="PromptPort")
# Bytes of a request that is not read.
_AT_ONCE = 65536


class PromptServer(tcp.Server):
    """
    Writes data to the socket at once if no data is queued. Twisted's transport first waits for the
    reactor to report the socket as writable, which it nearly always is. That saves 15 % of the CPU
    of a chunk, and half of the latency that gemproxy adds to it (docs/performance.md). The class
    stands on C{tcp.Server}, whose C{socket} and flags are what its own C{write} uses.

    All data written because of one read from an upstream is sent together.
    """

    server: PromptPort

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._waits = False
        self._pieces: list[bytes] = []
        super().__init__(*args, **kwargs)

    def startWriting(self) -> None:
        self._waits = True
        super().startWriting()

    def stopWriting(self) -> None:
        self._waits = False
        super().stopWriting()

    def write(self, data: bytes) -> None:
        if self._waits or self.TLS or self.disconnecting or not self.connected:
            super().write(data)
        elif self._pieces:
            self._pieces.append(data)
        elif data:
            self._pieces.append(data)
            self.server.coalescer.after_read(self._send)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def loseConnection(self, *args: Any) -> None:
        self._send()
        super().loseConnection(*args)

    def _send(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        if data and self.connected and not self.disconnecting:
            try:
                sent = self.socket.send(data)
            except OSError:
                # An error occurs again when the reactor writes, and is handled there.
                sent = 0
            if sent < len(data):
                super().write(data[sent:])


class _ListeningSocket(socket.socket):
    """
    Answers clients for whom there is no file descriptor. Twisted closes their connections without
    a word, or leaves them waiting if another thread has taken the descriptor that it keeps for
    that.
    """

    def __init__(self, other: socket.socket, answer: Callable[[], bytes]) -> None:
        """
        @param other: the socket that this one is to be.
        @param answer: makes what such a client gets.
        """
        super().__init__(other.family, other.type, other.proto, other.detach())
        self.setblocking(False)
        self._answer = answer
        self._spare = _spare()

    def close(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        super().close()

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or self._spare is None:
                raise
        os.close(self._spare)
        try:
            for _ in range(_BACKLOG):
                client = super().accept()[0]
                with client, suppress(OSError):
                    client.setblocking(False)
                    client.send(self._answer())
                    client.shutdown(socket.SHUT_WR)
                    # What is unread when it is closed would reset the connection.
                    client.recv(_AT_ONCE)
        finally:
            self._spare = _spare()
        raise BlockingIOError(errno.EAGAIN, "who waited was answered")


def _spare() -> int | None:
    """A descriptor to be given up when there is no other; None if there is none already."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None


class PromptPort(tcp.Port):
    """
    @ivar coalescer: tracks the reads of the connections to upstreams.
    @ivar overflow: makes what a client gets that there is no file descriptor for; None to leave
        that to Twisted.
    """

    transport = PromptServer
    coalescer: WriteCoalescer
    overflow: Callable[[], bytes] | None = None

    def createInternetSocket(self) -> socket.socket:
        return self.guarded(super().createInternetSocket())

    def guarded(self, made: socket.socket) -> socket.socket:
        """A listening socket that has an answer for whom there is no file descriptor."""
        return made if self.overflow is None else _ListeningSocket(made, self.overflow)


@frozen
@implementer(IStreamServerEndpoint)
class PromptEndpoint:
    """Listens with L{PromptServer} transports."""

    reactor: Any
    port: int
    interface: str
    coalescer: WriteCoalescer
    overflow: Callable[[], bytes] | None = None

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        port = PromptPort(self.port, factory, _BACKLOG, self.interface, self.reactor)
        port.coalescer = self.coalescer
        port.overflow = self.overflow
        port.startListening()
        return port


@frozen
@implementer(IStreamServerEndpoint)
class AdoptedEndpoint:
    """
    The same with a socket that was made by another process, such as systemd.

    @ivar descriptor: of a listening TCP socket; it becomes the port's own.
    """

    reactor: Any
    descriptor: int
    coalescer: WriteCoalescer
    overflow: Callable[[], bytes] | None = None

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        made = adopted(self.descriptor)
        port = port_at(PromptPort, made, factory, self.reactor, self.coalescer, self.overflow)
        port.startListening()
        return port


def adopted(descriptor: int) -> socket.socket:
    """A socket that another process has made, of which this one's children know nothing."""
    made = socket.socket(fileno=descriptor)
    made.setblocking(False)
    os.set_inheritable(descriptor, False)
    return made


def port_at(
    kind: type[_Port],
    made: socket.socket,
    factory: IProtocolFactory,
    reactor: Any,
    coalescer: WriteCoalescer,
    overflow: Callable[[], bytes] | None,
) -> _Port:
    """
    A port at a socket that is listening already; it does not accept yet.

    @param overflow: see L{PromptPort}.
    """
    host, number = made.getsockname()[:2]
    port = kind(number, factory, _BACKLOG, host, reactor)
    port.coalescer = coalescer
    port.overflow = overflow
    # What reactor.adoptStreamPort sets, which makes a port of Twisted's own class.
    port._preexistingSocket = port.guarded(made)
    return port
