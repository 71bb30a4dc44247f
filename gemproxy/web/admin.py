"""What those who run the daemon may ask of it, below /admin."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from attrs import frozen
from twisted.web.server import Request

from gemproxy.chat.errors import INVALID_REQUEST, ChatError
from gemproxy.chat.request import KEY_HEADERS
from gemproxy.routing.table import RoutingTable, as_text
from gemproxy.util.masking import NO_KEYS, Masking
from gemproxy.web.access import is_loopback
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.responses import send_json


@frozen
class Admin:
    """
    @ivar key: the key that opens it; None if it is open to this machine alone.
    @ivar has_client_keys: whether clients need keys; nobody gets in without a key then.
    @ivar table: the routing table of now.
    @ivar reload: reads the configuration anew; returns what has changed, or raises a ChatError.
    @ivar own_keys: of this daemon, in case that somebody took one for the name of a model.
    @ivar refused: called when a key is refused.
    """

    key: str | None
    has_client_keys: bool
    table: Callable[[], RoutingTable]
    reload: Callable[[], list[str]]
    own_keys: Masking = NO_KEYS
    refused: Callable[[], None] = lambda: None

    def check(self, request: ProxyRequest) -> None:
        """@raise ChatError: 401 or 403, the client may not be here."""
        if self.key is not None:
            if not any(hmac.compare_digest(key, self.key.encode()) for key in _keys_of(request)):
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

    def routes(self, request: ProxyRequest) -> None:
        self.check(request)
        mask = self.own_keys.in_errors().in_text
        rows = [(mask(name), mask(to)) for name, to in self.table().rows()]
        if "json" in (request.header_text(b"accept") or ""):
            send_json(request, {"routes": [{"model": name, "target": to} for name, to in rows]})
            return
        send_text(request, as_text(rows))

    def do_reload(self, request: ProxyRequest) -> None:
        self.check(request)
        send_json(request, {"changed": self.reload()})


def send_text(request: Request, text: str) -> None:
    body = text.encode("utf-8", "replace")
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    request.setHeader(b"content-length", str(len(body)).encode())
    request.write(body)


def _keys_of(request: ProxyRequest) -> list[bytes]:
    values = [request.header_text(name) or "" for name in (b"authorization", *KEY_HEADERS)]
    return [word.encode("utf-8", "replace") for value in values for word in value.split()]
