"""The demo: a server with the methods of Gemini's API that gemproxy needs, which echoes."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object
from gemproxy.chat.sse import Event, encode
from gemproxy.demo import rules
from gemproxy.demo.echo import PACE, prompt_length, responses
from gemproxy.demo.spelling import canonical
from gemproxy.http.site import QuietSite


class _Models(Resource):
    """C{/v1beta/models/MODEL:streamGenerateContent}, and C{:countTokens}."""

    isLeaf = True

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor

    def render_POST(self, request: Request) -> Any:
        assert request.content is not None  # noqa: S101 - for mypy
        name, _, method = request.path.decode("latin-1").rpartition("/")[2].partition(":")
        try:
            body = canonical(loads(request.content.read()))
        except ValueError:
            body = None
        if method == "countTokens" and isinstance(body, dict):
            request.setHeader(b"content-type", b"application/json")
            asked = as_object(body.get("generateContentRequest", body))
            return dumps({"totalTokens": prompt_length(asked)})
        if method != "streamGenerateContent" or not isinstance(body, dict):
            request.setResponseCode(404)
            return b""
        if (fault := rules.fault(name, body)) is not None:
            request.setResponseCode(400)
            request.setHeader(b"content-type", b"application/json")
            return dumps({"error": {"code": 400, "message": fault, "status": "INVALID_ARGUMENT"}})
        answering = Deferred.fromCoroutine(self._answer(request, name, body))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET

    async def _answer(self, request: Request, model: str, body: dict[str, Any]) -> None:
        request.setHeader(b"content-type", b"text/event-stream")
        for response in responses(model, body):
            request.write(encode(Event(response)))
            await deferLater(self._reactor, PACE)
        request.finish()


class Demo(Service):
    """
    Serves the echo on loopback.

    @ivar url: its base URL, once it runs.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._port: Any = None
        self.url = ""

    def startService(self) -> None:
        super().startService()
        site = QuietSite(_Models(self._reactor), reactor=self._reactor)
        self._port = self._reactor.listenTCP(0, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"

    def stopService(self) -> Any:
        super().stopService()
        return self._port.stopListening()
