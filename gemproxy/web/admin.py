"""
The door of /admin: who may come in, and which endpoints there are.

Each endpoint is made elsewhere, and handed in. None of them has to think of keys, of other sites'
pages or of caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from gemproxy.accounts.known_keys import KnownKeys, digest_of
from gemproxy.chat.errors import INVALID_REQUEST, ChatError
from gemproxy.web.access import is_loopback, is_same_origin
from gemproxy.web.admission import ProxyRequest

_READS = ("GET", "HEAD")


@frozen
class Endpoint:
    """
    Something that can be asked for below C{/admin}.

    @ivar rule: its path, as werkzeug's routing has it, such as C{/admin/requests/<id>/end}.
    @ivar handle: called with the request, and with what the rule captures by name; returns what a
        Klein route may return, and raises ChatErrors.
    @ivar is_open: whether it may be asked for without a key. Pages of other sites may not even so.
    """

    method: str
    rule: str
    handle: Callable[..., Any]
    is_open: bool = False


@frozen
class Admin:
    """
    @ivar key: the key that opens it; None if it is open to this machine alone.
    @ivar has_client_keys: whether clients need keys; nobody gets in without a key then.
    @ivar endpoints: what can be asked for.
    @ivar refused: called when a key is refused.
    """

    key: str | None
    has_client_keys: bool
    endpoints: Sequence[Endpoint] = ()
    refused: Callable[[], None] = lambda: None
    _keys: KnownKeys[bool] = field(init=False)
    _map: Map = field(init=False)

    @_keys.default
    def _make_keys(self) -> KnownKeys[bool]:
        return KnownKeys({} if self.key is None else {digest_of(self.key): True})

    @_map.default
    def _make_map(self) -> Map:
        rules = [Rule(one.rule, methods=[one.method], endpoint=one) for one in self.endpoints]
        return Map(rules, strict_slashes=False, merge_slashes=False)

    def serve(self, request: ProxyRequest, path: str) -> Any:
        """
        Answer a request for a path below C{/admin}.

        @param path: decoded.
        @raise ChatError: 401 or 403, the client may not be here; or what the endpoint raises.
        @raise HTTPException: there is no such endpoint.
        """
        request.setHeader(b"cache-control", b"no-store")
        request.setHeader(b"x-content-type-options", b"nosniff")
        method = request.method.decode("ascii", "replace")
        try:
            found: tuple[Endpoint, Any] = self._map.bind("localhost").match(path, method)
        except HTTPException:
            # Whoever may not be here does not learn what there is.
            self.check(request)
            raise
        endpoint, values = found
        if not endpoint.is_open:
            self.check(request)
        if method not in _READS:
            self.check_change(request)
        return endpoint.handle(request, **values)

    def check(self, request: ProxyRequest) -> None:
        """@raise ChatError: 401 or 403, the client may not be here."""
        if self.key is not None:
            if not self._shows_key(request):
                self.refused()
                raise ChatError(
                    401,
                    INVALID_REQUEST,
                    "ADMIN_KEY is required here: Authorization: Bearer KEY.",
                    "invalid_api_key",
                )
        elif self.has_client_keys or not is_loopback(request.client_address):
            raise ChatError(
                403,
                "permission_error",
                "This is open to the daemon's own machine, as long as there are no PROXY_API_KEYS."
                " Set ADMIN_KEY to use it.",
                "admin_closed",
            )
        else:
            # Who looks at the page of another site may sit at this machine. CORS_ORIGINS opens the
            # API to such a page, and not what the API was used for.
            _refuse_other_sites(request)

    def check_change(self, request: ProxyRequest) -> None:
        """
        To be called before something is changed, after L{check}.

        @raise ChatError: 403, a page of another site sent the request, with what a browser adds by
            itself.
        """
        if not self._shows_key(request):
            _refuse_other_sites(request)

    def _shows_key(self, request: ProxyRequest) -> bool:
        """Whether a request has the key where no browser puts one by itself."""
        return self._keys.find(request.credentials.keys()) is not None


def _refuse_other_sites(request: ProxyRequest) -> None:
    """@raise ChatError: 403, a browser says that the request is of another site's page."""
    origin, host = request.header_text(b"origin"), request.header_text(b"host")
    if not is_same_origin(origin, host, request.header_text(b"sec-fetch-site")):
        raise ChatError(
            403,
            "permission_error",
            "Pages of other sites may not use /admin, unless they send ADMIN_KEY.",
            "cross_site",
        )


def send_text(request: Request, text: str) -> None:
    body = text.encode("utf-8", "replace")
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"content-length", str(len(body)).encode())
    request.write(body)
