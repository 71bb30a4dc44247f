"""The list of models, and the names by which they are asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from gemproxy.backoff import RetryPolicy
from gemproxy.chat.errors import ChatError, upstream_failed
from gemproxy.chat.models import by_name, plain_name, served_model
from gemproxy.config_file import UpstreamConfig
from gemproxy.gemini.api.client import GeminiApi
from gemproxy.gemini.api.endpoint import AIStudio
from gemproxy.gemini.api.model_list import LIFETIME, REST, TIME_LIMIT, ModelList
from gemproxy.gemini.translate.models import (
    BUILT_IN_MODELS,
    chat_models,
    next_page,
    union,
)
from gemproxy.http.url import BaseURL
from gemproxy.routing import router as routing
from gemproxy.routing.router import Router
from testing.fake_newapi import FakeNewApi, document
from testing.google import refusals, scenarios
from testing.google.recorded_request import Once
from tests.support import Product, Reply, chat, running, running_relay, until
from tests.tables import each

# What Google says, and what of it is listed


def google(name: str, *methods: str, **more: Any) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "supportedGenerationMethods": list(methods or ("generateContent", "countTokens")),
    } | more


def ids(models: Sequence[dict[str, Any]]) -> list[str]:
    return [model["id"] for model in models]


def test_a_model_is_described() -> None:
    described = google(
        "gemini-x", displayName="Gemini X", inputTokenLimit=1000, outputTokenLimit=10
    )
    assert chat_models({"models": [described]}) == [
        {
            "id": "gemini-x",
            "object": "model",
            "created": 0,
            "owned_by": "google",
            "display_name": "Gemini X",
            "input_token_limit": 1000,
            "context_length": 1000,
            "output_token_limit": 10,
            "google": described,
        }
    ]


def test_fields_of_other_types_are_left_out() -> None:
    strange = google("x", displayName=7, inputTokenLimit="many", outputTokenLimit=True)
    assert chat_models({"models": [strange]}) == [
        {"id": "x", "object": "model", "created": 0, "owned_by": "google", "google": strange}
    ]


@pytest.mark.parametrize(
    "name",
    [
        "gemini-3.8-flash",
        "gemini-3.1-flash-image",
        "gemma-3-27b-it",
        "learnlm-2.0-flash-experimental",
        "nano-banana-pro-preview",
        "gemini-olive-2",
    ],
)
def test_models_for_chat_are_listed(name: str) -> None:
    assert ids(chat_models({"models": [google(name)]})) == [name]


@each(
    "model",
    [
        google("gemini-embedding-001"),
        google("text-embedding-004", "embedContent"),
        google("gemini-2.5-flash-preview-tts"),
        google("gemini-live-2.5-flash-preview"),
        google("gemini-3.1-flash-live-preview"),
        google("gemini-2.5-flash-native-audio-latest"),
        google("gemini-robotics-er-1.5-preview"),
        google("gemini-2.5-computer-use-preview-10-2025"),
        google("deep-research-pro-preview-12-2025"),
        google("aqa"),
        google("imagen-4.0-generate-001", "predict"),
        google("gemini-x", "countTokens"),
        google("a/b"),
        google(""),
        {"name": "tunedModels/x", "supportedGenerationMethods": ["generateContent"]},
        {"name": "models/x"},
        {"name": "models/x", "supportedGenerationMethods": "generateContent"},
        {"supportedGenerationMethods": ["generateContent"]},
        None,
        "models/x",
    ],
)
def test_others_are_not(model: Any) -> None:
    assert chat_models({"models": [model]}) == []


@pytest.mark.parametrize("page", [None, [], "x", {}, {"models": None}, {"models": {"a": 1}}])
def test_what_is_no_list_has_no_models_and_no_next_page(page: Any) -> None:
    assert chat_models(page) == []
    assert next_page(page) is None


def test_the_lists_of_several_keys_are_one() -> None:
    def models(*names: str) -> list[dict[str, Any]]:
        return [{"id": name, "of": names} for name in names]

    one = models("b", "gemini-2.0-flash", "a")
    other = models("c", "a", "gemini-2.5-pro", "gemini-3-pro-preview")
    merged = union([one, other])
    first = ["gemini-3-pro-preview", "gemini-2.5-pro", "gemini-2.0-flash"]
    assert ids(merged) == [*first, "b", "a", "c"]
    assert merged[4] == one[2]
    assert union([]) == []


# Names


@pytest.mark.parametrize(
    "written",
    [
        "gemini-x",
        "models/gemini-x",
        "google/gemini-x",
        "gemini/gemini-x",
        "openrouter/google/gemini-x",
        "Gemini-X",
        " models/GEMINI-x\n",
        "google/ gemini-x",
    ],
)
def test_names_are_read_generously(written: str) -> None:
    assert plain_name(written) == "gemini-x"


def test_a_model_is_served_if_it_is_listed_or_called_gemini() -> None:
    listed = by_name([{"id": "Gemma-x", "own": 1}, {"id": "gemini-y"}])
    assert served_model("gemma-x", listed) == {"id": "Gemma-x", "own": 1}
    assert served_model("gemini-y", listed) == {"id": "gemini-y"}
    assert served_model("gemini-z", listed)["id"] == "gemini-z"
    with pytest.raises(ChatError, match=r"'gemma-z' does not exist. Available models: Gemma-x, ge"):
        served_model("gemma-z", listed)
    for malformed in ("", "gemini x", "gemini-\u00e9", "x" * 201):
        with pytest.raises(ChatError, match="must consist of"):
            served_model(malformed, listed)


# Reading and keeping


@define
class Response:
    """As much of an IResponse as is looked at."""

    body: bytes
    code: int = 200
    headers: Headers = field(factory=Headers)

    def deliverBody(self, protocol: Any) -> None:
        protocol.dataReceived(self.body)
        protocol.connectionLost(Failure(ResponseDone()))


@define
class Asked:
    """One request to Google."""

    url: str
    key: str
    answer: Deferred[Any]
    cancelled: bool = False

    def reply(self, *names: str, code: int = 200, **more: Any) -> None:
        models = {"models": [google(name) for name in names]} | more
        self.answer.callback(Response(json.dumps(models).encode(), code))


@implementer(IAgent)
class Google:
    """An agent that shows the requests, and a list that asks by it."""

    def __init__(self, *keys: str, configured: Sequence[str] = ()) -> None:
        self.asked: list[Asked] = []
        self.clock = Clock()
        self.clock.advance(1_000_000.5)
        base = BaseURL.parse("http://google.test/base")
        self.list = ModelList(
            self.clock,
            GeminiApi(self.clock, self, AIStudio(lambda: base)),
            keys or ("k",),
            configured,
            self.clock.seconds,
        )
        self.list.startService()

    def request(self, method: bytes, uri: bytes, headers: Any = None, body: Any = None) -> Any:
        assert (method, body) == (b"GET", None)
        [key] = headers.getRawHeaders("x-goog-api-key")

        def cancelled(_: Any) -> None:
            asked.cancelled = True

        asked = Asked(uri.decode(), key, Deferred(cancelled))
        self.asked.append(asked)
        return asked.answer

    def wait(self) -> list[Any]:
        """Ask for the list; it is in the result as soon as it is known."""
        seen: list[Any] = []
        self.list.get().addCallback(seen.append)
        return seen

    def now(self) -> list[str]:
        [models] = self.wait()
        return ids(models)


URL = "http://google.test/base/v1beta/models?pageSize=1000"


def test_google_is_asked_when_the_list_is_needed_and_not_before() -> None:
    api = Google()
    assert api.asked == []
    first, second = api.wait(), api.wait()
    [asked] = api.asked
    assert (asked.url, asked.key) == (URL, "k")
    assert (first, second) == ([], [])
    asked.reply("gemini-x", "gemini-2.5-pro")
    assert ids(first[0]) == ids(second[0]) == ["gemini-2.5-pro", "gemini-x"]
    assert {model["created"] for model in first[0]} == {1_000_000}


def test_an_hour_later_it_is_asked_again_while_the_old_list_serves() -> None:
    api = Google()
    api.wait()
    api.asked[0].reply("gemini-x", "gemini-y")
    api.clock.advance(LIFETIME - 1)
    assert api.now() == ["gemini-x", "gemini-y"]
    assert len(api.asked) == 1
    api.clock.advance(1)
    assert len(api.asked) == 1
    assert api.now() == api.now() == ["gemini-x", "gemini-y"]
    assert len(api.asked) == 2
    api.asked[1].reply("gemini-y", "gemini-z")
    [[y, z]] = api.wait()
    assert (y["id"], y["created"]) == ("gemini-y", 1_000_000)
    assert (z["id"], z["created"]) == ("gemini-z", 1_000_000 + int(LIFETIME))


def test_pages_follow_one_another() -> None:
    api = Google()
    waiting = api.wait()
    api.asked[0].reply("gemini-a", nextPageToken="one+/?&two")
    assert waiting == []
    assert api.asked[1].url == URL + "&pageToken=one%2B%2F%3F%26two"
    api.asked[1].reply(nextPageToken="3")
    api.asked[2].reply("gemini-b")
    assert ids(waiting[0]) == ["gemini-a", "gemini-b"]
    assert len(api.asked) == 3


def test_pages_without_end_have_one() -> None:
    api = Google()
    waiting = api.wait()
    while not waiting:
        api.asked[-1].reply(f"gemini-{len(api.asked)}", nextPageToken="more")
    assert len(waiting[0]) == len(api.asked) == 20


def test_all_keys_are_asked_at_once_and_one_that_answers_is_enough() -> None:
    api = Google("a", "b", "c")
    waiting = api.wait()
    assert [asked.key for asked in api.asked] == ["a", "b", "c"]
    api.asked[2].reply("gemini-y", "gemini-z")
    api.asked[0].reply(code=500)
    api.asked[1].reply("gemini-x", "gemini-y")
    assert ids(waiting[0]) == ["gemini-x", "gemini-y", "gemini-z"]
    # The key that did not answer is asked again soon, and the others with it.
    api.clock.advance(REST - 1)
    api.now()
    assert len(api.asked) == 3
    api.clock.advance(1)
    assert api.now() == ["gemini-x", "gemini-y", "gemini-z"]
    api.asked[3].reply("gemini-w")
    api.asked[4].reply("gemini-x")
    # One that has answered before keeps its models.
    api.asked[5].answer.errback(OSError("gone"))
    assert api.now() == ["gemini-w", "gemini-x", "gemini-y", "gemini-z"]


BROKEN = {
    "an error": Response(b'{"error": {"message": "No."}}', 403),
    "elsewhere": Response(b"", 302),
    "no JSON": Response(b"<html>"),
    "no list": Response(b"7"),
    "nothing for chat": Response(b'{"models": [{"name": "models/aqa"}]}'),
    "too large": Response(b'"' + b"x" * 10_000_001),
    "unreachable": Failure(OSError("refused")),
}


@pytest.mark.parametrize("how", BROKEN)
def test_the_built_in_list_serves_when_google_cannot_be_asked(how: str) -> None:
    api = Google()
    waiting = api.wait()
    broken = BROKEN[how]
    answer = api.asked[0].answer
    answer.errback(broken) if isinstance(broken, Failure) else answer.callback(broken)
    assert ids(waiting[0]) == list(BUILT_IN_MODELS)
    assert all(model["created"] == 1_000_000 for model in waiting[0])
    api.clock.advance(REST - 1)
    assert api.now() == list(BUILT_IN_MODELS)
    assert len(api.asked) == 1
    api.clock.advance(1)
    waiting = api.wait()
    api.asked[1].reply("gemini-x")
    assert ids(waiting[0]) == ["gemini-x"]


def test_a_silent_google_is_waited_for_in_vain_for_so_long_only() -> None:
    api = Google("a", "b")
    waiting = api.wait()
    api.asked[1].reply("gemini-x")
    api.clock.advance(TIME_LIMIT - 0.1)
    assert waiting == []
    api.clock.advance(0.1)
    assert api.asked[0].cancelled
    assert ids(waiting[0]) == ["gemini-x"]


def test_who_does_not_wait_any_longer_takes_nothing_from_others() -> None:
    api = Google()
    leaving, waiting = api.list.get(), api.wait()
    leaving.addErrback(lambda _: None)
    leaving.cancel()
    assert not api.asked[0].cancelled
    api.asked[0].reply("gemini-x")
    assert ids(waiting[0]) == ["gemini-x"]


def test_stopping_ends_the_reading() -> None:
    api = Google()
    waiting = api.wait()
    api.list.stopService()
    assert api.asked[0].cancelled
    assert ids(waiting[0]) == list(BUILT_IN_MODELS)
    api.clock.advance(REST)
    assert api.now() == list(BUILT_IN_MODELS)
    assert len(api.asked) == 1
    assert not api.clock.getDelayedCalls()


def test_what_is_configured_is_listed_and_google_not_asked() -> None:
    api = Google(configured=("gemini-x", "my-model"))
    assert api.now() == ["gemini-x", "my-model"]
    assert api.asked == []


# Whose model it is


class Backend:
    """A Gemini backend that has a list."""

    def __init__(self, *names: str) -> None:
        self.models_now: list[dict[str, Any]] = [{"id": name} for name in names]
        self.asked: list[Any] = []
        self.error: ChatError | None = None
        self.held: Deferred[Any] = succeed(None)

    def models(self, headers: Any) -> Deferred[list[dict[str, Any]]]:
        self.asked.append(headers)
        return Deferred.fromCoroutine(self._models())

    async def _models(self) -> list[dict[str, Any]]:
        await self.held
        if self.error is not None:
            raise self.error
        return self.models_now

    def complete(self, request: Any, answer: Any) -> Any:
        raise NotImplementedError


HEADERS = ((b"authorization", b"Bearer k"),)


def a_router(clock: Clock, backend: Backend, names: Any = ()) -> Router:
    """A router for Gemini and one upstream."""
    policy = RetryPolicy(0, 0, 0, lambda: 0.0)
    made = Router(clock, backend, names, policy, lambda config: [Backend()])  # type: ignore[list-item]
    made.use([UpstreamConfig("newapi", "http://127.0.0.1:1", prefix="newapi")], {})
    return made


def owner(models: Router, name: str) -> list[bool]:
    seen: list[bool] = []
    asked = Deferred.fromCoroutine(models.route(name, HEADERS))
    asked.addCallback(lambda route: seen.append(route.forwarder is None))
    return seen


@pytest.mark.parametrize("name", ["gpt-4o", "org/llama", "deepseek", "aqa", "my-gemma-3", ""])
def test_a_model_of_others_is_known_without_the_list(name: str) -> None:
    backend = Backend("gemma-3", name)
    models = a_router(Clock(), backend)
    assert owner(models, name) == [False]
    assert owner(models, "google/Gemini-x") == [True]
    assert backend.asked == []


@pytest.mark.parametrize("name", ["gemma-3", "google/Gemma-3", " models/gemma-3 "])
def test_a_name_that_may_be_google_s_is_looked_up(name: str) -> None:
    clock, backend = Clock(), Backend("gemini-x", "gemma-3", "nano-banana-2")
    backend.held = Deferred()
    models = a_router(clock, backend)
    waiting, other = owner(models, name), owner(models, "gemma-9")
    assert (waiting, other, backend.asked) == ([], [], [HEADERS])
    backend.held.callback(None)
    assert (waiting, other) == ([True], [False])
    assert owner(models, "nano-banana-2") == [True]
    clock.advance(routing.LIFETIME - 1)
    assert owner(models, "gemma-3") == [True]
    assert len(backend.asked) == 1
    clock.advance(1)
    backend.models_now = [{"id": "gemma-9"}]
    assert owner(models, "gemma-9") == [True]
    assert len(backend.asked) == 2


def test_a_backend_that_has_no_list_has_no_model() -> None:
    clock, backend = Clock(), Backend("gemma-3")
    backend.error = upstream_failed("gone")
    models = a_router(clock, backend)
    assert owner(models, "gemma-3") == owner(models, "gemma-3") == [False]
    assert len(backend.asked) == 1
    backend.error = None
    clock.advance(routing.REST)
    assert owner(models, "gemma-3") == [True]


def test_whatever_was_listed_is_gemini_s() -> None:
    backend = Backend()
    models = a_router(Clock(), backend, ["my-model"])
    assert owner(models, "My-Model") == [True]
    assert owner(models, "llama") == [False]
    models.gemini_models.saw([{"id": "llama"}])
    assert owner(models, "llama") == [True]
    models.gemini_models.saw([])
    assert owner(models, "llama") == [True]
    assert backend.asked == []


# The whole product


LISTED = [
    {
        "name": "models/gemma-3-27b-it",
        "displayName": "Gemma 3 27B",
        "inputTokenLimit": 131072,
        "outputTokenLimit": 8192,
    },
    "gemini-3.8-flash",
    "gemini-embedding-001",
    "gemini-2.5-flash",
]


def lists(product: Product) -> list[Any]:
    return [got for got in product.api.requests if got.method == "list"]


async def shown(product: Product, path: str = "/v1/models") -> tuple[Reply, Reply]:
    """What the two ports say."""
    ours = await product.get(path)
    shared = await (await product.send("GET", path, port=product.stream_port)).reply()
    return ours, shared


@pytest.mark.cli
@ensureDeferred
async def test_the_models_are_google_s(tmp_path: Path) -> None:
    upstream = FakeNewApi()
    upstream.always(
        document({"id": "theirs", "choices": [{"index": 0, "message": {"content": "x"}}]})
    )
    try:
        settings = {"GEMINI_API_KEY": "one,two,bad", "UPSTREAM_URL": upstream.url}
        async with running(tmp_path, **settings) as product:
            api = product.api
            api.models_by_key = {"one": LISTED, "two": ["gemini-x", "gemini-2.5-flash", "gemma-4"]}
            api._keys = {"one", "two"}
            api.largest_page = 2
            assert lists(product) == []
            await the_others_do_not_wait(product, upstream)
            await a_client_may_go(product)
            await all_are_listed(product, upstream)
            api._keys = None
            await all_are_served(product)
            await google_s_404_says_what_there_is(product)
    finally:
        await upstream.stop()


async def the_others_do_not_wait(product: Product, upstream: FakeNewApi) -> None:
    for name in ("gpt-4o", "org/my-gemma"):
        reply = await product.ask(chat(model=name), port=product.stream_port)
        assert reply.json["id"] == "theirs"
        assert upstream.calls[-1].json["model"] == name
    assert product.api.requests == []


async def a_client_may_go(product: Product) -> None:
    held = product.api.lists_held = Once()
    gone = await product.send("GET", "/v1/models")
    await product.api.when_request(2)
    gone.drop()
    await until(lambda: not product.daemon._admission.open, "it is gone")
    staying = await product.send("GET", "/v1/models", port=product.stream_port)
    await until(lambda: product.daemon._admission.open, "it is there")
    held.happen(None)
    assert (await staying.reply()).status == 200
    assert {got.key for got in lists(product)} == {"one", "two", "bad"}


async def all_are_listed(product: Product, upstream: FakeNewApi) -> None:
    asked = len(lists(product))
    upstream.play(document({"data": [{"id": "gpt-4o"}, {"id": "gemma-4", "of": "theirs"}]}))
    ours, shared = await shown(product)
    names = ["gemini-2.5-flash", "gemma-3-27b-it", "gemini-3.8-flash", "gemini-x", "gemma-4"]
    assert ids(ours.json["data"]) == names
    assert ids(shared.json["data"]) == [*names, "gpt-4o"]
    assert shared.json["data"][:-1] == ours.json["data"]
    gemma = ours.json["data"][1]
    assert gemma == {
        "id": "gemma-3-27b-it",
        "object": "model",
        "created": gemma["created"],
        "owned_by": "google",
        "display_name": "Gemma 3 27B",
        "input_token_limit": 131072,
        "context_length": 131072,
        "output_token_limit": 8192,
    }
    assert abs(gemma["created"] - reactor.seconds()) < 60
    for path in ("gemma-3-27b-it", "google/GEMMA-3-27b-it", "models/gemma-3-27b-it", "%20gemma-4"):
        for reply in await shown(product, f"/v1/models/{path}"):
            assert reply.json in ours.json["data"]
            assert reply.json["id"] == plain_name(path.replace("%20", " "))
    for reply in await shown(product, "/v1/models/models/Gemini-9"):
        assert reply.json["id"] == "gemini-9"
    for reply in await shown(product, "/v1/models/not-gemini"):
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert "gemma-3-27b-it" in reply.error["message"]
    assert len(lists(product)) == asked


async def all_are_served(product: Product) -> None:
    for ask in product.both_ports:
        for name in ("gemma-3-27b-it", "models/gemma-4", " Google/Gemini-3.8-FLASH "):
            product.api.play(scenarios.answer("Yes."))
            reply = await ask(chat(model=name))
            assert (reply.status, reply.content) == (200, "Yes.")
            assert reply.json["model"] == product.asked[-1].model == plain_name(name)
        reply = await ask(chat(model="gemini/x"))
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert "Available models: gemini-2.5-flash, gemma-3-27b-it" in reply.error["message"]
    async with running_relay(GEMINI_PROXY_URL=f"http://127.0.0.1:{product.port}") as relay:
        relay.upstream.always(
            document({"id": "theirs", "choices": [{"index": 0, "message": {"content": "x"}}]})
        )
        described = await relay.get("/v1/models/models/GEMMA-4")
        assert described.json["display_name"] == "gemma-4"
        product.api.play(scenarios.answer("Yes."))
        assert (await relay.ask(chat(model="Gemma-4"))).content == "Yes."
        assert (await relay.ask(chat(model="gemma-9"))).json["id"] == "theirs"


async def google_s_404_says_what_there_is(product: Product) -> None:
    # A model that one key may not use is another's.
    product.api.play(scenarios.error(404, "Not for you."), scenarios.answer("Yes."))
    assert (await product.ask(chat(model="gemini-x"))).content == "Yes."
    gone = scenarios.error(404, "It is gone.")
    for ask in product.both_ports:
        product.api.play(gone, gone, gone)
        reply = await ask(chat(model="gemini-2.5-flash"))
        product.api._plays.clear()
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert reply.error["message"] == (
            "It is gone. Available models: gemma-3-27b-it, gemini-3.8-flash, gemini-x, gemma-4."
        )


@pytest.mark.cli
@ensureDeferred
async def test_without_google_s_list(tmp_path: Path) -> None:
    async with running(tmp_path) as product:
        product.api.list_refusal = refusals.error(500)
        product.api.play(scenarios.error(404, "No such model."))
        reply = await product.ask(chat(model="gemini-x"))
        assert (reply.status, reply.error["message"]) == (404, "No such model.")
        for reply in await shown(product):
            assert ids(reply.json["data"]) == list(BUILT_IN_MODELS)
        assert (await product.ask(chat(model="gemini-9"))).status == 200
        assert (await product.ask(chat(model="gemma-3"))).status == 404
        assert len(lists(product)) == 1


@pytest.mark.cli
@ensureDeferred
async def test_what_is_configured_is_served(tmp_path: Path) -> None:
    names = ["gemma-3-27b-it", "gemini-x", "my-model"]
    async with running(tmp_path, GEMINI_MODELS=",".join(names)) as product:
        for ask in product.both_ports:
            for name in ("My-Model", "gemma-3-27b-it", "gemini-9"):
                assert (await ask(chat(model=name))).json["model"] == name.lower()
        for reply in await shown(product):
            assert ids(reply.json["data"]) == names
        reply = await product.ask(chat(model="gemma-4"))
        assert reply.error["message"] == (
            "The model 'gemma-4' does not exist. "
            "Available models: gemma-3-27b-it, gemini-x, my-model."
        )
        assert lists(product) == []
