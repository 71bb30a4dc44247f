"""The stand-in on its own: C{python -m testing.google --port 8080}."""

from __future__ import annotations

import argparse
from typing import Any

from twisted.internet import endpoints, task
from twisted.internet.defer import Deferred

from testing.google.app import StandIn

HOST = "127.0.0.1"


async def serve(reactor: Any, host: str, port: int) -> None:
    standin = StandIn(reactor, keep=0)
    listening = await endpoints.TCP4ServerEndpoint(reactor, port, interface=host).listen(
        standin.site()
    )
    print(f"http://{host}:{listening.getHost().port}", flush=True)
    await Deferred()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m testing.google", description="A stand-in for Google's Gemini API."
    )
    parser.add_argument("--host", default=HOST, help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    given = parser.parse_args()
    task.react(lambda reactor: Deferred.fromCoroutine(serve(reactor, given.host, given.port)))


if __name__ == "__main__":
    main()
