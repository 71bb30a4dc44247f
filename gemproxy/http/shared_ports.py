"""Ports at sockets that processes share, each of which is to have its part of the clients."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.ssl import ContextFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from gemproxy.http.transport import PromptPort, adopted, port_at
from gemproxy.http.write_coalescer import WriteCoalescer

# Seconds in which another process may take a connection that is better for it. It does so at once
# unless it is busy.
_PATIENCE = 0.01
# Connections that are accepted without a look at the others, if they did not take what was left to
# them: one of them may hang.
_MOST_AT_WILL = 8


class _Shared(tcp.Port):
    """
    Accepts one connection in a turn of the reactor, and leaves it to others that have fewer.
    Twisted's ports take all that wait.

    @ivar is_for_others: whether the next connection is better left to another process.
    @ivar patience: seconds for which it is.
    """

    is_for_others: Callable[[], bool]
    patience = _PATIENCE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_will = self._in_vain = 0

    @property
    def numberAccepts(self) -> int:
        return 1

    @numberAccepts.setter
    def numberAccepts(self, wanted: int) -> None:
        """Twisted wants more the more there were."""

    def doRead(self) -> None:
        if self._at_will > 0:
            self._at_will -= 1
        elif self.is_for_others():
            self.stopReading()
            clock: Any = self.reactor
            clock.callLater(self.patience, self._was_patient)
            return
        super().doRead()

    def _was_patient(self) -> None:
        if not self.connected or self.disconnecting:
            return
        before = self.sessionno
        super().doRead()
        was_left = self.sessionno > before
        self._in_vain = min(2 * self._in_vain + 1, _MOST_AT_WILL) if was_left else 0
        self._at_will = self._in_vain
        self.startReading()


class SharedPort(_Shared, PromptPort):
    """One of several at the same TCP socket, each in a process of its own."""


class SharedUnixPort(_Shared, unix.Port):
    """
    The same with a UNIX socket, whose name and mode are left to the process that has made it.

    @ivar made: the socket.
    """

    made: socket.socket
    # That would end it for all.
    _shouldShutdown = False

    def startListening(self) -> None:
        factory: Any = self.factory
        factory.doStart()
        self.connected = True
        self.socket = self.made
        self.fileno = self.made.fileno  # type: ignore[method-assign]
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


@frozen
@implementer(IStreamServerEndpoint)
class SharedEndpoint:
    """
    @ivar descriptor: of a listening socket, TCP or UNIX; it becomes the port's own.
    @ivar is_for_others: see L{SharedPort}.
    @ivar overflow: see L{PromptPort}.
    @ivar patience: see L{SharedPort}.
    """

    reactor: Any
    descriptor: int
    is_for_others: Callable[[], bool]
    coalescer: WriteCoalescer
    overflow: Callable[[], bytes]
    patience: float = _PATIENCE

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        made = adopted(self.descriptor)
        port: SharedPort | SharedUnixPort
        if made.family == socket.AF_UNIX:
            port = SharedUnixPort(made.getsockname(), factory, reactor=self.reactor)
            port.made = made
        else:
            port = port_at(SharedPort, made, factory, self.reactor, self.coalescer, self.overflow)
        port.is_for_others = self.is_for_others
        port.patience = self.patience
        port.startListening()
        return port


@frozen
@implementer(IStreamServerEndpoint)
class EncryptedEndpoint:
    """
    Speaks TLS at another endpoint.

    @ivar contexts: has the certificate and its key.
    """

    endpoint: IStreamServerEndpoint
    contexts: ContextFactory

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self.endpoint.listen(TLSMemoryBIOFactory(self.contexts, False, protocolFactory))
