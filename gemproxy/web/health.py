"""Responses for health checks and Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define
from twisted.web.server import Request

from gemproxy.metrics import Metrics
from gemproxy.web.responses import send_json

# Seconds without a worker that stays after which a restart of the daemon may be the cure.
_PATIENCE = 120.0


@define
class Health:
    """
    @ivar can_serve: whether a request would be answered without delay.
    @ivar has_served: whether that has ever been so.
    @ivar exhausted: the models whose quota is used up, and the seconds until they are tried again.
    @ivar resting: the upstreams that rest, and the seconds until they are tried again.
    @ivar lacking: for how many seconds there has been no worker that stays.
    @ivar state_problem: why the state that daemons share is away; None if it is not, or if there
        is none.
    @ivar stopping: whether the daemon is about to end.
    """

    metrics: Metrics
    can_serve: Callable[[], bool]
    has_served: Callable[[], bool]
    exhausted: Callable[[], Mapping[str, float]]
    resting: Callable[[], Mapping[str, float]] = dict
    lacking: Callable[[], float] = float
    state_problem: Callable[[], str | None] = lambda: None
    stopping: bool = False

    def health(self, request: Request) -> None:
        """
        Whether the daemon is alive: 503 until it can serve for the first time, and when it has not
        been able to for minutes.
        """
        state, details = self._state()
        is_alive = state not in ("starting", "failing")
        send_json(request, {"status": state} | details, 200 if is_alive else 503)

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
        problem = self.state_problem()
        if problem is not None:
            details["shared_state"] = problem
        if self.stopping:
            return "stopping", {}
        if self.has_served() and (lacking := self.lacking()) > _PATIENCE:
            return "failing", {"seconds_without_lasting_worker": round(lacking)}
        if not self.can_serve():
            return ("degraded", {"workers": 0}) if self.has_served() else ("starting", {})
        is_degraded = exhausted or resting or problem is not None
        return ("degraded", details) if is_degraded else ("ok", {})
