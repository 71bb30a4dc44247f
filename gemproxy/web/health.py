"""Responses for health checks and Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define
from twisted.web.server import Request

from gemproxy.metrics import Metrics
from gemproxy.web.responses import send_json


@define
class Health:
    """
    @ivar can_serve: whether a request would be answered without delay.
    @ivar has_served: whether that has ever been so.
    @ivar exhausted: the models whose quota is used up, and the seconds until they are tried again.
    @ivar resting: the upstreams that rest, and the seconds until they are tried again.
    @ivar stopping: whether the daemon is about to end.
    """

    metrics: Metrics
    can_serve: Callable[[], bool]
    has_served: Callable[[], bool]
    exhausted: Callable[[], Mapping[str, float]]
    resting: Callable[[], Mapping[str, float]] = dict
    stopping: bool = False

    def health(self, request: Request) -> None:
        """Whether the daemon is alive: 503 only until it can serve for the first time."""
        state, details = self._state()
        send_json(request, {"status": state} | details, 503 if state == "starting" else 200)

    def ready(self, request: Request) -> None:
        """Whether requests should be sent here."""
        state, _ = self._state()
        is_ready = self.can_serve() and not self.stopping
        send_json(request, {"ready": is_ready, "status": state}, 200 if is_ready else 503)

    def show_metrics(self, request: Request) -> None:
        body = self.metrics.render()
        request.setHeader(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        request.setHeader(b"content-length", str(len(body)).encode())
        request.write(body)

    def _state(self) -> tuple[str, dict[str, Any]]:
        exhausted = self.exhausted()
        details: dict[str, Any] = {
            "quota_exhausted": [
                {"model": model, "retry_after": round(wait)} for model, wait in exhausted.items()
            ]
        }
        resting = self.resting()
        if resting:
            details["upstreams_resting"] = [
                {"upstream": name, "retry_after": round(wait)} for name, wait in resting.items()
            ]
        if self.stopping:
            return "stopping", {}
        if not self.can_serve():
            return ("degraded", {"workers": 0}) if self.has_served() else ("starting", {})
        return ("degraded", details) if exhausted or resting else ("ok", {})
