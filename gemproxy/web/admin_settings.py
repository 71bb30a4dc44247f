"""C{/admin/settings}: the settings that the daemon runs with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemproxy.chat.jsontext import dumps
from gemproxy.util.masking import Masking
from gemproxy.web.admin import Endpoint
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.responses import send_rendered


def settings_endpoint(
    version: str, settings: Callable[[], dict[str, Any]], own_keys: Masking
) -> Endpoint:
    """
    @param version: of gemproxy.
    @param settings: those of now, for JSON.
    @param own_keys: of this daemon, in case that one is in a setting that is no secret.
    """

    def show(request: ProxyRequest) -> None:
        document = {"version": version} | settings()
        send_rendered(request, own_keys.in_errors().in_bytes(dumps(document)))

    return Endpoint("GET", "/admin/settings", show)
