"""
Tells when all that one read of a socket brought has been handed out.

An HTTP client is given the pieces of a body one by one, as the server framed them; handled
together, as they came, they cost a fraction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from gemproxy.log import make_logger


@implementer(IAgentEndpointFactory)
class Reads:
    """Makes an Agent's connections, and watches their reads."""

    log = make_logger()

    def __init__(self, reactor: Any, connect_timeout: float) -> None:
        self._reactor = reactor
        self._connect_timeout = connect_timeout
        self._tls = BrowserLikePolicyForHTTPS()
        self._reading = False
        self._waiting: deque[Callable[[], None]] = deque()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        # For an address, there is nothing to be looked up by a thread.
        kind = TCP4ClientEndpoint if isIPAddress(host) else HostnameEndpoint
        endpoint: IStreamClientEndpoint = kind(
            self._reactor, host, uri.port, timeout=self._connect_timeout
        )
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)
        return _WatchedEndpoint(endpoint, self)

    def afterwards(self, function: Callable[[], None]) -> None:
        """Call a function at the end of this read; now, if there is none."""
        if self._reading:
            self._waiting.append(function)
        else:
            function()

    def read(self, receive: Callable[[bytes], None], data: bytes) -> None:
        """Hand out what a read brought."""
        self._reading = True
        try:
            receive(data)
        finally:
            while self._waiting:
                try:
                    self._waiting.popleft()()
                except Exception:
                    self.log.failure("what was to be done after a read failed")
            self._reading = False


class _WatchedProtocol(ProtocolWrapper):
    factory: _WatchedFactory

    def dataReceived(self, data: bytes) -> None:
        self.factory.reads.read(self.wrappedProtocol.dataReceived, data)


class _WatchedFactory(WrappingFactory):
    protocol = _WatchedProtocol
    noisy = False

    def __init__(self, wrapped: IProtocolFactory, reads: Reads) -> None:
        super().__init__(wrapped)
        self.reads = reads


@implementer(IStreamClientEndpoint)
class _WatchedEndpoint:
    def __init__(self, endpoint: IStreamClientEndpoint, reads: Reads) -> None:
        self._endpoint = endpoint
        self._reads = reads

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._endpoint.connect(
            _WatchedFactory(protocolFactory, self._reads)
        )
        # Whoever asked wants a protocol of its own kind.
        protocol: Deferred[IProtocol] = connecting.addCallback(_wrapped)
        return protocol


def _wrapped(wrapper: ProtocolWrapper) -> Any:
    return wrapper.wrappedProtocol
