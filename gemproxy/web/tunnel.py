"""A WebSocket between a client and an upstream: bytes in both directions, as they come."""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from gemproxy.http.server_request import ServerRequest


@implementer(IPushProducer)
@frozen
class _ClientSide:
    """What a client sends, paused while the upstream does not take it."""

    tunnel: WebSocketTunnel
    connection: IPushProducer

    def pauseProducing(self) -> None:
        self.tunnel.is_stalled = True
        self.connection.pauseProducing()

    def resumeProducing(self) -> None:
        self.tunnel.is_stalled = False
        self.connection.resumeProducing()

    def stopProducing(self) -> None:
        self.connection.resumeProducing()


@implementer(IPushProducer)
class WebSocketTunnel(Protocol):
    """
    Frames are not looked at, so everything in them passes, closing codes too. A side that is slow
    slows the other one, and the end of one is the end of the other.

    @ivar done: fires when the upstream has closed the connection; cancelling closes it.
    @ivar is_stalled: the upstream does not take what it is sent.
    """

    transport: Any

    def __init__(self, request: ServerRequest) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self.close())
        self.is_stalled = False
        self._request = request
        self._client = cast("IPushProducer", request.transport)
        self._is_open = False

    def connectionMade(self) -> None:
        self._is_open = True
        self._request.registerProducer(self, True)
        self.transport.registerProducer(_ClientSide(self, self._client), True)

    def receive(self, data: bytes) -> None:
        """Pass on what the client sent."""
        if self._is_open:
            self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self._is_open:
            self._request.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave()
        if not self.done.called:
            self.done.callback(None)

    def close(self) -> None:
        """Close the upstream's connection. What was written is sent, if it takes that."""
        if not self._is_open:
            return
        self._leave()
        if self.is_stalled:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    # For the client, when it does not take what it is sent:

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.close()

    def _leave(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self.transport.unregisterProducer()
        # Nobody would notice that a paused client goes.
        self._client.resumeProducing()
        if self._request.channel is not None:
            self._request.unregisterProducer()
