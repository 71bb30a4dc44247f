"""What the CLI is made to take for Google's API: it answers when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object
from gemproxy.http.site import QuietSite


class AskedOf:
    """
    One request of the CLI's.

    @ivar target: its path and query.
    @ivar key: what it shows as a key.
    @ivar body: its JSON; empty if it is none.
    @ivar is_gone: whether the CLI has closed the connection before the end of the reply.
    """

    def __init__(self, request: Request, look: Callable[[], None]) -> None:
        """@param look: called when something has happened."""
        self.target = request.uri.decode("latin-1")
        self.key = request.getHeader("x-goog-api-key")
        assert request.content is not None  # noqa: S101 - for mypy
        try:
            self.body = as_object(loads(request.content.read()))
        except ValueError:
            self.body = {}
        self.is_gone = False
        self._request = request
        self._look = look
        self._is_open = True
        request.notifyFinish().addErrback(self._lost)

    def _lost(self, _: Any) -> None:
        self._is_open = False
        self.is_gone = True
        self._look()

    @property
    def contents(self) -> Any:
        """What it has of the conversation."""
        return self.body.get("contents")

    def say(self, text: str | None = None, finish: str | None = None) -> None:
        """Send a piece of a reply, with no text or with some."""
        parts = [] if text is None else [{"text": text}]
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}}
        if finish is not None:
            candidate["finishReason"] = finish
        self._request.setHeader(b"content-type", b"text/event-stream")
        self._request.write(b"data: " + dumps({"candidates": [candidate]}) + b"\n\n")

    def end(self, text: str | None = "Fine.") -> None:
        """Come to a regular end, with a text or with none."""
        if self._is_open:
            self.say(text, "STOP")
            self.cut()

    def cut(self) -> None:
        """End the reply, wherever it is."""
        self._is_open = False
        self._request.finish()

    def refuse(self, status: int) -> None:
        error = {"code": status, "message": "Try again later.", "status": "UNAVAILABLE"}
        self._request.setResponseCode(status)
        self._request.setHeader(b"content-type", b"application/json")
        self._request.write(dumps({"error": error}))
        self.cut()


class GoogleStandIn(Resource):
    """
    Listens on loopback.

    @ivar url: its base URL.
    @ivar asked: all requests, the oldest first.
    """

    isLeaf = True

    def __init__(self, reactor: Any, look: Callable[[], None]) -> None:
        """@param look: called when something has happened."""
        super().__init__()
        self.asked: list[AskedOf] = []
        self._look = look
        site = QuietSite(self, reactor=reactor)
        self._port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}/contract"

    def render(self, request: Request) -> int:
        self.asked.append(AskedOf(request, self._look))
        self._look()
        return NOT_DONE_YET

    async def stop(self) -> None:
        for asked in self.asked:
            asked.end()
        await self._port.stopListening()
