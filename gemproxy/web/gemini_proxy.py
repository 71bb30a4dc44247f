"""The Gemini Proxy: chat, pictures and models of Gemini alone, as OpenAI's API has them."""

from __future__ import annotations

from attrs import evolve

from gemproxy.backend import Backend, TokenCounter
from gemproxy.chat.models import by_name, plain_name, served_model
from gemproxy.dialects.registry import COUNTINGS, DIALECTS, counting_at, dialect_at
from gemproxy.web.admin import Admin
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.chat import ChatService
from gemproxy.web.detached import Detached
from gemproxy.web.health import Health
from gemproxy.web.responses import send_json, send_model, send_models
from gemproxy.web.site import (
    SERVED_FOR_GEMINI,
    body_of,
    chat_request_of,
    headers_of,
    images_request_of,
    make_app,
)


class GeminiProxy:
    """
    One port for one backend.

    @ivar app: the Klein application.
    @ivar health: what the routes of health report.
    @ivar admin: what the routes below C{/admin} do.
    """

    app = make_app(SERVED_FOR_GEMINI)

    def __init__(
        self,
        backend: Backend,
        counter: TokenCounter,
        health: Health,
        admin: Admin,
        chats: ChatService,
    ) -> None:
        self._backend = backend
        self._counter = counter
        self.health = health
        self.admin = admin
        self._chats = chats

    @app.route("/v1/chat/completions", methods=["POST"])
    def chat_completions(self, request: ProxyRequest) -> Detached:
        chat = chat_request_of(request)
        chat = evolve(chat, model=plain_name(chat.model))
        return Detached(self._chats.answer(request, chat, self._backend, "gemini"))

    for dialect in DIALECTS:

        @app.route(dialect.rule, methods=["POST"], endpoint=f"dialect_{dialect.name}")
        def in_a_dialect(self, request: ProxyRequest, **_: str) -> Detached:
            dialect = dialect_at(request.path)
            assert dialect is not None
            raw = body_of(request)
            translation = self._chats.translate(request, dialect, raw).renamed(plain_name)
            answering = self._chats.answer_in(
                request, translation, raw, self._backend, f"gemini/{dialect.name}"
            )
            return Detached(answering)

    del dialect

    for counting in COUNTINGS:

        @app.route(counting.rule, methods=["POST"], endpoint=f"count_{counting.dialect.name}")
        async def count(self, request: ProxyRequest) -> None:
            counting = counting_at(request.path)
            assert counting is not None
            raw = body_of(request)
            translation = self._chats.translate(request, counting.dialect, raw).renamed(plain_name)
            counts = [await self._counter.count(chat) for chat in translation.chats]
            send_json(request, counting.document(sum(counts)))

    del counting

    @app.route("/v1/images/generations", methods=["POST"])
    def images_generations(self, request: ProxyRequest) -> Detached:
        images = images_request_of(request, body_of(request))
        images = evolve(images, chat=evolve(images.chat, model=plain_name(images.chat.model)))
        return Detached(self._chats.answer_images(request, images, self._backend, "gemini/images"))

    @app.route("/v1/models", methods=["GET"])
    async def models(self, request: ProxyRequest) -> None:
        send_models(request, await self._backend.models(headers_of(request)))

    @app.route("/v1/models/<path:name>", methods=["GET"])
    async def model(self, request: ProxyRequest, name: str) -> None:
        listed = by_name(await self._backend.models(headers_of(request)))
        send_model(request, served_model(plain_name(name), listed))
