"""
An HTTP/1.1 client with persistent connections, for many concurrent long streams.

It implements the parts of Twisted's Agent that are needed here, with a third of the CPU time:
responses are parsed in C, and the data of one read is delivered in one piece.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS, ResponseNeverReceived
from twisted.web.http import PROXY_AUTH_REQUIRED
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from gemproxy.http.body import RepeatableBody, discard_body
from gemproxy.http.connection import UNACKNOWLEDGED, Connection
from gemproxy.http.connection_pool import IDLE_CONNECTIONS, ConnectionPool
from gemproxy.http.proxies import NO_PROXIES, Proxies, Proxy
from gemproxy.http.request_writer import request_head
from gemproxy.http.tunnel import EndpointFactory, ProxyFailed, proxied
from gemproxy.http.url import Origin, split_url
from gemproxy.http.write_coalescer import WriteCoalescer

# RFC 9110 section 9.2.2, without PUT.
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"})
# Clients can choose the origins, so the number of origins remembered is limited.
_ORIGINS_LIMIT = 64


class _Factory(Factory):
    noisy = False

    def __init__(
        self, coalescer: WriteCoalescer, pool: ConnectionPool, unacknowledged: float
    ) -> None:
        self._coalescer = coalescer
        self._pool = pool
        self._unacknowledged = unacknowledged

    def buildProtocol(self, addr: Any) -> Connection:
        return Connection(self._coalescer, self._pool, self._unacknowledged)


@frozen(eq=False)
class _Origin:
    """
    The origin of a request's URL, with its connections.

    @ivar host: the value of the Host header.
    @ivar proxy: the one that requests are addressed to, instead of to the origin.
    """

    host: bytes
    proxy: Proxy | None
    pool: ConnectionPool
    _endpoint: IStreamClientEndpoint
    _factory: _Factory

    def connect(self) -> Deferred[Connection]:
        return cast("Deferred[Connection]", self._endpoint.connect(self._factory))


def _is_repeatable(method: bytes, body: IBodyProducer | None) -> bool:
    return isinstance(body, RepeatableBody) or (body is None and method in _REPEATABLE)


def endpoints(reactor: Any, connect_timeout: float) -> EndpointFactory:
    """
    Create endpoints for host names and IP addresses.

    @param connect_timeout: in seconds.
    """

    def make_endpoint(place: Origin) -> IStreamClientEndpoint:
        host, port = place.host.decode("ascii"), place.port
        kind: Any = HostnameEndpoint
        # It would resolve an address in a thread.
        if isIPAddress(host):
            kind = TCP4ClientEndpoint
        elif isIPv6Address(host):
            kind = TCP6ClientEndpoint
        endpoint: IStreamClientEndpoint = kind(reactor, host, port, timeout=connect_timeout)
        return endpoint

    return make_endpoint


@implementer(IAgent)
class PersistentAgent:
    """
    Sends requests, over existing connections if possible.

    A request with a line break in a header fails with a ValueError. A request without a body and
    with an idempotent method, or with a L{RepeatableBody}, is repeated once, over a new connection,
    if it was sent over a used one and that was closed before any byte of a response. The system
    closes a used connection whose other side does not acknowledge a request.
    """

    def __init__(
        self,
        reactor: Any,
        coalescer: WriteCoalescer,
        make_endpoint: EndpointFactory,
        policy: IPolicyForHTTPS | None = None,
        idle_connections: int = IDLE_CONNECTIONS,
        unacknowledged: float = UNACKNOWLEDGED,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        """
        @param make_endpoint: creates the endpoint for an origin or a proxy; the agent adds TLS.
        @param policy: decides which certificates are trusted; None for the system's trust store.
        @param idle_connections: the maximum number of idle connections per origin.
        @param unacknowledged: seconds after which a used connection is given up whose other side
            does not acknowledge a request.
        @param proxies: decide which requests go through a proxy.
        """
        self._reactor = reactor
        self._coalescer = coalescer
        self._make_endpoint = make_endpoint
        self._tls = policy or BrowserLikePolicyForHTTPS()
        self._idle_connections = idle_connections
        self._unacknowledged = unacknowledged
        self._proxies = proxies
        self._origins: dict[Origin, _Origin] = {}

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        @param uri: an absolute URI.
        @return: fires with the response when its headers are complete. Fails with the error of the
            connection attempt, such as L{ProxyFailed}, or with Twisted's C{ResponseFailed}.
        """
        try:
            origin, target = self._split(uri)
            fields = [] if headers is None else list(headers.getAllRawHeaders())
            if origin.proxy is not None:
                target = b"http://%b%b" % (origin.host, target)
                if origin.proxy.authorization is not None:
                    fields.append((b"Proxy-Authorization", [origin.proxy.authorization]))
            head = request_head(method, target, origin.host, fields, bodyProducer)
        except ValueError:
            return fail()
        may_switch = headers is not None and headers.hasHeader(b"upgrade")
        connection = None if may_switch else origin.pool.acquire()
        if connection is None:
            asked = self._ask_anew(origin, method, head, bodyProducer, may_switch)
        else:
            asked = connection.ask(method, head, bodyProducer)
            if _is_repeatable(method, bodyProducer):
                asked.addErrback(self._ask_again, origin, method, head, bodyProducer)
        return asked if origin.proxy is None else asked.addCallback(_let_in, origin.proxy)

    def close(self) -> Deferred[Any]:
        """Close the idle connections; fires when they are closed."""
        return gatherResults([origin.pool.close() for origin in self._origins.values()])

    def _ask_anew(
        self,
        origin: _Origin,
        method: bytes,
        head: bytes,
        body: IBodyProducer | None,
        may_switch: bool = False,
    ) -> Deferred[IResponse]:
        return origin.connect().addCallback(
            lambda connection: connection.ask(method, head, body, may_switch)
        )

    def _ask_again(
        self,
        failure: Failure,
        origin: _Origin,
        method: bytes,
        head: bytes,
        body: IBodyProducer | None,
    ) -> Deferred[IResponse] | Failure:
        if failure.check(ResponseNeverReceived):
            return self._ask_anew(origin, method, head, body)
        return failure

    def _split(self, uri: bytes) -> tuple[_Origin, bytes]:
        """
        Split a URI into its origin and the request target.

        @raise ValueError: the URI is not absolute.
        """
        place, target = split_url(uri)
        origin = self._origins.get(place)
        if origin is None:
            if len(self._origins) >= _ORIGINS_LIMIT:
                # Running requests of the removed origin are not affected.
                self._origins.pop(next(iter(self._origins))).pool.close()
            origin = self._origins[place] = self._origin(place)
        return origin, target

    def _origin(self, place: Origin) -> _Origin:
        addressed, proxy = None, self._proxies.of(place)
        if proxy is None:
            endpoint = self._make_endpoint(place)
        else:
            target: tuple[str, int] | None = (place.host.decode("ascii"), place.port)
            if place.scheme == b"http" and proxy.scheme != "socks5":
                # Many proxies do not allow CONNECT for other ports than 443.
                addressed, target = proxy, None
            endpoint = proxied(self._reactor, proxy, self._make_endpoint, self._tls, target)
        if place.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(place.host, place.port), endpoint)
        pool = ConnectionPool(self._reactor, self._idle_connections)
        factory = _Factory(self._coalescer, pool, self._unacknowledged)
        return _Origin(place.netloc, addressed, pool, endpoint, factory)


def _let_in(response: IResponse, proxy: Proxy) -> IResponse:
    """@raise ProxyFailed: the response is the proxy's own, which asks for a user."""
    if response.code == PROXY_AUTH_REQUIRED:
        discard_body(response)
        raise ProxyFailed(proxy, "asks for a user and password, or does not accept these")
    return response
