"""What /admin says of the routes, and reading the configuration anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import SERVER_ERROR, ChatError
from gemproxy.routing.table import RoutingTable, as_text
from gemproxy.siblings.asking import NO_SIBLINGS, SILENT, Siblings
from gemproxy.util.masking import NO_KEYS, Masking
from gemproxy.web.admin import Endpoint, send_text
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.responses import send_json

_RELOAD = "/reload"
# Seconds that other processes have for it.
_PATIENCE = 10.0


@frozen
class AdminRoutes:
    """
    @ivar table: the routing table of now.
    @ivar reload: reads the configuration anew; returns what has changed, or raises a ChatError.
    @ivar own_keys: of this daemon, in case that somebody took one for the name of a model.
    @ivar siblings: other processes, which read the configuration when this one does.
    """

    table: Callable[[], RoutingTable]
    reload: Callable[[], list[str]]
    own_keys: Masking = NO_KEYS
    siblings: Siblings = NO_SIBLINGS

    def __attrs_post_init__(self) -> None:
        self.siblings.answer(_RELOAD, self._reload_here)

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

    async def _reload(self, request: ProxyRequest) -> None:
        """@raise ChatError: 422, it is invalid; 503, another process has not taken it."""
        changed = set(self.reload())
        problems = []
        answers = await self.siblings.ask(_RELOAD, patience=_PATIENCE)
        for name, answer in answers.items():
            if answer is SILENT:
                problems.append(f"Process {name} does not answer.")
            elif "refused" in answer:
                problems.append(f"Process {name}: {answer['refused']}")
            else:
                changed.update(answer["changed"])
        if problems:
            raise ChatError(
                503,
                SERVER_ERROR,
                "Not all processes have read the configuration anew. " + " ".join(problems),
                "partly_reloaded",
            )
        send_json(request, {"changed": sorted(changed)})

    def _reload_here(self, _: None) -> dict[str, Any]:
        try:
            return {"changed": self.reload()}
        except ChatError as error:
            return {"refused": error.message}
