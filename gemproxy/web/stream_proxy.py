"""The Stream Proxy: one address for the models of Gemini and all others."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote_to_bytes

from attrs import evolve
from werkzeug.exceptions import HTTPException

from gemproxy.backend import Forwarder, TokenCounter
from gemproxy.chat.chunks import estimated_tokens, model_object
from gemproxy.chat.errors import model_not_found, unknown_url
from gemproxy.chat.models import plain_name, served_model
from gemproxy.chat.request import Headers
from gemproxy.dialects.dialect import Counting, Dialect
from gemproxy.dialects.native.dialect import NATIVE_COUNTING
from gemproxy.http.headers import asks_for_websocket
from gemproxy.routing.router import Route, Router
from gemproxy.routing.table import GEMINI
from gemproxy.routing.upstream_models import ListedModels
from gemproxy.util.log import make_logger
from gemproxy.web import completions, embeddings
from gemproxy.web.admin import Admin
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.chat import ChatService
from gemproxy.web.completions import StopTagCutter
from gemproxy.web.dialect_routes import add_dialect_routes
from gemproxy.web.dialects import DialectService
from gemproxy.web.embeddings import EmbeddingsService
from gemproxy.web.google import COUNTING, KEPT, KEPT_METHODS, LISTS, MODELS, OF_MODELS
from gemproxy.web.health import Health
from gemproxy.web.passthrough import Destination, Passthrough
from gemproxy.web.paths import PASSED_PREFIXES, model_in_path, names_a_model, with_model
from gemproxy.web.responses import send_json, send_model, send_models
from gemproxy.web.site import (
    SERVED_FOR_GEMINI,
    headers_of,
    make_app,
)
from gemproxy.web.upload import Upload, may_be_json

# What these ask for is there already.
_WITHOUT_A_MODEL = (b"GET", b"HEAD", b"DELETE", b"OPTIONS")


class StreamProxy:
    """
    One port for the models of Gemini and of an upstream together.

    @ivar app: the Klein application.
    @ivar health: what the routes of health report.
    @ivar admin: what the routes below C{/admin} do.
    @ivar dialects: answers in other dialects than chat.
    """

    log = make_logger()
    app = make_app()
    add_dialect_routes(app)

    def __init__(
        self,
        router: Router,
        passthrough: Passthrough,
        health: Health,
        admin: Admin,
        chats: ChatService,
        dialects: DialectService,
        google: Forwarder,
        counter: TokenCounter | None = None,
        embedding: EmbeddingsService | None = None,
    ) -> None:
        """
        @param passthrough: forwards all other requests to an upstream.
        @param google: forwards requests of Google's API that need no model to speak: to Google, or
            to the other gemproxy that has the workers.
        @param counter: counts the tokens of requests to Gemini; None if that gemproxy does.
        @param embedding: embeds texts by Gemini's models; likewise.
        """
        self._embedding = embedding
        self._counter = counter
        self._google = Destination(GEMINI, google)
        self._router = router
        self._passthrough = passthrough
        self.health = health
        self.admin = admin
        self._chats = chats
        self._reader = chats.reader
        self.dialects = dialects

    @app.detached("/v1/chat/completions")
    async def chat_completions(self, request: ProxyRequest) -> None:
        chat = await self._reader.chat(request)
        route = await self._routed(request, chat.model, chat.raw, chat.headers)
        chat.model = route.model
        answering = self._chats.answer(request, chat, route.backend, route.label)
        # Release the memory while the response is received.
        del chat, route
        await answering

    async def answer_in(self, request: ProxyRequest, dialect: Dialect) -> None:
        raw = await self._reader.body(request)
        route = await self._route_of(request, raw)
        if await self._has_passed_on(request, raw, route, dialect.name):
            return
        assert route is not None  # noqa: S101 - for mypy
        model, is_gemini = route.model, route.upstream is None
        takes_google = route.backend is self._router.gemini
        answering = self.dialects.answer(
            request,
            dialect,
            raw,
            route.backend,
            route.label,
            lambda _: model,
            is_gemini,
            takes_google,
        )
        del raw, route
        await answering

    async def count_in(self, request: ProxyRequest, counting: Counting) -> None:
        raw = await self._reader.body(request)
        await self._count(request, counting, raw, await self._route_of(request, raw))

    async def _count(
        self, request: ProxyRequest, counting: Counting, raw: bytes, route: Route | None
    ) -> None:
        if route is None or (route.upstream is None and self._counter is None):
            there = None if route is None else evolve(route, forwarder=self._google.forwarder)
            await self._pass_on(request, raw, there)
            return
        if route.upstream is not None:
            name, spoken = counting.dialect.name, route.upstream.spoken
            if spoken.counts(name, route.model):
                if await self._pass_on(request, raw, route, may_be_unserved=True):
                    return
                spoken.refuse_to_count(name, route.model)
        model, counter = route.model, None if route.upstream is not None else self._counter
        is_gemini = counter is not None
        translation = await self.dialects.translate(
            request, counting.dialect, raw, is_gemini, takes_google=False
        )
        counts = [
            estimated_tokens(chat.prompt_length + chat.tools_length)
            if counter is None
            else await counter.count(chat)
            for chat in translation.renamed(lambda _: model).chats
        ]
        send_json(request, counting.document(sum(counts)))

    async def response_not_kept(self, request: ProxyRequest, id: str) -> None:
        await self._pass_through(request)

    async def _has_passed_on(
        self, request: ProxyRequest, raw: bytes, route: Route | None, dialect: str
    ) -> bool:
        """
        Have an upstream answer a request in a dialect that it speaks itself. Returns whether it has
        done so.
        """
        if route is None:
            await self._pass_on(request, raw, None)
            return True
        if route.upstream is None or not route.upstream.spoken.includes(dialect, route.model):
            return False
        spoken = route.upstream.spoken
        if await self._pass_on(request, raw, route, may_be_unserved=not spoken.are_certain):
            return True
        self.log.info(
            "the upstream '{name}' does not speak the dialect '{dialect}' for {model}, which is"
            " translated from now on",
            name=route.upstream.config.name,
            dialect=dialect,
            model=route.model,
        )
        spoken.refuse(dialect, route.model)
        return False

    @app.route("/v1/images/generations", methods=["POST"])
    async def images_generations(self, request: ProxyRequest) -> None:
        raw = await self._reader.body(request)
        route = await self._route_of(request, raw)
        if route is None or route.forwarder is not None:
            passing = self._pass_on(request, raw, route)
            # Release the memory while the response is received.
            del raw
            await passing
            return
        images = await self._reader.images(request, raw)
        images.chat.model = route.model
        await self._chats.answer_images(request, images, route.backend, f"{route.label}/images")

    @app.route(embeddings.PATH, methods=["POST"], endpoint="anything_else_is_embedded")
    async def embed(self, request: ProxyRequest) -> None:
        raw = await self._body_unless_streamed(request)
        route = await self._route_of(request, raw)
        if route is not None and route.upstream is None:
            if self._embedding is not None:
                await self._embedding.answer(request, raw, route.model)
                return
            route = evolve(route, forwarder=self._google.forwarder)
        passing = self._pass_on(request, raw, route)
        del raw
        await passing

    for rule in OF_MODELS:

        @app.route(rule, methods=["POST"], endpoint=f"google_at_{rule}")
        async def about_a_model(self, request: ProxyRequest, model: str) -> None:
            raw = await self._reader.body(request)
            route = await self._routed(request, model, raw)
            if route.upstream is None:
                path = with_model(request.path, route.model)
                await self._passthrough.serve(
                    request, raw, self._google, path=path, model=route.model
                )
            elif request.path.endswith(COUNTING):
                await self._count(request, NATIVE_COUNTING, raw, route)
            else:
                await self._pass_on(request, raw, route)

    for rule in KEPT:

        @app.route(rule, methods=KEPT_METHODS, endpoint=f"anything_else_google_keeps_at_{rule}")
        async def kept_by_google(self, request: ProxyRequest, **_: str) -> None:
            raw = await self._body_unless_streamed(request)
            if model := await self._reader.model(raw):
                request.check_model(model, plain_name(model))
            await self._passthrough.serve(request, raw, self._google)

    for rule in ("/v1/models", *LISTS):

        @app.route(rule, methods=["GET"], endpoint=f"models_at_{rule}")
        async def models(self, request: ProxyRequest) -> None:
            merged = await self._router.models(headers_of(request))
            _mark_if_stale(request, merged)
            send_models(request, [one for one in merged.models if request.may_ask(one["id"])])

    for rule in MODELS:

        @app.route(rule, methods=["GET"], endpoint=f"google_at_{rule}")
        async def googles_model(self, request: ProxyRequest, name: str) -> None:
            headers = headers_of(request)
            route = await self._routed(request, name)
            if route.upstream is None:
                listed = await self._router.gemini_models.listed(headers)
                if route.model not in listed:
                    path = with_model(request.path, route.model)
                    await self._passthrough.serve(request, b"", self._google, path=path)
                    return
            await self._describe(request, name)

    del rule

    @app.route("/v1/models/<path:name>", methods=["GET"])
    async def model(self, request: ProxyRequest, name: str) -> None:
        await self._describe(request, name)

    async def _describe(self, request: ProxyRequest, name: str) -> None:
        headers = headers_of(request)
        if name in self._router.table.routes:
            request.check_model(name)
            send_model(request, model_object(name) | {"owned_by": "gemproxy"})
            return
        route = await self._routed(request, name)
        if route.upstream is None:
            listed = await self._router.gemini_models.listed(headers)
            send_model(request, served_model(route.model, listed))
            return
        # New-API itself knows few names here, and says 200 to all others.
        found = await route.upstream.listed(headers)
        _mark_if_stale(request, found)
        by_id = {model["id"]: model for model in found.models}
        if route.model not in by_id:
            raise model_not_found(name, [*by_id, *(self._router.gemini_models.known or ())])
        send_model(request, by_id[route.model])

    @app.route("/v1/", branch=True)
    async def anything_else(self, request: ProxyRequest) -> None:
        await self._pass_through(request)

    for prefix in PASSED_PREFIXES:

        @app.route(f"/{prefix}", endpoint=f"anything_else_at_{prefix}")
        @app.route(f"/{prefix}/", branch=True, endpoint=f"anything_else_in_{prefix}")
        async def outside(self, request: ProxyRequest) -> None:
            await self._pass_through(request)

    del prefix

    async def _pass_through(self, request: ProxyRequest) -> None:
        raw = await self._body_unless_streamed(request)
        path = request.path
        if raw and model_in_path(path) is None and not names_a_model(path):
            # Whatever the body says of a model: the path may be for another, as /mj/submit/imagine.
            self._check_any_model(request)
        route = await self._route_of(request, raw)
        if route is not None and route.upstream is None:
            method = request.method.decode("ascii", "replace")
            raise unknown_url(method, path.decode(), SERVED_FOR_GEMINI)
        passing = self._pass_on(request, raw, route)
        del raw
        await passing

    async def _body_unless_streamed(self, request: ProxyRequest) -> bytes:
        """The body; empty if it is passed on while it arrives."""
        is_upload = isinstance(request.content, Upload)
        return b"" if is_upload else await self._reader.body(request)

    async def _route_of(self, request: ProxyRequest, raw: bytes) -> Route | None:
        """Who is to answer a request, if that says a model."""
        headers = headers_of(request)
        model = model_in_path(request.path) or (await self._reader.model(raw) if raw else None)
        if asks_for_websocket(headers):
            values = (request.args or {}).get(b"model", [b""])
            model, *others = (value.decode("utf-8", "replace") for value in values)
            for other in others:
                # Some servers take the first of several, and some the last.
                request.check_model(other)
        if model:
            return await self._routed(request, model, raw)
        if asks_for_websocket(headers):
            request.check_model("")
        else:
            self._check_any_model(request)
        return None

    def _check_any_model(self, request: ProxyRequest) -> None:
        """@raise ChatError: 403, it may be for any model, and some are not for its account."""
        if request.method not in _WITHOUT_A_MODEL:
            request.check_model("")

    async def _routed(
        self, request: ProxyRequest, model: str, raw: bytes = b"", headers: Headers | None = None
    ) -> Route:
        """
        Who is to answer.

        @param model: as the client names it.
        @param raw: the body, in which others may be named.
        @param headers: those of the request; None if they are not freed.
        @raise ChatError: 403, the account may not ask that model.
        """
        route = await self._router.route(model, headers_of(request) if headers is None else headers)
        request.check_model(model, *((route.model,) if route.upstream is None else ()))
        if request.is_restricted:
            for other in await self._reader.other_models(raw):
                request.check_model(other)
        return route

    async def _pass_on(
        self,
        request: ProxyRequest,
        raw: bytes,
        route: Route | None,
        may_be_unserved: bool = False,
    ) -> bool:
        cutter = None
        if request.path == completions.PATH and raw and self._chats.stop_tags:
            choices = await self._reader.choices(raw)
            cutter = StopTagCutter(self._chats.stop_tags, choices, self._chats.limits)
        path, destination, model = None, None, None
        if route is not None:
            # An alias, or a prefix: the upstream has another name for it.
            model = route.model
            if route.forwarder is not None:
                destination = Destination(route.name, route.forwarder)
            if (named := model_in_path(request.path)) is not None:
                if named != route.model:
                    path = with_model(request.path, route.model)
            elif raw and route.asked != route.model:
                raw = await self._reader.renamed(raw, route.model)
        passing = self._passthrough.serve(
            request, raw, destination, cutter, may_be_unserved, path, model
        )
        del raw
        return await passing

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
    if method == b"POST" and names_a_model(path) and may_be_json(content_type):
        return False
    return _is_anything_else(method, path)


@lru_cache(1024)
def _is_anything_else(method: bytes, path: bytes) -> bool:
    """The routes above decide; the answers are remembered, since most paths come again."""
    try:
        adapter = StreamProxy.app.url_map.bind("localhost")
        endpoint, _ = adapter.match(unquote_to_bytes(path).decode(), method.decode())
    except (HTTPException, UnicodeDecodeError):
        return False
    return str(endpoint).startswith(StreamProxy.anything_else.__name__)
