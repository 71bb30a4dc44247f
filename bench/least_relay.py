"""
The least that Klein and treq need to relay an answer: C{python -m bench.least_relay PORT UPSTREAM}.

It passes bytes on, looks at none of them, and does nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

import treq
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.server import Request, Site

# Connections that are kept, as gemproxy keeps them.
_KEPT = 512


class _Copy(Protocol):
    def __init__(self, request: Request, over: Deferred[None]) -> None:
        self._request, self._over = request, over

    def connectionMade(self) -> None:
        self._request.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self._request.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._request.unregisterProducer()
        self._over.callback(None)


def main(port: int, upstream: int) -> None:
    from twisted.internet import reactor

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = _KEPT
    agent: Any = Agent(reactor, pool=pool)
    app = Klein()

    @app.route("/<path:path>", methods=["POST"])
    async def relay(request: Any, path: str) -> None:
        response = await treq.request(
            request.method.decode(),
            f"http://127.0.0.1:{upstream}/{path}",
            data=request.content.read(),
            headers={"Content-Type": "application/json"},
            agent=agent,
            unbuffered=True,
        )
        request.setResponseCode(response.code)
        for value in response.headers.getRawHeaders(b"content-type", []):
            request.setHeader(b"content-type", value)
        over: Deferred[None] = Deferred()
        response.deliverBody(_Copy(request, over))
        await over

    running: Any = reactor
    running.listenTCP(port, Site(app.resource()), backlog=_KEPT, interface="127.0.0.1")
    running.run()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
