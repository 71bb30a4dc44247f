"""
The door of /admin: who may come in, and which endpoints there are.

Each endpoint is made elsewhere, and handed in. None of them has to think of keys, of other sites'
pages or of caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from attrs import frozen
from twisted.web.http import UNAUTHORIZED
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from gemproxy.accounts.known_keys import KnownKeys
from gemproxy.chat.errors import INVALID_REQUEST, ChatError, bad_request
from gemproxy.chat.jsontext import loads
from gemproxy.web.access import is_same_origin
from gemproxy.web.admin_sessions import LIFETIME, AdminSessions
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.responses import send_json

_READS = ("GET", "HEAD")

_COOKIE = "gemproxy_admin"
# Browsers send the cookie to these alone.
_COOKIE_PATH = "/admin"


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


# With no slots, where the map could not be kept.
@frozen(slots=False)
class Admin:
    """
    @ivar keys: those that open it; none if it is open to this machine alone.
    @ivar has_client_keys: whether clients need keys; nobody gets in without a key then.
    @ivar sessions: of browsers that have shown the key.
    @ivar endpoints: what can be asked for, besides logging in and out.
    @ivar refused: called when a key is refused.
    """

    keys: KnownKeys[bool]
    has_client_keys: Callable[[], bool]
    sessions: AdminSessions
    endpoints: Sequence[Endpoint] = ()
    refused: Callable[[], None] = lambda: None

    @cached_property
    def _map(self) -> Map:
        """Made for the first who asks: it takes longer than all else that a daemon is made of."""
        own = (
            Endpoint("GET", "/admin/login", self._tell, is_open=True),
            Endpoint("POST", "/admin/login", self._log_in, is_open=True),
            Endpoint("POST", "/admin/logout", self._log_out, is_open=True),
        )
        endpoints = (*own, *self.endpoints)
        rules = [Rule(one.rule, methods=[one.method], endpoint=one) for one in endpoints]
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
        if (error := self.refusal(request)) is not None:
            if error.status == UNAUTHORIZED:
                self.refused()
            raise error

    def refusal(self, request: ProxyRequest) -> ChatError | None:
        """Why the client may not be here; None if it may."""
        if self.keys:
            if self._shows_key(request):
                return None
            if not self.sessions.knows(_token_of(request)):
                return _key_needed()
        elif self.has_client_keys() or not request.is_of_this_machine:
            return ChatError(
                403,
                "permission_error",
                "This is open to the daemon's own machine, as long as clients need no keys."
                " Set ADMIN_KEY to use it.",
                "admin_closed",
            )
        # Who looks at the page of another site may sit at this machine, or be logged in.
        # CORS_ORIGINS opens the API to such a page, and not what the API was used for.
        return _refusal_of_other_sites(request)

    def check_change(self, request: ProxyRequest) -> None:
        """
        To be called before something is changed, after L{check}.

        @raise ChatError: 403, a page of another site sent the request, with what a browser adds by
            itself.
        """
        if not self._shows_key(request) and (error := _refusal_of_other_sites(request)):
            raise error

    def _tell(self, request: ProxyRequest) -> None:
        """Whether the client is let in, or why it is not, and whether a key would do it."""
        error = self.refusal(request)
        said = {"open": error is None, "code": error and error.code}
        send_json(request, said | {"needs_key": bool(self.keys)})

    def _log_in(self, request: ProxyRequest) -> None:
        if not self.keys:
            self.check(request)
            send_json(request, {"seconds": None})
            return
        if self.keys.find([_key_in(request.take_body())]) is None:
            self.refused()
            raise _key_needed()
        request.addCookie(
            _COOKIE,
            self.sessions.begin(),
            max_age=str(int(LIFETIME)),
            path=_COOKIE_PATH,
            secure=request.is_encrypted,
            httpOnly=True,
            sameSite="strict",
        )
        send_json(request, {"seconds": int(LIFETIME)})

    def _log_out(self, request: ProxyRequest) -> None:
        self.sessions.end(_token_of(request))
        request.addCookie(
            _COOKIE, "", max_age="0", path=_COOKIE_PATH, httpOnly=True, sameSite="strict"
        )
        send_json(request, {"seconds": 0})

    def _shows_key(self, request: ProxyRequest) -> bool:
        """Whether a request has the key where no browser puts one by itself."""
        return self.keys.find(request.credentials.keys()) is not None


def _key_needed() -> ChatError:
    return ChatError(
        UNAUTHORIZED,
        INVALID_REQUEST,
        "ADMIN_KEY is required here: Authorization: Bearer KEY.",
        "invalid_api_key",
    )


def _refusal_of_other_sites(request: ProxyRequest) -> ChatError | None:
    """Why a request is refused of which a browser says that it is of another site's page."""
    origin, host = request.header_text(b"origin"), request.header_text(b"host")
    if is_same_origin(origin, host, request.header_text(b"sec-fetch-site")):
        return None
    return ChatError(
        403,
        "permission_error",
        "Pages of other sites may not use /admin, unless they send ADMIN_KEY.",
        "cross_site",
    )


def _token_of(request: ProxyRequest) -> str:
    return (request.getCookie(_COOKIE.encode()) or b"").decode("latin-1")


def _key_in(body: bytes) -> str:
    """@raise ChatError: 400, the body is no JSON object with a key."""
    try:
        document = loads(body)
    except ValueError:
        document = None
    key = document.get("key") if isinstance(document, dict) else None
    if not isinstance(key, str):
        raise bad_request('The body must be {"key": ADMIN_KEY}.', "key")
    return key


def send_text(request: Request, text: str) -> None:
    body = text.encode("utf-8", "replace")
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"content-length", str(len(body)).encode())
    request.write(body)
