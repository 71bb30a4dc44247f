"""
Fetches the pictures that a conversation gives as URLs.

To prevent server-side request forgery, connections are made to public IP addresses only. The
address is checked for each hop, and the connection is made to the address that was checked, so that
neither DNS rebinding nor a redirect circumvents the check. A proxy, too, is asked for that address
and not for the name.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from attrs import define, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.web.client import BrowserLikePolicyForHTTPS, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from gemproxy import __version__
from gemproxy.chat.errors import bad_request
from gemproxy.gemini.translate.media import SIZE_LIMIT
from gemproxy.http.agent import PersistentAgent, endpoints
from gemproxy.http.body import BodyCut, discard_body, read_body
from gemproxy.http.lookups import Lookups
from gemproxy.http.proxies import NO_PROXIES, Proxies
from gemproxy.http.public_addresses import is_public_address
from gemproxy.http.tunnel import ProxyFailed, proxied
from gemproxy.http.url import Origin
from gemproxy.http.write_coalescer import WriteCoalescer
from gemproxy.util.gather import gather_or_cancel
from gemproxy.util.threads import Threads

TIME_LIMIT = 20.0
MOST_REDIRECTS = 3

# Seconds for the look-up of a host name, and how many there are at a time: in all, and of one
# request. The system asks a second server after 5 seconds.
LOOKUP_TIME_LIMIT = 10.0
_LOOKUPS = 16
_LOOKUPS_OF_A_REQUEST = 4

_CONNECT_TIMEOUT = 10.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = frozenset({80, 443})
_LEFT_IN_URL = "/?%:@!$&'()*+,;=~[]"
_HOST = re.compile(r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+")

Permission = Callable[[str, int], bool]
"""Returns whether connections to an IP address and port are permitted."""

LookUp = Callable[[str], Deferred[list[str]]]
"""Finds the IP addresses of a host."""


def is_public(address: str, port: int) -> bool:
    """Whether an IP address is public and the port is 80 or 443."""
    return port in _PORTS and is_public_address(address)


class _NotFetched(Exception):
    """
    The reason why a picture cannot be fetched; continues C{"the picture cannot be fetched: "}.
    """


@define
class _Allowance:
    """The number of bytes that the pictures of a request may still have in total."""

    left: int = SIZE_LIMIT

    def check(self, size: int) -> None:
        if size > self.left:
            raise _NotFetched(f"the pictures exceed {SIZE_LIMIT >> 20} MB in total")

    def take(self, size: int) -> None:
        self.check(size)
        self.left -= size


class PictureFetcher:
    """Replaces the URLs of pictures by the pictures."""

    def __init__(
        self,
        reactor: Any,
        may_connect: Permission = is_public,
        policy: IPolicyForHTTPS | None = None,
        time_limit: float = TIME_LIMIT,
        proxies: Proxies = NO_PROXIES,
        look_up: LookUp | None = None,
    ) -> None:
        """
        @param policy: decides which certificates are trusted; None for the system's trust store.
        @param look_up: finds the addresses of a host; None for the system's way, in threads of the
            pictures' own.
        """
        if look_up is None:
            threads = Threads(reactor, _LOOKUPS, "pictures")
            look_up = Lookups(reactor, threads, LOOKUP_TIME_LIMIT).addresses
        addresses_of = look_up
        connect_directly = endpoints(reactor, _CONNECT_TIMEOUT)
        tls = policy or BrowserLikePolicyForHTTPS()

        def endpoint_of(origin: Origin, address: str) -> IStreamClientEndpoint:
            checked = origin._replace(host=address.encode("ascii"))
            proxy = proxies.of(origin) and proxies.of(checked)
            if proxy is None:
                return connect_directly(checked)
            # Always a tunnel: a proxy that is given the URL would resolve the name once more.
            return proxied(reactor, proxy, connect_directly, tls, (address, origin.port))

        def make_agent() -> IAgent:
            """One for each request, which therefore looks up a few names at a time."""
            places = DeferredSemaphore(_LOOKUPS_OF_A_REQUEST)

            def make_endpoint(origin: Origin) -> IStreamClientEndpoint:
                find = partial(places.run, addresses_of)
                return _CheckedEndpoint(find, origin, may_connect, partial(endpoint_of, origin))

            return PersistentAgent(
                reactor, WriteCoalescer(), make_endpoint, policy, idle_connections=0
            )

        self._reactor = reactor
        self._time_limit = time_limit
        self._make_agent = make_agent

    async def fetch(self, places: Mapping[str, str]) -> dict[str, str]:
        """
        Fetch the pictures at http and https URLs, as data URLs.

        @param places: the URLs, with the parts that they are in.
        @raise ChatError: 400, a picture cannot be fetched; the error names the part.
        """
        allowance, agent = _Allowance(), self._make_agent()
        pictures = await gather_or_cancel(
            self._fetch_in_time(agent, url, where, allowance) for url, where in places.items()
        )
        return dict(zip(places, pictures, strict=True))

    async def _fetch_in_time(
        self, agent: IAgent, url: str, where: str, allowance: _Allowance
    ) -> str:
        work = Deferred.fromCoroutine(_fetch(agent, url, allowance))
        try:
            return await work.addTimeout(self._time_limit, self._reactor)
        except _NotFetched as error:
            reason = str(error)
        except DeferredTimeout:
            reason = f"it took more than {self._time_limit:g} s"
        raise bad_request(f"'{where}': the picture cannot be fetched: {reason}.", where)


async def _fetch(agent: IAgent, text: str, allowance: _Allowance) -> str:
    """The picture as a data URL."""
    url = _checked(text)
    for _ in range(MOST_REDIRECTS + 1):
        response = await _ask(agent, url)
        if response.code not in _REDIRECTS:
            return await _picture(response, allowance)
        location = _header(response, b"location")
        # RedirectAgent is not used because it leaves the connections of earlier hops open.
        discard_body(response)
        if not location:
            raise _NotFetched("its server sent a redirect without a Location header")
        url = _joined(url, location)
    raise _NotFetched(f"there were more than {MOST_REDIRECTS} redirects")


async def _ask(agent: IAgent, url: str) -> IResponse:
    headers = Headers(
        {
            "Accept": ["image/*"],
            "User-Agent": [f"gemproxy/{__version__}"],
            "Connection": ["close"],
        }
    )
    try:
        asking = agent.request(b"GET", url.encode("ascii"), headers)
        return await asking
    except (CancelledError, _NotFetched):
        raise
    except ResponseFailed as error:
        if any(reason.check(CancelledError) for reason in error.reasons):
            raise CancelledError from None
        raise _NotFetched("its server sent no valid HTTP response") from None
    except Exception as error:
        raise _NotFetched(f"the connection to its server failed ({type(error).__name__})") from None


def _checked(url: str) -> str:
    """
    The URL in ASCII, without its fragment.

    @raise _NotFetched: the URL is malformed or not supported.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        raise _NotFetched("its URL is malformed") from None
    if parts.scheme not in ("http", "https") or not host:
        raise _NotFetched("its URL is not an http or https URL")
    if not _HOST.fullmatch(host):
        raise _NotFetched("its URL is malformed")
    if parts.username is not None or parts.password is not None:
        raise _NotFetched("its URL contains a user name or password")
    place = f"[{host}]" if ":" in host else host
    if port is not None:
        place += f":{port}"
    path, query = (
        quote(text, _LEFT_IN_URL, errors="replace") for text in (parts.path, parts.query)
    )
    return urlunsplit((parts.scheme, place, path, query, ""))


