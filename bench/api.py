"""
The Gemini API that the Gemini route is measured with: the product's stand-in, with a fixed play.

A process of its own: C{python -m bench.api PORT}. It prints the size of each request.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import endpoints, task
from twisted.internet.defer import Deferred

from bench.answers import Spec
from testing.google.app import StandIn
from testing.google.recorded_request import ReceivedRequest
from testing.google.scenarios import Scenario, answer


def words(spec: Spec) -> list[str]:
    return [f"#{number:06d} " for number in range(spec.chunks)]


def _play(request: ReceivedRequest) -> Scenario:
    print(len(request.raw), flush=True)
    told = " ".join(text for _, text in request.texts)
    spec = Spec.of_model(told)
    return answer(*words(spec), pace=spec.pace / 1000)


async def _serve(reactor: Any, port: int) -> None:
    site = StandIn(reactor, _play, keep=0).site()
    await endpoints.TCP4ServerEndpoint(reactor, port, 1000, "127.0.0.1").listen(site)
    await Deferred()


if __name__ == "__main__":
    given = int(sys.argv[1])
    task.react(lambda reactor: Deferred.fromCoroutine(_serve(reactor, given)))
