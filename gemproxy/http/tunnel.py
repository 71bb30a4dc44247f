"""Connections through a proxy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from gemproxy.http.proxies import Proxy
from gemproxy.http.proxy_handshakes import (
    Handshake,
    ProxyRefused,
    Step,
    http_connect,
    no_handshake,
    socks5,
)
from gemproxy.http.url import Origin

_TIMEOUT = 30.0
_HEAD_LIMIT = 64 * 1024

EndpointFactory = Callable[[Origin], IStreamClientEndpoint]


class ProxyFailed(Exception):
    """There is no connection through a proxy; the message names the proxy and the reason."""

    def __init__(self, proxy: Proxy, reason: str) -> None:
        super().__init__(f"the proxy {proxy} {reason}")


@implementer(IStreamClientEndpoint)
@frozen
class ProxiedEndpoint:
    """
    Connects to a proxy, and has the proxy connect to the target.

    @ivar endpoint: that of the proxy.
    @ivar timeout: seconds for the handshake.
    """

    clock: IReactorTime
    proxy: Proxy
    endpoint: IStreamClientEndpoint
    make_handshake: Callable[[], Handshake]
    timeout: float = _TIMEOUT

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fails with L{ProxyFailed}, or as the proxy's own endpoint does."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        tunnels = Factory.forProtocol(partial(_Tunnel, self.make_handshake()))
        tunnels.noisy = False
        try:
            tunnel = cast("_Tunnel", await self.endpoint.connect(tunnels))
            await tunnel.opened.addTimeout(self.timeout, self.clock)
        except ConnectError as error:
            raise ProxyFailed(self.proxy, f"cannot be reached: {error}".rstrip(".")) from None
        except DeferredTimeout:
            raise ProxyFailed(self.proxy, f"sent no answer for {self.timeout:g} s") from None
        except ProxyRefused as error:
            raise ProxyFailed(self.proxy, str(error)) from None
        return tunnel.give_to(factory)


def proxied(
    clock: IReactorTime,
    proxy: Proxy,
    make_endpoint: EndpointFactory,
    tls: IPolicyForHTTPS,
    target: tuple[str, int] | None,
) -> IStreamClientEndpoint:
    """
    An endpoint that connects through a proxy.

    @param make_endpoint: makes the endpoint of the proxy; TLS is added if it is one of https.
    @param target: where the proxy is to connect; None if each request says it to the proxy.
    """
    name = proxy.host.encode("ascii")
    endpoint = make_endpoint(Origin(b"http", name, proxy.port))
    if proxy.scheme == "https":
        endpoint = wrapClientTLS(tls.creatorForNetloc(name, proxy.port), endpoint)
    if target is None:
        return ProxiedEndpoint(clock, proxy, endpoint, no_handshake)
    kind = socks5 if proxy.scheme == "socks5" else http_connect
    return ProxiedEndpoint(clock, proxy, endpoint, partial(kind, proxy, *target))


class _Tunnel(Protocol):
    """
    Goes through a handshake, then hands the transport on, and passes on what it receives.

    @ivar opened: fires when the handshake is over; fails with L{ProxyRefused}.
    """

    transport: Any

    def __init__(self, handshake: Handshake) -> None:
        self.opened: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())
        self._handshake = handshake
        self._step: Step | None = None
        self._received = b""
        self._inner: Any = None

    def connectionMade(self) -> None:
        self._advance(None)

    def give_to(self, factory: IProtocolFactory) -> IProtocol:
        """Have a protocol of this factory use the connection from now on."""
        self._inner = factory.buildProtocol(self.transport.getPeer())
        self._inner.makeConnection(self.transport)
        received, self._received = self._received, b""
        if received:
            self._inner.dataReceived(received)
        return cast("IProtocol", self._inner)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._received += data
        while self._step is not None and (size := self._size()) is not None:
            piece, self._received = self._received[:size], self._received[size:]
            self._advance(piece)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            self._fail(ProxyRefused("closed the connection without an answer"))

    def _size(self) -> int | None:
        """How many bytes the current step takes; None if they are not there yet."""
        assert self._step is not None  # noqa: S101 - for mypy
        size = self._step.size
        if size is not None:
            return size if len(self._received) >= size else None
        end = self._received.find(b"\r\n\r\n")
        if end < 0 and len(self._received) > _HEAD_LIMIT:
            self._fail(ProxyRefused("sent no HTTP response"))
        return None if end < 0 else end + 4

    def _advance(self, piece: bytes | None) -> None:
        try:
            self._step = next(self._handshake) if piece is None else self._handshake.send(piece)
        except StopIteration:
            self._step = None
            if not self.opened.called:
                self.opened.callback(None)
        except ProxyRefused as error:
            self._fail(error)
        else:
            if self._step.send:
                self.transport.write(self._step.send)

    def _fail(self, error: ProxyRefused) -> None:
        self._step = None
        self.transport.abortConnection()
        if not self.opened.called:
            self.opened.errback(Failure(error))
