"""The Gemini Proxy: chat, pictures and models of Gemini alone, as OpenAI's API has them."""

from __future__ import annotations

from functools import partial

from gemproxy.backend import Backend, TokenCounter
from gemproxy.chat.errors import unknown_url
from gemproxy.chat.models import by_name, plain_name, served_model
from gemproxy.dialects.dialect import Counting, Dialect
from gemproxy.web import embeddings
from gemproxy.web.admin import Admin
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.chat import ChatService
from gemproxy.web.dialect_routes import add_dialect_routes
from gemproxy.web.dialects import DialectService, response_not_found
from gemproxy.web.embeddings import EmbeddingsService
from gemproxy.web.google import KEPT, KEPT_METHODS, LISTS, MODELS, OF_MODELS
from gemproxy.web.health import Health
from gemproxy.web.passthrough import Passthrough
from gemproxy.web.paths import with_model
from gemproxy.web.responses import send_json, send_model, send_models
from gemproxy.web.site import (
    SERVED_FOR_GEMINI,
    headers_of,
    make_app,
)


def _named(request: ProxyRequest, model: str) -> str:
    """
    Gemini's own name of a model.

    @param model: as the client names it.
    @raise ChatError: 403, the account may not ask it.
    """
    name = plain_name(model)
    request.check_model(model, name)
    return name


class GeminiProxy:
    """
    One port for one backend.

    @ivar app: the Klein application.
    @ivar health: what the routes of health report.
    @ivar admin: what the routes below C{/admin} do.
    @ivar dialects: answers in other dialects than chat.
    """

    app = make_app(SERVED_FOR_GEMINI)
    add_dialect_routes(app)

    def __init__(
        self,
        backend: Backend,
        counter: TokenCounter,
        health: Health,
        admin: Admin,
        chats: ChatService,
        dialects: DialectService,
        embedding: EmbeddingsService,
        passthrough: Passthrough,
    ) -> None:
        """@param passthrough: has Google answer what needs no worker."""
        self._embedding = embedding
        self._passthrough = passthrough
        self._backend = backend
        self._counter = counter
        self.health = health
        self.admin = admin
        self._chats = chats
        self._reader = chats.reader
        self.dialects = dialects

    @app.detached("/v1/chat/completions")
    async def chat_completions(self, request: ProxyRequest) -> None:
        chat = await self._reader.chat(request)
        chat.model = _named(request, chat.model)
        answering = self._chats.answer(request, chat, self._backend, "gemini")
        # Release the memory while the response is received.
        del chat
        await answering

    async def answer_in(self, request: ProxyRequest, dialect: Dialect) -> None:
        raw = await self._reader.body(request)
        name = partial(_named, request)
        answering = self.dialects.answer(request, dialect, raw, self._backend, "gemini", name)
        del raw
        await answering

    async def count_in(self, request: ProxyRequest, counting: Counting) -> None:
        raw = await self._reader.body(request)
        translation = await self.dialects.translate(request, counting.dialect, raw)
        chats = translation.renamed(partial(_named, request)).chats
        counts = [await self._counter.count(chat) for chat in chats]
        send_json(request, counting.document(sum(counts)))

    async def response_not_kept(self, request: ProxyRequest, id: str) -> None:
        raise response_not_found(id)

    @app.detached("/v1/images/generations")
    async def images_generations(self, request: ProxyRequest) -> None:
        images = await self._reader.images(request, await self._reader.body(request))
        images.chat.model = _named(request, images.chat.model)
        await self._chats.answer_images(request, images, self._backend, "gemini/images")

    @app.route(embeddings.PATH, methods=["POST"])
    async def embed(self, request: ProxyRequest) -> None:
        raw = await self._reader.body(request)
        model = _named(request, await self._reader.model(raw) or "")
        await self._embedding.answer(request, raw, model)

    for rule in OF_MODELS:

        @app.route(rule, methods=["POST"], endpoint=f"google_at_{rule}")
        async def about_a_model(self, request: ProxyRequest, model: str) -> None:
            raw = await self._reader.body(request)
            name = _named(request, model)
            path = with_model(request.path, name)
            await self._passthrough.serve(request, raw, path=path, model=name)

    for rule in KEPT:

        @app.route(rule, methods=KEPT_METHODS, endpoint=f"google_at_{rule}")
        async def kept_by_google(self, request: ProxyRequest, **_: str) -> None:
            raw = await self._reader.body(request)
            if model := await self._reader.model(raw):
                _named(request, model)
            await self._passthrough.serve(request, raw)

    for rule in MODELS:

        @app.route(rule, methods=["GET"], endpoint=f"google_at_{rule}")
        async def googles_model(self, request: ProxyRequest, name: str) -> None:
            listed = by_name(await self._backend.models(headers_of(request)))
            if (plain := _named(request, name)) in listed:
                send_model(request, listed[plain])
            else:
                path = with_model(request.path, plain)
                await self._passthrough.serve(request, path=path)

        @app.route(rule, methods=["POST"], endpoint=f"unknown_at_{rule}")
        def unknown_method(self, request: ProxyRequest, **_: str) -> None:
            raise unknown_url("POST", request.path.decode(), SERVED_FOR_GEMINI)

    for rule in ("/v1/models", *LISTS):

        @app.route(rule, methods=["GET"], endpoint=f"models_at_{rule}")
        async def models(self, request: ProxyRequest) -> None:
            models = await self._backend.models(headers_of(request))
            send_models(request, [one for one in models if request.may_ask(one["id"])])

    del rule

    @app.route("/v1/models/<path:name>", methods=["GET"])
    async def model(self, request: ProxyRequest, name: str) -> None:
        listed = by_name(await self._backend.models(headers_of(request)))
        send_model(request, served_model(_named(request, name), listed))
