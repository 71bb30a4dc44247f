"""A TCP transport that sends at once, which saves streams of small pieces much of their cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen
from twisted.internet import tcp
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from gemproxy.http.write_coalescer import WriteCoalescer

# A burst of clients is not to wait until its connections are taken one by one.
_BACKLOG = 1024


class PromptServer(tcp.Server):
    """
    Where nothing waits to be sent, what is written goes to the socket straight away. Twisted's own
    has the reactor tell it first, in its next turn, that the socket takes data, which it nearly
    always does.

    What is written because of one read of an upstream's connection goes out together.
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
            # Whatever is wrong shows again when the reactor tries, who knows what to do.
            if isinstance(sent, int) and sent > 0:
                data = data[sent:]
            if data:
                super().write(data)


class PromptPort(tcp.Port):
    """@ivar coalescer: of the upstreams' connections."""

    transport = PromptServer
    coalescer: WriteCoalescer


@frozen
@implementer(IStreamServerEndpoint)
class PromptEndpoint:
    """Listens with such transports."""

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