def _joined(base: str, location: str) -> str:
    try:
        return _checked(urljoin(base, location))
    except ValueError:
        raise _NotFetched("its server sent a redirect to a malformed URL") from None


async def _picture(response: IResponse, allowance: _Allowance) -> str:
    mime_type = _header(response, b"content-type").partition(";")[0].strip().lower()
    try:
        if response.code != 200:
            raise _NotFetched(f"its server responded with status {response.code}")
        if not mime_type.startswith("image/"):
            raise _NotFetched("the response is not a picture")
        if isinstance(response.length, int):
            allowance.check(response.length)
    except _NotFetched:
        discard_body(response)
        raise
    try:
        data = await read_body(response, SIZE_LIMIT, allowance.take)
    except BodyCut:
        raise _NotFetched(
            "its server closed the connection before the picture was complete"
        ) from None
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def _header(response: IResponse, name: bytes) -> str:
    values = cast("list[bytes]", response.headers.getRawHeaders(name, []))
    return values[0].decode("utf-8", "replace") if values else ""


@implementer(IStreamClientEndpoint)
@frozen
class _CheckedEndpoint:
    """Connects to a host only if this is permitted for all of its addresses."""

    find_addresses: LookUp
    origin: Origin
    may_connect: Permission
    endpoint_of: Callable[[str], IStreamClientEndpoint]

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        host, port = self.origin.host.decode("ascii"), self.origin.port
        try:
            addresses = await self.find_addresses(host)
        except DeferredTimeout:
            raise _NotFetched(
                f"its host name was not found within {LOOKUP_TIME_LIMIT:g} s"
            ) from None
        if not addresses:
            raise _NotFetched("its host name cannot be resolved")
        if not all(self.may_connect(address, port) for address in addresses):
            raise _NotFetched("its address is not public, or its port is not 80 or 443")
        for address in addresses:
            try:
                return await self.endpoint_of(address).connect(factory)
            except ConnectError:
                continue
            except ProxyFailed as error:
                raise _NotFetched(str(error)) from None
        raise _NotFetched("its server cannot be reached")
