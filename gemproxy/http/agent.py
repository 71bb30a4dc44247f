"""
An HTTP/1.1 client with persistent connections, for any number of long streams side by side.

It does what Twisted's Agent does, as far as it is needed here, for a third of the cost: responses
are parsed in C, and what one read brought is handed out in one piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import frozen
from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from gemproxy.http.connection import Connection
from gemproxy.http.connection_pool import IDLE_CONNECTIONS, ConnectionPool
from gemproxy.http.request_writer import request_head
from gemproxy.http.url import Origin, split_url
from gemproxy.http.write_coalescer import WriteCoalescer

# RFC 9110 section 9.2.2, without PUT.
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"})
# Requests decide where they go, so there may be only so many places to remember.
_ORIGINS_LIMIT = 64


class _Factory(Factory):
    noisy = False

    def __init__(self, coalescer: WriteCoalescer, pool: ConnectionPool) -> None:
        self._coalescer = coalescer
        self._pool = pool

    def buildProtocol(self, addr: Any) -> Connection:
        return Connection(self._coalescer, self._pool)


@frozen(eq=False)
class _Origin:
    """
    Where requests go.

    @ivar host: as a Host header has it.
    """

    host: bytes
    pool: ConnectionPool
    _endpoint: IStreamClientEndpoint
    _factory: _Factory

    def connect(self) -> Deferred[Connection]:
        return cast("Deferred[Connection]", self._endpoint.connect(self._factory))


EndpointFactory = Callable[[str, int], IStreamClientEndpoint]


def endpoints(reactor: Any, connect_timeout: float) -> EndpointFactory:
    """
    Endpoints for hosts by name or address.

    @param connect_timeout: in seconds.
    """

    def make_endpoint(host: str, port: int) -> IStreamClientEndpoint:
        # For an address, there is nothing to be looked up by a thread.
        kind = TCP4ClientEndpoint if isIPAddress(host) else HostnameEndpoint
        endpoint: IStreamClientEndpoint = kind(reactor, host, port, timeout=connect_timeout)
        return endpoint

    return make_endpoint


@implementer(IAgent)
class PersistentAgent:
    """
    Sends requests, over connections that are there if possible.

    Headers may not have line ends in them; the request fails with a ValueError if they do. One
    without a body, and with a method that may be repeated, is repeated once if the connection that
    it went out by had been used before, and was closed without any response.
    """

    def __init__(
        self,
        reactor: Any,
        coalescer: WriteCoalescer,
        make_endpoint: EndpointFactory,
        policy: IPolicyForHTTPS | None = None,
        idle_connections: int = IDLE_CONNECTIONS,
    ) -> None:
        """
        @param make_endpoint: makes the endpoint for a host and port; TLS is added to it here.
        @param policy: which certificates are trusted; those that the system trusts if None.
        @param idle_connections: how many are kept for each origin; 0 for none.
        """
        self._reactor = reactor
        self._coalescer = coalescer
        self._make_endpoint = make_endpoint
        self._tls = policy or BrowserLikePolicyForHTTPS()
        self._idle_connections = idle_connections
        self._origins: dict[Origin, _Origin] = {}

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        @param uri: absolute.
        @return: fires with the response when its headers are there. Fails with whatever keeps the
            connection from being made, or with Twisted's C{ResponseFailed}.
        """
        try:
            origin, target = self._split(uri)
            fields = () if headers is None else headers.getAllRawHeaders()
            head = request_head(method, target, origin.host, fields, bodyProducer)
        except ValueError:
            return fail()
        connection = origin.pool.acquire()
        if connection is None:
            return self._ask_anew(origin, method, head, bodyProducer)
        asked = connection.ask(method, head, bodyProducer)
        if bodyProducer is None and method in _REPEATABLE:
            asked.addErrback(self._ask_again, origin, method, head)
        return asked

    def close(self) -> Deferred[Any]:
        """Close the connections that nobody uses; fires when they are gone."""
        return gatherResults([origin.pool.close() for origin in self._origins.values()])

    def _ask_anew(
        self, origin: _Origin, method: bytes, head: bytes, body: IBodyProducer | None
    ) -> Deferred[IResponse]:
        return origin.connect().addCallback(lambda connection: connection.ask(method, head, body))

    def _ask_again(
        self, failure: Failure, origin: _Origin, method: bytes, head: bytes
    ) -> Deferred[IResponse] | Failure:
        if failure.check(ResponseNeverReceived):
            return self._ask_anew(origin, method, head, None)
        return failure

    def _split(self, uri: bytes) -> tuple[_Origin, bytes]:
        """
        Where a request goes, and what it asks for there.

        @raise ValueError: that is no absolute URI.
        """
        place, target = split_url(uri)
        origin = self._origins.get(place)
        if origin is None:
            if len(self._origins) >= _ORIGINS_LIMIT:
                # Requests that it carries are not disturbed.
                self._origins.pop(next(iter(self._origins))).pool.close()
            origin = self._origins[place] = self._origin(place)
        return origin, target

    def _origin(self, place: Origin) -> _Origin:
        endpoint = self._make_endpoint(place.host.decode("ascii"), place.port)
        if place.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(place.host, place.port), endpoint)
        pool = ConnectionPool(self._reactor, self._idle_connections)
        return _Origin(place.netloc, pool, endpoint, _Factory(self._coalescer, pool))
