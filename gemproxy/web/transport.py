"""A TCP transport that sends at once, which saves streams of small pieces much of their cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen
from twisted.internet import tcp
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

# A burst of clients is not to wait until its connections are taken one by one.
_BACKLOG = 1024


class PromptServer(tcp.Server):
    """
    Where nothing waits to be sent, what is written goes to the socket straight away. Twisted's own
    has the reactor tell it first, in its next turn, that the socket takes data, which it nearly
    always does.
    """

    _waits = False

    def startWriting(self) -> None:
        self._waits = True
        super().startWriting()

    def stopWriting(self) -> None:
        self._waits = False
        super().stopWriting()

    def write(self, data: bytes) -> None:
        if data and self.connected and not (self._waits or self.disconnecting or self.TLS):
            sent = self.writeSomeData(data)
            # Whatever is wrong shows again when the reactor tries, who knows what to do.
            if isinstance(sent, int) and sent > 0:
                data = data[sent:]
        if data:
            super().write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))


class PromptPort(tcp.Port):
    transport = PromptServer


@frozen
@implementer(IStreamServerEndpoint)
class PromptEndpoint:
    """Listens with such transports."""

    reactor: Any
    port: int
    interface: str

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        port = PromptPort(self.port, factory, _BACKLOG, self.interface, self.reactor)
        port.startListening()
        return port
