"""Vertex AI: addresses, access tokens and API keys, for both engines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.server import Site

from gemproxy.command import main
from gemproxy.config import BadSetting, Config
from gemproxy.gemini.api.access_tokens import AccessTokens, Token
from gemproxy.gemini.api.client import ApiFailed
from gemproxy.gemini.api.vertex import default_base
from gemproxy.service import Daemon
from testing.google import refusals, scenarios
from testing.google.tokens import TokenServer
from testing.proxy import ProxyServer
from tests.support import Product, chat, running

pytestmark = pytest.mark.slow

PLACE = "/v1beta1/projects/my-project-1/locations/europe-west4/publishers/google/models"
MODEL = "gemini-3.8-flash"


@asynccontextmanager
async def asking(
    folder: Path, engine: str = "direct", **settings: Any
) -> AsyncIterator[tuple[Product, TokenServer]]:
    """A daemon with a service account, and what gives its tokens."""
    accepted: set[str] = set()
    server = TokenServer(accepted.add)
    port = reactor.listenTCP(0, Site(server), interface="127.0.0.1")
    server.url = f"http://127.0.0.1:{port.getHost().port}/token"
    given = {
        "GEMINI_API_KEY": "",
        "GEMINI_ENGINE": engine,
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_CLOUD_PROJECT": "my-project-1",
        "GOOGLE_CLOUD_LOCATION": "europe-west4",
        "GOOGLE_APPLICATION_CREDENTIALS": server.account(folder),
        "GEMINI_WORKERS": "1",
        "MAX_RETRIES": "2",
    } | settings
    try:
        async with running(folder, vertex=True, **given) as product:
            product.api.tokens = accepted
            product.begin_test()
            yield product, server
    finally:
        await port.stopListening()


@pytest.mark.parametrize("engine", ["direct", pytest.param("cli", marks=pytest.mark.cli)])
@ensureDeferred
async def test_a_project_is_asked_with_a_token_of_its_account(tmp_path: Path, engine: str) -> None:
    async with asking(tmp_path, engine) as (product, server):
        for port in (product.port, product.stream_port):
            product.api.play(scenarios.answer("Hel", "lo"))
            reply = await product.ask(chat("Hi", model=MODEL, stream=True), port=port)
            assert (reply.status, reply.content) == (200, "Hello")
            asked = product.asked[-1]
            assert asked.path == f"{PLACE}/{MODEL}:streamGenerateContent"
            assert (asked.token, asked.key) == (server.given[0], None)
            assert asked.texts == [("user", "Hi")]
        assert len(server.given) == 1
        listed = (await product.get("/v1/models")).json["data"]
        assert [model["id"] for model in listed] == [
            "gemini-3-pro-preview",
            "gemini-2.5-pro",
            "gemini-2.5-flash",
            "gemini-2.5-flash-lite",
        ]
        # What speaks Google's own language: its path is AI Studio's.
        path = f"/v1beta/models/{MODEL}:countTokens"
        counted = await (await product.send("POST", path, {"contents": [HELLO]})).reply()
        assert counted.json["totalTokens"] > 0
        assert product.api.requests[-1].path == f"{PLACE}/{MODEL}:countTokens"
        messages = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
        counted = await (
            await product.send("POST", "/v1/messages/count_tokens", messages, anthropic_version="1")
        ).reply()
        assert counted.json["input_tokens"] > 0


HELLO = {"role": "user", "parts": [{"text": "Hello"}]}


@ensureDeferred
async def test_what_vertex_ai_has_not_is_said(tmp_path: Path) -> None:
    async with asking(tmp_path) as (product, _):
        reply = await product.get("/v1beta/files")
        assert (reply.status, reply.error["status"]) == (404, "NOT_FOUND")
        assert "gs://bucket/name" in reply.error["message"]
        path = "/v1beta/models/gemini-embedding-2:embedContent"
        reply = await (await product.send("POST", path, {"content": HELLO})).reply()
        assert (reply.status, reply.error["status"]) == (501, "UNIMPLEMENTED")
        assert "/v1/embeddings" in reply.error["message"]


@pytest.mark.parametrize(
    ("model", "method", "tokens"),
    [("gemini-embedding-001", "predict", 30), ("gemini-embedding-2", "embedContent", 60)],
)
@ensureDeferred
async def test_texts_are_embedded_one_by_one(
    tmp_path: Path, model: str, method: str, tokens: int
) -> None:
    async with asking(tmp_path) as (product, server):
        product.api.play(scenarios.error(503))
        texts = ["x" * (number % 4 + 1) for number in range(30)]
        body = {"model": model, "input": texts, "dimensions": 4}
        reply = await (await product.send("POST", "/v1/embeddings", body)).reply()
        assert reply.status == 200, reply.error
        assert [one["index"] for one in reply.json["data"]] == list(range(30))
        vectors = [one["embedding"] for one in reply.json["data"]]
        assert {len(vector) for vector in vectors} == {4}
        if method == "predict":
            assert [vector[2] for vector in vectors] == [len(text) for text in texts]
        assert reply.json["usage"]["prompt_tokens"] == tokens
        assert len(product.asked) == 31
        assert {asked.path for asked in product.asked} == {f"{PLACE}/{model}:{method}"}
        assert {asked.token for asked in product.asked} == set(server.given)


@ensureDeferred
async def test_the_doctor_looks_at_vertex_ai(tmp_path: Path) -> None:
    async def found(product: Product) -> dict[str, Any]:
        checks = (await product.get("/admin/checks")).json["checks"]
        return {each["check"]: each for each in checks}

    async with asking(tmp_path) as (product, server):
        assert {(await found(product))[name]["state"] for name in ("network", "key")} == {"ok"}
        assert product.api.requests[-1].path == "/v1beta1/publishers/google/models"
        product.api.list_refusal = refusals.error(404, "Nothing is served here.")
        network = (await found(product))["network"]
        assert "unset GOOGLE_VERTEX_BASE_URL" in network["fix"]
        server.failures = [400] * 50
        key = (await found(product))["key"]
        assert (key["state"], "Invalid JWT" in key["message"]) == ("failed", True)
        assert "gcloud auth" in key["fix"]


@ensureDeferred
async def test_many_requests_wait_for_one_token(tmp_path: Path) -> None:
    async with asking(tmp_path) as (product, server):
        replies = await product.ask_all([chat("Hi", model=MODEL)] * 20)
        assert {reply.status for reply in replies} == {200}
        assert len(server.given) == 1


@ensureDeferred
async def test_a_token_that_is_refused_is_replaced_and_nobody_notices(tmp_path: Path) -> None:
    async with asking(tmp_path) as (product, server):
        assert (await product.ask(chat("Hi", model=MODEL))).status == 200
        product.api.tokens.clear()
        assert (await product.ask(chat("Hi", model=MODEL))).status == 200
        assert [asked.token for asked in product.asked] == [server.given[0], *server.given]


@ensureDeferred
async def test_a_token_that_google_quotes_is_shown_to_nobody(tmp_path: Path) -> None:
    body = {"contents": [HELLO]}
    async with asking(tmp_path) as (product, server):
        assert (await product.ask(chat("Hi", model=MODEL))).status == 200
        # It is not of a kind that is known everywhere.
        product.api.play(*[scenarios.error(400, f"Not with {server.given[0]}.")] * 3)
        replies = [
            await product.ask(chat("Hi", model=MODEL)),
            await (await product.send("POST", "/v1/embeddings", EMBEDDED)).reply(),
            await (
                await product.send("POST", f"/v1beta/models/{MODEL}:generateContent", body)
            ).reply(),
        ]
        assert [reply.error["message"] for reply in replies] == ["Not with [secret]."] * 3


EMBEDDED = {"model": "gemini-embedding-001", "input": "x"}


@ensureDeferred
async def test_a_token_server_that_fails_is_asked_again(tmp_path: Path) -> None:
    async with asking(tmp_path) as (product, server):
        # google-auth itself tries a few times, and so does gemproxy.
        server.failures = [503, 503]
        assert (await product.ask(chat("Hi", model=MODEL))).status == 200
        product.api.tokens.clear()
        server.failures = [400] * 50
        reply = await product.ask(chat("Hi", model=MODEL))
        assert (reply.status, reply.error["code"]) == (502, "gemini_key_refused")
        assert "Invalid JWT Signature" in reply.error["message"]
        assert "GOOGLE_APPLICATION_CREDENTIALS" in reply.error["message"]
        assert "ya29" not in repr(reply)
        server.failures = []
        assert (await product.ask(chat("Hi", model=MODEL))).status == 200


@ensureDeferred
async def test_a_quota_without_details_is_one_of_a_minute(tmp_path: Path) -> None:
    async with asking(tmp_path) as (product, _):
        exhausted = scenarios.error(429, "Resource exhausted. Please try again later.")
        product.api.play(exhausted)
        assert (await product.ask(chat("Hi", model=MODEL))).status == 200
        assert len(product.asked) == 2
        product.api.play(*[exhausted] * 9)
        reply = await product.ask(chat("Hi", model=MODEL))
        assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")


@ensureDeferred
async def test_tokens_are_had_through_the_proxy(tmp_path: Path) -> None:
    proxy = ProxyServer(user="me:it's secret")
    try:
        # Of this daemon's settings, and not of the environment of the process.
        variables = {"HTTP_PROXY": f"http://me:it%27s%20secret@127.0.0.1:{proxy.number}"}
        async with asking(tmp_path, **variables) as (product, server):
            here = urlsplit(server.url)
            proxy.targets["tokens.test:80"] = here.port
            file = tmp_path / "service-account.json"
            file.write_text(file.read_text().replace(here.netloc, "tokens.test"))
            assert (await product.ask(chat("Hi", model=MODEL))).status == 200
            assert [asked.target for asked in proxy.asked] == ["http://tokens.test/token"]
    finally:
        await proxy.stop()


@ensureDeferred
async def test_workload_identity_serves_and_a_network_that_fails_is_tried_again(
    tmp_path: Path,
) -> None:
    async with asking(tmp_path) as (product, server):
        (tmp_path / "subject").write_text("of-the-cluster")
        federated = {
            "type": "external_account",
            # Of a number of a project google-auth would ask Google.
            "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/x",
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "token_url": server.url,
            "credential_source": {"file": str(tmp_path / "subject")},
            "quota_project_id": "payer-1",
        }
        (tmp_path / "service-account.json").write_text(json.dumps(federated))
        server.drops = 1
        assert (await product.ask(chat("Hi", model=MODEL))).status == 200
        assert product.asked[-1].headers["x-goog-user-project"] == "payer-1"
        assert product.asked[-1].token == server.given[0]


@ensureDeferred
async def test_express_mode_has_a_key_and_no_project(tmp_path: Path) -> None:
    express = {"GOOGLE_CLOUD_PROJECT": "", "GOOGLE_API_KEY": "AQ.express"}
    async with asking(tmp_path, **express) as (product, server):
        assert (await product.ask(chat("Hi", model=MODEL))).status == 200
        asked = product.asked[-1]
        assert asked.path == f"/v1beta1/publishers/google/models/{MODEL}:streamGenerateContent"
        assert (asked.key, asked.token, server.given) == ("AQ.express", "", [])


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_each_location_has_a_host(location: str, host: str) -> None:
    assert default_base(location) == f"https://{host}"


def test_vertex_ai_needs_a_project_or_a_key() -> None:
    environ = {"GOOGLE_GENAI_USE_VERTEXAI": "1", "GEMINI_API_KEY": "of-ai-studio"}
    with pytest.raises(BadSetting, match="GOOGLE_CLOUD_PROJECT"):
        Config.load({}, environ)
    assert Config.load({}, environ | {"GOOGLE_CLOUD_PROJECT": "my-p"}).google_keys == ("my-p",)
    assert Config.load({}, environ | {"GOOGLE_API_KEY": "a,b"}).google_keys == ("a", "b")
    assert Config.load({}, {"GEMINI_API_KEY": "k", "GOOGLE_CLOUD_PROJECT": "my-p"}).google_keys == (
        "k",
    )


@pytest.mark.parametrize("content", [None, "", "[1]", "{}", '{"type": 1', "-----BEGIN"])
def test_a_file_without_credentials_is_named_at_the_start(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "credentials.json"
    if content is not None:
        file.write_text(content)
    environ = {"GOOGLE_GENAI_USE_VERTEXAI": "1", "GOOGLE_CLOUD_PROJECT": "my-project-1"}
    environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(file)
    config = Config.load({}, environ | {"GEMINI_ENGINE": "direct", "DATA_DIR": str(tmp_path)})
    with pytest.raises(BadSetting, match=r"GOOGLE_APPLICATION_CREDENTIALS: .*credentials\.json"):
        Daemon(config, None, reactor, {})
    assert main(["check"], environ) == 0
    assert "The daemon would not start." in capsys.readouterr().out
    # AI Studio has no use for it.
    environ |= {"GOOGLE_GENAI_USE_VERTEXAI": "", "GEMINI_API_KEY": "k"}
    assert Config.load({}, environ).credentials_problem is None


# Tokens alone, with a clock of their own.


class Wall:
    """@ivar now: in seconds since the epoch."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def signing(tokens: AccessTokens) -> Deferred[Any]:
    return Deferred.fromCoroutine(tokens.sign("project"))


