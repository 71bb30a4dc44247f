"""A TCP transport that sends at once, which saves CPU time for streams of small pieces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen
from twisted.internet import tcp
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from gemproxy.http.write_coalescer import WriteCoalescer

# Large enough for a burst of clients.
_BACKLOG = 1024


class PromptServer(tcp.Server):
    """
    Writes data to the socket at once if no data is queued. Twisted's transport first waits for the
    reactor to report the socket as writable, which it nearly always is. That saves 15 % of the CPU
    of a chunk, and half of the latency that gemproxy adds to it (docs/performance.md). The class
    stands on C{tcp.Server}, whose C{writeSomeData} and flags are what its own C{write} uses.

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
            sent = self.writeSomeData(data)
            # An error occurs again when the reactor writes, and is handled there.
            if isinstance(sent, int) and sent > 0:
                data = data[sent:]
            if data:
                super().write(data)


class PromptPort(tcp.Port):
    """@ivar coalescer: tracks the reads of the connections to upstreams."""

    transport = PromptServer
    coalescer: WriteCoalescer


@frozen
@implementer(IStreamServerEndpoint)
class PromptEndpoint:
    """Listens with L{PromptServer} transports."""

    reactor: Any
    port: int
    interface: str
    coalescer: WriteCoalescer

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        port = PromptPort(self.port, factory, _BACKLOG, self.interface, self.reactor)
        port.coalescer = self.coalescer
        port.startListening()
        return port
