"""The Stream Proxy: one address for the models of Gemini and all others."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from werkzeug.exceptions import HTTPException

from gemproxy.backend import Backend
from gemproxy.chat.errors import ChatError, model_not_found, unknown_url
from gemproxy.chat.models import plain_name, served_model
from gemproxy.chat.request import ChatRequest, model_of
from gemproxy.http.headers import asks_for_websocket
from gemproxy.util.log import make_logger
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.chat import ChatService
from gemproxy.web.detached import Detached
from gemproxy.web.gemini_models import GeminiModels
from gemproxy.web.health import Health
from gemproxy.web.passthrough import Passthrough
from gemproxy.web.paths import PASSED_PREFIXES, model_in_path, names_a_model
from gemproxy.web.responses import send_json
from gemproxy.web.site import (
    SERVED_FOR_GEMINI,
    body_of,
    chat_request_of,
    headers_of,
    images_request_of,
    make_app,
)
from gemproxy.web.upload import Upload
from gemproxy.web.upstream_models import ListedModels, UpstreamModels


class StreamProxy:
    """
    One port for the models of Gemini and of an upstream together.

    @ivar app: the Klein application.
    @ivar health: what the routes of health report.
    """

    app = make_app()
    log = make_logger()

    def __init__(
        self,
        gemini: Backend,
        gemini_models: GeminiModels,
        upstream: Backend,
        passthrough: Passthrough,
        health: Health,
        chats: ChatService,
    ) -> None:
        """
        @param gemini_models: decides which models are for C{gemini}.
        @param passthrough: forwards all other requests to the same upstream.
        """
        self._gemini = gemini
        self._gemini_models = gemini_models
        self._upstream = upstream
        self._upstream_models = UpstreamModels(upstream, passthrough.upstream.fixed_key is not None)
        self._passthrough = passthrough
        self.health = health
        self._chats = chats

    @app.route("/v1/chat/completions", methods=["POST"])
    def chat_completions(self, request: ProxyRequest) -> Detached:
        return Detached(self._answer(request, chat_request_of(request)))

    async def _answer(self, request: ProxyRequest, chat: ChatRequest) -> None:
        backend, route = self._upstream, "stream/upstream"
        if await self._gemini_models.has(chat.model, chat.headers):
            chat = evolve(chat, model=plain_name(chat.model))
            backend, route = self._gemini, "stream/gemini"
        await self._chats.answer(request, chat, backend, route)

    @app.route("/v1/images/generations", methods=["POST"])
    async def images_generations(self, request: ProxyRequest) -> None:
        raw = body_of(request)
        if not await self._is_for_gemini(request, raw):
            await self._passthrough.serve(request, raw)
            return
        images = images_request_of(request, raw)
        chat = evolve(images.chat, model=plain_name(images.chat.model))
        images = evolve(images, chat=chat)
        await self._chats.answer_images(request, images, self._gemini, "stream/gemini/images")

    @app.route("/v1/models", methods=["GET"])
    async def models(self, request: ProxyRequest) -> None:
        headers = headers_of(request)
        asking_upstream = Deferred.fromCoroutine(self._upstream_models.listed(headers))
        try:
            listed = await self._listed(self._gemini.models(headers), "Gemini")
            listed_upstream = await self._listed_upstream(asking_upstream)
        finally:
            # The client may disconnect before this is awaited.
            asking_upstream.addErrback(lambda _: ListedModels(()))
            asking_upstream.cancel()
        self._gemini_models.saw(listed)
        known = {model["id"] for model in listed}
        _mark_if_stale(request, listed_upstream)
        for model in listed_upstream.models:
            if model["id"] not in known:
                known.add(model["id"])
                listed.append(model)
        send_json(request, {"object": "list", "data": listed})

    async def _listed_upstream(self, asked: Deferred[ListedModels]) -> ListedModels:
        try:
            return await asked
        except ChatError as error:
            self.log.warn("the models of the upstream cannot be listed: {error}", error=error)
            return ListedModels(())

    async def _listed(self, asked: Any, whose: str) -> list[dict[str, Any]]:
        try:
            return list(await asked)
        except CancelledError:
            raise
        except ChatError as error:
            self.log.warn(
                "the models of {whose} cannot be listed: {error}", whose=whose, error=error
            )
            return []

    @app.route("/v1/models/<path:name>", methods=["GET"])
    async def model(self, request: ProxyRequest, name: str) -> None:
        headers = headers_of(request)
        if await self._gemini_models.has(name, headers):
            listed = await self._gemini_models.listed(headers)
            send_json(request, served_model(plain_name(name), listed))
            return
        # New-API itself knows few names here, and says 200 to all others.
        found = await self._upstream_models.listed(headers)
        _mark_if_stale(request, found)
        by_id = {model["id"]: model for model in found.models}
        if name not in by_id:
            raise model_not_found(name, [*by_id, *self._gemini_models.known])
        send_json(request, by_id[name])

    @app.route("/v1/", branch=True)
    async def anything_else(self, request: ProxyRequest) -> None:
        await self._pass_on(request)

    for prefix in PASSED_PREFIXES:

        @app.route(f"/{prefix}", endpoint=f"anything_else_at_{prefix}")
        @app.route(f"/{prefix}/", branch=True, endpoint=f"anything_else_in_{prefix}")
        async def outside(self, request: ProxyRequest) -> None:
            await self._pass_on(request)

    del prefix

    async def _pass_on(self, request: ProxyRequest) -> None:
        raw = b"" if isinstance(request.content, Upload) else body_of(request)
        if await self._is_for_gemini(request, raw):
            method, path = request.method.decode("ascii", "replace"), request.path.decode()
            raise unknown_url(method, path, SERVED_FOR_GEMINI)
        await self._passthrough.serve(request, raw)

    async def _is_for_gemini(self, request: ProxyRequest, raw: bytes) -> bool:
        headers = headers_of(request)
        model = model_in_path(request.path) or (model_of(raw) if raw else None)
        if asks_for_websocket(headers):
            model = (request.args or {}).get(b"model", [b""])[0].decode("utf-8", "replace")
        return model is not None and await self._gemini_models.has(model, headers)

    @app.route("/v1")
    def root(self, request: ProxyRequest) -> None:
        raise unknown_url(request.method.decode("ascii", "replace"), "/v1")


def _mark_if_stale(request: ProxyRequest, listed: ListedModels) -> None:
    if listed.is_stale:
        request.setHeader(b"x-gemproxy-stale", b"true")


def is_passed_through(method: bytes, path: bytes, content_type: bytes) -> bool:
    """
    Whether a request is the upstream's business alone, whatever its body says, so that the body
    can be passed on while it arrives.
    """
    if method == b"POST" and names_a_model(path) and _may_be_json(content_type):
        return False
    return _is_anything_else(method, path)


def _may_be_json(content_type: bytes) -> bool:
    """As far as the client tells. Some do not, and C{curl -d} says it sends a form."""
    kind = content_type.lower()
    return not kind or b"json" in kind or b"x-www-form-urlencoded" in kind


@lru_cache(1024)
def _is_anything_else(method: bytes, path: bytes) -> bool:
    """The routes above decide; the answers are remembered, since most paths come again."""
    try:
        adapter = StreamProxy.app.url_map.bind("localhost")
        endpoint, _ = adapter.match(unquote_to_bytes(path).decode(), method.decode())
    except (HTTPException, UnicodeDecodeError):
        return False
    return str(endpoint).startswith(StreamProxy.anything_else.__name__)
