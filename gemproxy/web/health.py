"""Responses for health checks and Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import define
from twisted.web.server import Request

from gemproxy.processes.place import Place
from gemproxy.siblings.asking import NO_SIBLINGS, Siblings
from gemproxy.web.responses import send_json

# Seconds without a worker that stays after which a restart of the daemon may be the cure.
_PATIENCE = 120.0
# Seconds that other processes have to say how they are: whoever asks may wait for one second.
_PATIENCE_WITH_OTHERS = 0.5
_NOT_ALIVE = ("starting", "failing")
_PASSING = ("starting", "stopping")
_BAD = ("failing", "silent")
_HEALTH, _READY = "/health", "/ready"


@define
class Health:
    """
    @ivar metrics: renders them.
    @ivar can_serve: whether a request would be answered without delay.
    @ivar has_served: whether that has ever been so.
    @ivar exhausted: the models whose quota is used up, and the seconds until they are tried again.
    @ivar resting: the upstreams that rest, and the seconds until they are tried again.
    @ivar lacking: for how many seconds there has been no worker that stays.
    @ivar state_problem: why the state that daemons share is away; None if it is not, or if there
        is none.
    @ivar stopping: whether the daemon is about to end.
    """

    metrics: Callable[[], Awaitable[bytes]]
    can_serve: Callable[[], bool]
    has_served: Callable[[], bool]
    exhausted: Callable[[], Mapping[str, float]]
    resting: Callable[[], Mapping[str, float]] = dict
    lacking: Callable[[], float] = float
    state_problem: Callable[[], str | None] = lambda: None
    stopping: bool = False
    siblings: Siblings = NO_SIBLINGS

    def __attrs_post_init__(self) -> None:
        self.siblings.answer(_HEALTH, lambda _: self._said())
        self.siblings.answer(_READY, lambda _: self._is_ready())

    async def health(self, request: Request) -> None:
        """
        Whether the daemon is alive: 503 until it can serve for the first time, and when it has not
        been able to for minutes. One of several processes speaks for all.
        """
        said = self._said()
        if self.siblings.are_possible:
            answers = await self.siblings.ask(_HEALTH, patience=_PATIENCE_WITH_OTHERS)
            said = health_of_all(said, answers, self.siblings.place)
        is_alive = said["status"] not in _NOT_ALIVE
        send_json(request, said, 200 if is_alive else 503)

    async def ready(self, request: Request) -> None:
        """Whether requests should be sent here, be it for the sake of another process."""
        is_ready = self._is_ready()
        if not is_ready:
            answers = await self.siblings.ask(_READY, patience=_PATIENCE_WITH_OTHERS)
            is_ready = any(answers.values())
        state, _ = self._state()
        send_json(request, {"ready": is_ready, "status": state}, 200 if is_ready else 503)

    def _said(self) -> dict[str, Any]:
        state, details = self._state()
        return {"status": state} | details

    def _is_ready(self) -> bool:
        return self.can_serve() and not self.stopping

    async def show_metrics(self, request: Request) -> None:
        body = await self.metrics()
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


def health_of_all(
    said: dict[str, Any], answers: Mapping[str, dict[str, Any] | None], place: Place
) -> dict[str, Any]:
    """
    What all processes say together. One that comes or goes is no matter, if the others are as many
    as there should be.

    @param said: by this process.
    @param answers: of the others, by their names.
    """
    others = {name: answer or {"status": "silent"} for name, answer in answers.items()}
    all_said = {place.name: said} | others
    states = [one["status"] for one in all_said.values()]
    lasting = [state for state in states if state not in _PASSING]
    if not lasting:
        state = "starting" if "starting" in states else "stopping"
    elif all(state in _BAD for state in lasting):
        state = "failing"
    elif all(state == "ok" for state in lasting) and len(lasting) >= place.count:
        state = "ok"
    else:
        state = "degraded"
    processes = [{"process": name} | one for name, one in sorted(all_said.items())]
    return said | {"status": state, "processes": processes}