@ensureDeferred
async def test_a_token_is_renewed_before_its_end_while_the_old_one_serves() -> None:
    wall, given = Wall(), [Token("a", 2000.0), Token("b", 3000.0, "payer")]
    tokens = AccessTokens(reactor, lambda: given.pop(0), wall)
    assert await signing(tokens) == ((b"authorization", b"Bearer a"),)
    wall.now = 1699.0
    assert await signing(tokens) == ((b"authorization", b"Bearer a"),)
    assert len(given) == 1
    wall.now = 1700.0
    assert await signing(tokens) == ((b"authorization", b"Bearer a"),)
    # It is under way by now; whoever cannot do without it waits for it.
    wall.now = 1990.0
    assert await signing(tokens) == (
        (b"authorization", b"Bearer b"),
        (b"x-goog-user-project", b"payer"),
    )
    assert given == []


@ensureDeferred
async def test_one_token_replaces_one_that_many_requests_find_refused() -> None:
    given = [Token("a", 2000.0), Token("b", 3000.0)]
    tokens = AccessTokens(reactor, lambda: given.pop(0), Wall())
    old = await signing(tokens)
    tokens.refused(old)
    new = await signing(tokens)
    assert new != old
    # Of requests that were under way; and of a server that refuses whatever it is shown.
    for signature in (old, old, new):
        tokens.refused(signature)
        assert await signing(tokens) == new


@ensureDeferred
async def test_a_failure_does_not_keep_a_token_that_is_good_from_serving() -> None:
    wall, calls = Wall(), []

    def get() -> Token:
        calls.append(wall.now)
        if len(calls) == 1:
            return Token("a", 2000.0)
        raise OSError("no network")

    tokens = AccessTokens(reactor, get, wall)
    await signing(tokens)
    wall.now = 1800.0
    for _ in range(5):
        assert await signing(tokens) == ((b"authorization", b"Bearer a"),)
    wall.now = 1995.0
    for each in [signing(tokens) for _ in range(5)]:
        with pytest.raises(ApiFailed, match="no network"):
            await each
    # One for the token, one before its end, and one for all that waited.
    assert len(calls) <= 3
