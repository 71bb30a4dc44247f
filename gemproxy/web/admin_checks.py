"""C{/admin/checks}: what C{gemproxy doctor} finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from gemproxy.doctor.findings import Finding
from gemproxy.web.admin import Endpoint
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.responses import send_json


def checks_endpoint(examine: Callable[[], Awaitable[Sequence[Finding]]]) -> Endpoint:
    """@param examine: checks all that the daemon needs."""

    async def show(request: ProxyRequest) -> None:
        findings = await examine()
        send_json(request, {"checks": [finding.as_json() for finding in findings]})

    return Endpoint("GET", "/admin/checks", show)
