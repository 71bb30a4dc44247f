"""The demo: a server with the methods of Gemini's API that gemproxy needs, which echoes."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from gemproxy.chat.request import is_large
from gemproxy.chat.sse import Event, encode
from gemproxy.demo.answer import answer_to
from gemproxy.demo.echo import PACE
from gemproxy.http.site import QuietSite
from gemproxy.offload.pool import Offload


class _Models(Resource):
    """C{/v1beta/models/MODEL:streamGenerateContent}, and C{:countTokens}."""

    isLeaf = True

    def __init__(self, reactor: Any, offload: Offload) -> None:
        super().__init__()
        self._reactor = reactor
        self._offload = offload

    def render_POST(self, request: Request) -> int:
        answering = Deferred.fromCoroutine(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        assert request.content is not None  # noqa: S101 - for mypy
        model, _, method = request.path.decode("latin-1").rpartition("/")[2].partition(":")
        raw = request.content.read()
        answer = await self._offload.when(is_large(raw), answer_to, model, method, raw)
        del raw
        request.setResponseCode(answer.status)
        if answer.document is not None:
            request.setHeader(b"content-type", b"application/json")
            request.write(answer.document)
        else:
            request.setHeader(b"content-type", b"text/event-stream")
            for event in answer.events:
                request.write(encode(Event(event)))
                await deferLater(self._reactor, PACE)
        request.finish()


class Demo(Service):
    """
    Serves the echo on loopback.

    @ivar url: its base URL, once it runs.
    """

    def __init__(self, reactor: Any, offload: Offload) -> None:
        """@param offload: reads large requests."""
        self._reactor = reactor
        self._offload = offload
        self._port: Any = None
        self.url = ""

    def startService(self) -> None:
        super().startService()
        site = QuietSite(_Models(self._reactor, self._offload), reactor=self._reactor)
        self._port = self._reactor.listenTCP(0, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"

    def stopService(self) -> Any:
        super().stopService()
        return self._port.stopListening()
