"""The stand-in itself: the Gemini API's paths, and the record of what came in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson
from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException

from gemproxy.chat.shapes import objects_in
from gemproxy.demo import echo as demo
from gemproxy.demo import rules
from gemproxy.http.site import QuietSite
from testing.google import refusals
from testing.google.kept import KEPT_METHODS, Kept
from testing.google.playback import Playback
from testing.google.receive import receive
from testing.google.recorded_request import Once, ReceivedRequest
from testing.google.refusals import Refusal
from testing.google.responses import ARRAY, SSE, Responder, embeddings, prompt_tokens, token_count
from testing.google.scenarios import Scenario
from testing.google.vertex import vertex_fault

MODELS = ("gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro", "gemini-3-pro-preview")

Description = str | Mapping[str, Any]
"""A model: its name, or what its description differs in, C{name} among it."""

_VERTEX = "v1beta1"
_PAGE_SIZE = 50
_LARGEST_PAGE = 1000
_METHODS = ("generateContent", "streamGenerateContent", "countTokens")
_EMBEDDING = ("embedContent", "batchEmbedContents", "predict")

_MODEL = "/<any(v1beta, v1, v1alpha):version>/models/<model>"
# Vertex AI's: docs.cloud.google.com/vertex-ai/generative-ai/docs/reference/rest
_PUBLISHER = "/<any(v1beta1):version>/<path:place>publishers/google/models"
_EXPRESS = "/<any(v1beta1):version>/publishers/google/models"


def echo(request: ReceivedRequest) -> Scenario:
    """What the demo answers."""
    echoed = demo.echo(request.model, request.body or {})
    pace = demo.PACE if len(echoed.chunks) > 1 else 0.0
    return Scenario(echoed.chunks, pace=pace, finish_reason=echoed.finish_reason)


class StandIn:
    """
    Google's API: generating, counting, embedding, and what is kept for the owner of a key.

    @ivar models: what to list; an answer is generated for any name.
    @ivar models_by_key: what to list for some keys instead.
    @ivar largest_page: models in a page, at most.
    @ivar chooser: says how to answer when no play is queued.
    @ivar list_refusal: what is answered instead of a list.
    @ivar count_refusal: what is answered instead of a count of tokens.
    @ivar lists_held: if set, lists are answered when it has happened.
    @ivar tokens: the access tokens that Vertex AI takes.
    """

    app = Klein()

    def __init__(
        self,
        clock: IReactorTime,
        chooser: Callable[[ReceivedRequest], Scenario] = echo,
        *,
        keep: int = 1000,
        keys: Collection[str] | None = None,
        models: Sequence[Description] = MODELS,
    ) -> None:
        """
        @param chooser: see the attribute.
        @param keep: the number of requests to remember, the last ones.
        @param keys: the API keys that are valid; C{None} for all.
        """
        self.models = models
        self.models_by_key: dict[str, Sequence[Description]] = {}
        self.largest_page = _LARGEST_PAGE
        self.list_refusal: Refusal | None = None
        self.count_refusal: Refusal | None = None
        self.lists_held: Once[None] | None = None
        self.tokens: set[str] = set()
        self._clock = clock
        self.chooser = chooser
        self._keys = keys
        self._plays: deque[Scenario] = deque()
        self._kept: deque[ReceivedRequest] = deque(maxlen=keep)
        self._count = 0
        self._arrivals: dict[int, Once[ReceivedRequest]] = {}
        self._running: set[Playback] = set()
        self._factories: list[_Connections] = []
        self._signatures: dict[str, str] = {}
        self._kept_things = Kept()

    def play(self, *plays: Scenario) -> None:
        """Queue plays, for one request each, in the order in which the requests come."""
        self._plays.extend(plays)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The remembered requests of all methods, the oldest first."""
        return list(self._kept)

    def when_request(self, number: int) -> Deferred[ReceivedRequest]:
        """
        Fires when a request has arrived, body and all, and its play has begun.

        @param number: 0 for the first one since the start.
        """
        if number >= self._count:
            return self._arrivals.setdefault(number, Once()).wait()
        forgotten = self._count - len(self._kept)
        if number < forgotten:
            return fail(LookupError(f"request {number} is forgotten"))
        return succeed(self._kept[number - forgotten])

    def resource(self) -> KleinResource:
        return self.app.resource()

    def site(self) -> IProtocolFactory:
        """A factory to listen with, whose connections L{stop} ends."""
        site = QuietSite(self.resource(), reactor=self._clock)
        factory = _Connections(site)
        self._factories.append(factory)
        return factory

    def stop(self) -> Deferred[None]:
        """
        Cut whatever is under way. To be called once nothing listens any more.

        @return: fires when no connection is left.
        """
        ends: list[Deferred[Any]] = []
        for performance in list(self._running):
            ends.append(performance.when_closed())
            performance.cut()
        ends += [factory.end() for factory in self._factories]
        return gatherResults(ends).addCallback(lambda _: None)

    @app.route(f"{_MODEL}:<method>", methods=["POST"])
    @app.route(f"{_EXPRESS}/<model>:<method>", methods=["POST"])
    @app.route(f"{_PUBLISHER}/<model>:<method>", methods=["POST"])
    async def _ask(
        self, request: Request, version: str, model: str, method: str, place: str = ""
    ) -> None:
        received = self._receive(request, version=version, model=model, method=method)
        performance = Playback(self._clock, request, received)
        self._running.add(performance)
        try:
            answering = Deferred.fromCoroutine(self._answer(received, performance))
            self._arrived(received)
            await answering
        finally:
            self._running.discard(performance)
            performance.over()

    async def _answer(self, received: ReceivedRequest, performance: Playback) -> None:
        refusal = self._refusal(received)
        if refusal is not None:
            return performance.refuse(refusal)
        if received.method == "countTokens":
            if self.count_refusal is not None:
                return performance.refuse(self.count_refusal)
            return performance.document(token_count(received))
        if received.method in _EMBEDDING:
            if self._plays and self._plays[0].refusal is not None:
                return performance.refuse(self._plays.popleft().refusal)
            return performance.document(embeddings(received))
        play = self._plays.popleft() if self._plays else self.chooser(received)
        received.play = play
        self._sign(play, received.key or _VERTEX)
        responder = Responder(
            received.model, f"stand-in-{received.number}", prompt_tokens(received)
        )
        if received.method == "generateContent":
            return await performance.whole(play, responder)
        framing = SSE if received.query.get("alt") == "sse" else ARRAY
        return await performance.stream(play, responder, framing)

    @app.route("/<any(v1beta, v1, v1alpha):version>/models", methods=["GET"])
    async def _list(self, request: Request, version: str) -> None:
        received = self._receive(request, version=version, model="", method="list")
        if self.lists_held is not None:
            self._arrived(received)
            await self.lists_held.wait()
        size = min(int(received.query.get("pageSize", _PAGE_SIZE)), self.largest_page)
        start = int(received.query.get("pageToken", "at-0").removeprefix("at-"))
        models = self.models_by_key.get(received.key or "", self.models)
        page: dict[str, Any] = {"models": [_description(m) for m in models[start : start + size]]}
        if start + size < len(models):
            page["nextPageToken"] = f"at-{start + size}"
        self._describe(request, received, page)

    @app.route(_EXPRESS, methods=["GET"])
    def _published(self, request: Request, version: str) -> None:
        received = self._receive(request, version=version, model="", method="list")
        names = [_description(model)["name"] for model in self.models]
        models = [{"name": f"publishers/google/{name}", "versionId": "001"} for name in names]
        self._describe(request, received, {"publisherModels": models})

    @app.route("/upload/<version>/files", methods=["POST"])
    def _upload(self, request: Request, version: str) -> None:
        received = self._receive(request, version=version, model="", method="upload")
        # An address for the bytes holds the right to send them.
        refusal = None if "upload_id" in received.query else self._refusal(received)
        playback = Playback(self._clock, request, received)
        self._kept_things.upload(playback, request, received, refusal)
        self._arrived(received)

    @app.route("/<version>/<any(files, cachedContents):kind>", methods=["GET", "POST"])
    @app.route("/<version>/<any(files, cachedContents):kind>/<name>", methods=["GET", "DELETE"])
    def _kept_thing(self, request: Request, version: str, kind: str, name: str = "") -> None:
        received = self._receive(request, version=version, model="", method=kind)
        refusal = self._refusal(received)
        playback = Playback(self._clock, request, received)
        self._kept_things.answer(playback, request, received, name, refusal)
        self._arrived(received)

    @app.route(_MODEL, methods=["GET"])
    def _get(self, request: Request, version: str, model: str) -> None:
        received = self._receive(request, version=version, model=model, method="get")
        self._describe(request, received, _description(model))

    @app.handle_errors(HTTPException)
    def _no_such_path(self, request: IRequest, failure: Failure) -> None:
        refusal = refusals.error(404, "Nothing is served here.")
        request.setResponseCode(refusal.status)
        request.setHeader("content-type", refusal.content_type)
        request.write(refusal.body)

    def _describe(
        self, request: Request, received: ReceivedRequest, description: dict[str, Any]
    ) -> None:
        performance = Playback(self._clock, request, received)
        refusal = self._refusal(received)
        if refusal is not None:
            performance.refuse(refusal)
        else:
            performance.document(orjson.dumps(description))
        self._arrived(received)

    def _refusal(self, received: ReceivedRequest) -> Refusal | None:
        """What is wrong with a request, whatever the play."""
        key = received.key
        if received.version == _VERTEX and not received.headers.get("x-goog-api-key"):
            if received.token not in self.tokens:
                return refusals.wrong_token()
            key = _VERTEX
        if not key:
            return refusals.no_key()
        if self._keys is not None and key not in self._keys:
            return refusals.wrong_key()
        method, model = received.method, received.model
        if method == "get":
            known = f"models/{model}" in [_description(m)["name"] for m in self.models]
            return None if known else refusals.unknown_model(model, received.version, method)
        if method == "list" and self.list_refusal is not None:
            return self.list_refusal
        is_known = method in ("list", *_METHODS, *_EMBEDDING, *KEPT_METHODS)
        if not is_known or (method == "predict" and received.version != _VERTEX):
            return refusals.unknown_model(model, received.version, method)
        if method in (*_METHODS, *_EMBEDDING) and received.body is None:
            return refusals.error(400, "Invalid JSON payload received.")
        if received.version == _VERTEX:
            fault = vertex_fault(method, model, received.body or {})
            if fault is not None:
                return refusals.error(400, fault)
        elif method in _EMBEDDING and (fault := rules.embedding_fault(received.body or {}, model)):
            return refusals.error(400, fault)
        if method.endswith("enerateContent") and received.body is not None:
            fault = rules.fault(model, received.body)
            if fault is None and self._has_foreign_signature(received, key):
                # Roo-Code#10554, crush#1698, gemini-cli#13467
                fault = "Corrupted thought signature."
            if fault is not None:
                return refusals.error(400, fault)
        return None

    def _has_foreign_signature(self, received: ReceivedRequest, key: str) -> bool:
        """Whether a signature was not made here, with the same key."""
        if received.model.startswith("gemini-2"):
            return False
        parts = (part for content in received.contents for part in objects_in(content.get("parts")))
        given = {part["thoughtSignature"] for part in parts if "thoughtSignature" in part}
        return any(self._signatures.get(signature, key) != key for signature in given) or bool(
            given - self._signatures.keys() - {rules.DUMMY_SIGNATURE}
        )

    def _sign(self, play: Scenario, key: str) -> None:
        """Remember the signatures of an answer."""
        for chunk in play.chunks:
            for part in () if isinstance(chunk, bytes) else chunk:
                if "thoughtSignature" in part:
                    self._signatures[part["thoughtSignature"]] = key

    def _receive(
        self, request: Request, *, version: str, model: str, method: str
    ) -> ReceivedRequest:
        number = self._count
        received = receive(
            request, number, self._clock.seconds(), version=version, model=model, method=method
        )
        self._count += 1
        self._kept.append(received)
        return received

    def _arrived(self, received: ReceivedRequest) -> None:
        arrival = self._arrivals.pop(received.number, None)
        if arrival is not None:
            arrival.happen(received)


def _description(model: Description) -> dict[str, Any]:
    own: Mapping[str, Any] = {"name": f"models/{model}"} if isinstance(model, str) else model
    return {
        "version": "001",
        "displayName": own["name"].removeprefix("models/"),
        "description": "Played by a stand-in.",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": list(_METHODS),
        **own,
    }


class _Connections(WrappingFactory[ProtocolWrapper]):
    """Knows its connections, to end them."""

    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._ended: Once[None] | None = None

    def end(self) -> Deferred[None]:
        if self._ended is None:
            self._ended = Once()
            for connection in list(self.protocols):
                connection.abortConnection()
            self._check()
        return self._ended.wait()

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        self._check()

    def _check(self) -> None:
        if self._ended is not None and not self.protocols:
            self._ended.happen(None)
