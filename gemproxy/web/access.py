"""Access control: API keys, and cross-origin requests from browsers. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

from attrs import frozen

from gemproxy.accounts.account import Account
from gemproxy.chat.errors import INVALID_REQUEST, ChatError

OPEN_PATHS = frozenset({b"/health", b"/ready"})
METRICS = b"/metrics"

# RFC 6761; RFC 6762 with its appendix G; RFC 8375; and ICANN's reservation of .internal.
_PRIVATE_DOMAINS = (
    ".corp",
    ".home",
    ".home.arpa",
    ".internal",
    ".intranet",
    ".lan",
    ".local",
    ".localhost",
    ".private",
    ".test",
)

# A daemon has few names. Clients that make some up shall not have many remembered.
_HOSTS = 64

_ALLOWED_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"


def is_loopback(address: str) -> bool:
    """Whether a client's address is this machine's; one of a UNIX socket is."""
    try:
        return not address or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def is_local_host(host: str | None) -> bool:
    """
    Whether a client means this machine, or one of the local network, by the C{Host} header; without
    one it does.
    """
    return host is None or _is_local_name(_name_of(host))


def is_same_origin(origin: str | None, host: str | None, fetch_site: str | None) -> bool:
    """
    Whether a request is of a page of this very server, or of no page.

    @param origin: the C{Origin} header; None if there is none.
    @param host: the C{Host} header, likewise.
    @param fetch_site: the C{Sec-Fetch-Site} header, likewise. Browsers tell the truth in it, also
        where a proxy has changed C{Host}.
    """
    if fetch_site is not None:
        return fetch_site in ("same-origin", "none")
    return origin is None or (host is not None and _place_of(origin) == host)


@frozen
class Access:
    """
    @ivar needs_key: whether a client must show the key of an account, now.
    @ivar origins: the origins of web pages with access; C{"*"} for all.
    @ivar hosts: the host names of this proxy in public DNS, in lower case; one that begins with a
        dot stands for all below it, and C{"*"} for every name.
    @ivar are_metrics_open: whether C{/metrics} needs no key.
    """

    needs_key: Callable[[], bool] = lambda: False
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    are_metrics_open: bool = False

    def is_open(self, path: bytes) -> bool:
        """
        Whether a path needs no key of a client: the page of the console has no secrets, and what it
        asks of L{gemproxy.web.admin} is checked there.
        """
        return (
            path in OPEN_PATHS
            or path.startswith((b"/admin/", b"/console/"))
            or path == b"/console"
            or (path == METRICS and self.are_metrics_open)
        )

    def refusal(
        self,
        path: bytes,
        host: str | None,
        origin: str | None,
        account: Account | None = None,
        fetch_site: str | None = None,
    ) -> ChatError | None:
        """
        Check a request; returns the error if access is denied, None otherwise.

        @param host: the Host header; None if there is none.
        @param origin: the Origin header, likewise.
        @param account: whose key it shows; None if it shows none that is known.
        @param fetch_site: the C{Sec-Fetch-Site} header, likewise.
        """
        if origin is not None and not self._is_welcome(origin, host):
            return ChatError(
                403,
                "permission_error",
                f"Web pages from {origin[:200]} may not use this proxy. "
                "To allow them, add the origin to CORS_ORIGINS.",
                "origin_not_allowed",
            )
        if (
            origin is None
            and fetch_site == "cross-site"
            and not (self.needs_key() or "*" in self.origins)
        ):
            # What a page shows or links to has no Origin. The page could not read the response, but
            # the request would be served, with the keys of this proxy.
            return ChatError(
                403,
                "permission_error",
                "Web pages of other sites may not request this, as long as there are no "
                "PROXY_API_KEYS.",
                "cross_site",
            )
        if not self.needs_key() and not self._is_own_name(host):
            # Prevents DNS rebinding: a web page whose host name resolves to this machine, or to
            # another one in the network of its reader, would otherwise count as same-origin.
            return ChatError(
                403,
                "permission_error",
                f"This proxy is not known by the host name {(host or '')[:200]!r}. To allow the "
                "name, add it to ALLOWED_HOSTS, or set PROXY_API_KEYS.",
                "host_not_allowed",
            )
        if self.needs_key() and account is None and not self.is_open(path):
            return ChatError(
                401,
                INVALID_REQUEST,
                "A valid API key for this proxy is required, as 'Authorization: Bearer KEY' or in "
                "the header x-api-key, api-key or x-goog-api-key, or as '?key=KEY'.",
                "invalid_api_key",
            )
        return None

    def cors_headers(self, origin: str | None, preflight: bool) -> dict[str, str]:
        """The CORS headers that let a permitted web page read the response."""
        if origin is None or not self._is_listed(origin):
            return {}
        headers = {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "*",
            "Vary": "Origin",
        }
        if preflight:
            headers |= {
                "Access-Control-Allow-Methods": _ALLOWED_METHODS,
                "Access-Control-Allow-Headers": "*, Authorization",
                "Access-Control-Max-Age": "600",
            }
        return headers

    def _is_listed(self, origin: str) -> bool:
        return "*" in self.origins or origin in self.origins

    def _is_welcome(self, origin: str, host: str | None) -> bool:
        if self._is_listed(origin):
            return True
        # A same-origin page is permitted, unless its host is a public name that is not ours: it
        # can be made to resolve to this machine.
        if host is None or _place_of(origin) != host:
            return False
        name = _name_of(host)
        return _is_local_name(name) or self._is_allowed(name)

    def is_own(self, authority: str, host: str | None) -> bool:
        """
        Whether the authority of an absolute request target is this proxy.

        @param host: the Host header; it must be equal to the authority. None if there is none.
        """
        return authority == host and self._is_own_name(host)

    def _is_own_name(self, host: str | None) -> bool:
        if host is None or "*" in self.origins or "*" in self.hosts:
            return True
        name = _name_of(host)
        if _is_local_name(name) or self._is_allowed(name):
            return True
        return any(_place_of(origin) == host for origin in self.origins)

    def _is_allowed(self, name: str) -> bool:
        """Whether a name is one of the hosts that are written out."""
        return any(
            name.endswith(allowed) if allowed.startswith(".") else name == allowed
            for allowed in self.hosts
        )


def _place_of(origin: str) -> str:
    """The value of the Host header for an origin."""
    return origin.partition("://")[2]


@lru_cache(_HOSTS)
def _name_of(host: str) -> str:
    """The name or address in a Host header, in lower case; empty if there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


@lru_cache(_HOSTS)
def _is_local_name(name: str) -> bool:
    """
    Whether a host is an IP address or a name of the local machine or network. Names without a dot
    or under _PRIVATE_DOMAINS do not exist in public DNS.
    """
    if "." not in name and ":" not in name:
        return bool(name)
    if name.endswith(_PRIVATE_DOMAINS):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
