"""Looks up host names, so that a slow one holds up nobody who needs another."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import define, field, frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

from gemproxy.util.threads import Threads

# Of the names of Google, upstreams and proxies, of which there are as many as are configured.
_LOOKUPS = 16
# Seconds. The system's own limit is shorter, unless it is configured otherwise.
_TIME_LIMIT = 60.0

GetAddrInfo = Callable[..., Sequence[tuple[Any, ...]]]


@define(eq=False)
class _Lookup:
    """One look-up, and who waits for it."""

    waiting: list[Deferred[list[str]]] = field(factory=list)
    work: Deferred[None] | None = None


class Lookups:
    """
    Finds the addresses of hosts, as the system does. Who asks for the same host at the same time
    shares a look-up. Nobody waits longer than the time limit. The look-up itself cannot be ended:
    it keeps its thread until the system gives up.
    """

    def __init__(
        self,
        clock: IReactorTime,
        threads: Threads,
        time_limit: float,
        getaddrinfo: GetAddrInfo = socket.getaddrinfo,
    ) -> None:
        """@param time_limit: in seconds; the wait for a thread counts, too."""
        self._clock = clock
        self._threads = threads
        self._time_limit = time_limit
        self._getaddrinfo = getaddrinfo
        self._under_way: dict[str, _Lookup] = {}

    def addresses(self, host: str) -> Deferred[list[str]]:
        """
        The IP addresses of a host, the best ones first; none if it is unknown.

        @raise TimeoutError: C{twisted.internet.defer.TimeoutError}, the time is over.
        """
        lookup = self._under_way.get(host) or _Lookup()
        waiting: Deferred[list[str]] = Deferred(partial(self._leave, host, lookup))
        lookup.waiting.append(waiting)
        if lookup.work is None:
            self._under_way[host] = lookup
            lookup.work = Deferred.fromCoroutine(self._look_up(host, lookup))
        return waiting.addTimeout(self._time_limit, self._clock)

    def _leave(self, host: str, lookup: _Lookup, waiting: Deferred[list[str]]) -> None:
        lookup.waiting.remove(waiting)
        if not lookup.waiting and lookup.work is not None:
            del self._under_way[host]
            lookup.work.cancel()

    async def _look_up(self, host: str, lookup: _Lookup) -> None:
        try:
            places = await self._threads.call(self._getaddrinfo, host, 0, type=socket.SOCK_STREAM)
        except CancelledError:
            return
        # No such host, a name that is none, or no thread to be had.
        except (OSError, UnicodeError, RuntimeError):
            places = []
        del self._under_way[host]
        addresses = list(dict.fromkeys(str(place[4][0]) for place in places))
        for waiting in lookup.waiting:
            waiting.callback(list(addresses))


@implementer(IHostnameResolver)
@frozen
class HostnameResolver:
    """L{Lookups} as Twisted's endpoints use them."""

    lookups: Lookups

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """
        See L{IHostnameResolver.resolveHostName}; nothing but TCP is used. A failure is a host
        without addresses.
        """
        looking = self.lookups.addresses(hostName)
        resolution = _Resolution(hostName, looking)
        resolutionReceiver.resolutionBegan(resolution)

        def resolved(addresses: list[str]) -> None:
            for address in addresses:
                kind = IPv6Address if ":" in address else IPv4Address
                if addressTypes is None or kind in addressTypes:
                    resolutionReceiver.addressResolved(kind("TCP", address, portNumber))
            resolutionReceiver.resolutionComplete()

        looking.addErrback(lambda _: []).addCallback(resolved)
        return resolution


@implementer(IHostResolution)
@frozen(eq=False)
class _Resolution:
    name: str
    _looking: Deferred[Any]

    def cancel(self) -> None:
        self._looking.cancel()


def look_up_names_apart(reactor: Any) -> None:
    """
    Have a slow host name take one thread, for all who need it, and none of the reactor's pool. To
    be called before anything is connected.
    """
    lookups = Lookups(reactor, Threads(reactor, _LOOKUPS, "lookups"), _TIME_LIMIT)
    reactor.installNameResolver(HostnameResolver(lookups))
