"""Who may use the proxy: keys, and browsers' requests from elsewhere. Pure decisions."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from attrs import frozen

from gemproxy.chat.errors import INVALID_REQUEST, ChatError

OPEN_PATHS = frozenset({b"/health", b"/ready"})

# RFC 6761, RFC 6762, RFC 8375, and ICANN's reservation of .internal.
_PRIVATE_DOMAINS = (".localhost", ".internal", ".local", ".home.arpa", ".test")

_ALLOWED_METHODS = "GET, POST, PUT, PATCH, DELETE, OPTIONS"


@frozen
class Access:
    """
    @ivar keys: any of which a client must show; none: everybody is welcome.
    @ivar origins: of web pages whose requests are let in; C{"*"} for all.
    @ivar on_loopback: whether the ports are reached from this machine only.
    """

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    on_loopback: bool = True

    def refusal(
        self, path: bytes, host: str | None, origin: str | None, authorization: str | None
    ) -> ChatError | None:
        """
        Why a request is not let in; None if it is.

        @param host: the Host header, if there is one; the other two likewise.
        """
        if origin is not None and not self._is_welcome(origin, host):
            return ChatError(
                403,
                "permission_error",
                f"Web pages from {origin[:200]} may not use this proxy. "
                "To allow them, add the origin to CORS_ORIGINS.",
                "origin_not_allowed",
            )
        if self.on_loopback and not self.keys and not self._is_own_name(host):
            # A page whose name was made to point here would come as one of our own.
            return ChatError(
                403,
                "permission_error",
                "The Host header must be localhost or an IP address. "
                "To allow other names, set CORS_ORIGINS or PROXY_API_KEYS.",
                "host_not_allowed",
            )
        if self.keys and path not in OPEN_PATHS and not self._knows(authorization):
            return ChatError(
                401,
                INVALID_REQUEST,
                "A valid API key for this proxy is required: Authorization: Bearer KEY.",
                "invalid_api_key",
            )
        return None

    def cors_headers(self, origin: str | None, preflight: bool) -> dict[str, str]:
        """The headers that let a welcome page read the response."""
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
        # A page of our own address; not of a name, which anybody may point at us.
        return host is not None and _place_of(origin) == host and _is_local_name(host)

    def is_own(self, authority: str, host: str | None) -> bool:
        """
        Whether the authority of an absolute request target is this proxy.

        @param host: the Host header, if there is one; both have to agree.
        """
        return authority == host and self._is_own_name(host)

    def _is_own_name(self, host: str | None) -> bool:
        if host is None or _is_local_name(host) or "*" in self.origins:
            return True
        return any(_place_of(origin) == host for origin in self.origins)

    def _knows(self, authorization: str | None) -> bool:
        scheme, _, shown = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        candidate = shown.strip().encode("utf-8", "replace")
        # All are compared, so that the time tells nothing.
        matches = [hmac.compare_digest(candidate, key.encode()) for key in self.keys]
        return any(matches)


def _place_of(origin: str) -> str:
    """What a Host header would say of an origin."""
    return origin.partition("://")[2]


def _is_local_name(host: str) -> bool:
    """
    Whether a Host header is an IP address, or a name that only this machine or its network can
    have given: public DNS has neither names without a dot nor those under _PRIVATE_DOMAINS.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if "." not in name and ":" not in name:
        return bool(name)
    if name.endswith(_PRIVATE_DOMAINS):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
