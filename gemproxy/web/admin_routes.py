"""What /admin says of the routes, and reading the configuration anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from gemproxy.routing.table import RoutingTable, as_text
from gemproxy.util.masking import NO_KEYS, Masking
from gemproxy.web.admin import Endpoint, send_text
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.responses import send_json


@frozen
class AdminRoutes:
    """
    @ivar table: the routing table of now.
    @ivar reload: reads the configuration anew; returns what has changed, or raises a ChatError.
    @ivar own_keys: of this daemon, in case that somebody took one for the name of a model.
    """

    table: Callable[[], RoutingTable]
    reload: Callable[[], list[str]]
    own_keys: Masking = NO_KEYS

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint("GET", "/admin/routes", self._show),
            Endpoint("POST", "/admin/reload", self._reload),
        )

    def _show(self, request: ProxyRequest) -> None:
        mask = self.own_keys.in_errors().in_text
        rows = [(mask(name), mask(to)) for name, to in self.table().rows()]
        if "json" in (request.header_text(b"accept") or ""):
            send_json(request, {"routes": [{"model": name, "target": to} for name, to in rows]})
            return
        send_text(request, as_text(rows))

    def _reload(self, request: ProxyRequest) -> None:
        send_json(request, {"changed": self.reload()})
