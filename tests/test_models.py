"""What the Stream Proxy has on offer, and how a second gemproxy stands behind it."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from gemproxy.service import Patience
from testing.fake_newapi import (
    Call,
    Script,
    document,
    events,
    hang,
    head,
    headers_and_hang,
    stream,
    verbatim,
)
from testing.google import scenarios
from tests.support import Product, Relay, chat, fresh_model, gpt, running_relay


def listed(*names: str) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "owned_by": "us", "x": [1]} for name in names],
    }


def ids(reply: Any) -> list[str]:
    return [model["id"] for model in reply.json["data"]]


async def with_lists(relay: Relay, gemini: Script, others: Script) -> None:
    """Both lists are asked of the same fake, each with its own headers."""
    calls: list[Call] = []

    async def script(call: Call) -> None:
        calls.append(call)
        # The others are asked first.
        await (others if len(calls) == 1 else gemini)(call)

    relay.upstream.always(script)


GEMINI = listed("gemini-2.5-pro", "gemini-2.5-flash")


@ensureDeferred
async def test_both_lists_are_one(relay: Relay) -> None:
    others = listed("gpt-x", "gemini-2.5-pro", "claude", "gpt-x")
    await with_lists(relay, document(GEMINI), document(others))
    reply = await relay.get("/v1/models")
    assert reply.status == 200
    assert reply.json["object"] == "list"
    assert ids(reply) == ["gemini-2.5-pro", "gemini-2.5-flash", "gpt-x", "claude"]
    assert reply.json["data"][2] == others["data"][0]
    assert [call.target for call in relay.upstream.calls] == ["/v1/models"] * 2
    assert relay.warnings == []


@ensureDeferred
async def test_the_key_of_the_client_is_shown_when_models_are_listed(relay: Relay) -> None:
    client = await relay.send("GET", "/v1/models", Authorization="Bearer sk-1")
    await client.reply()
    assert {call.header("authorization") for call in relay.upstream.calls} == {"Bearer sk-1"}


BROKEN = {
    "hang": hang(),
    "headers and no more": headers_and_hang(headers=[("Content-Type", "application/json")]),
    "half": verbatim(head(200, [("Content-Length", "100")]) + b'{"data": ['),
    "cut": verbatim(head(200, [("Content-Length", "100")]) + b'{"data": [', "close"),
    "reset": verbatim(b"", "reset"),
    "HTML": document(b"<html>Welcome to New-API</html>", headers=[("Content-Type", "text/html")]),
    "no list": document({"object": "list"}),
    "nothing": document(b""),
    "number": document(b"7"),
    "data that is none": document({"data": {"a": 1}}),
    "refused": document({"error": {"message": "No key.", "type": "x"}}, 401),
    "failed": document(b"oops", 500),
    "elsewhere": document(b"", 302, [("Location", "/login")]),
    "no HTTP": verbatim(b"SSH-2.0-OpenSSH\r\n", "close"),
}


@pytest.mark.parametrize("how", BROKEN)
@ensureDeferred
async def test_ours_alone_when_the_upstream_has_no_list(relay: Relay, how: str) -> None:
    await with_lists(relay, document(GEMINI), BROKEN[how])
    began = reactor.seconds()
    reply = await relay.get("/v1/models")
    assert reactor.seconds() - began < 3
    assert reply.status == 200
    assert ids(reply) == ["gemini-2.5-pro", "gemini-2.5-flash"]
    assert [text for text in relay.warnings if "models" in text and "upstream" in text]


@ensureDeferred
async def test_malformed_entries_are_left_out(relay: Relay) -> None:
    strange = [None, 3, "text", {}, {"id": None}, {"id": []}, {"id": ""}, {"id": 7}, {"id": "good"}]
    await with_lists(relay, document(GEMINI), document({"data": strange}))
    assert ids(await relay.get("/v1/models"))[2:] == ["good"]


@pytest.mark.parametrize("patience", [Patience(models=0.3)])
@ensureDeferred
async def test_theirs_alone_when_gemini_has_no_list(relay: Relay) -> None:
    await with_lists(relay, hang(), document(listed("gpt-x")))
    began = reactor.seconds()
    assert ids(await relay.get("/v1/models")) == ["gpt-x"]
    assert reactor.seconds() - began < 3


@ensureDeferred
async def test_a_client_may_go_while_the_lists_are_fetched(relay: Relay) -> None:
    relay.upstream.always(hang())
    client = await relay.send("GET", "/v1/models")
    calls = [await relay.upstream.when_asked(number) for number in range(2)]
    client.drop()
    for call in calls:
        await call.when_closed(1)


@pytest.mark.parametrize("path", ["/models", "//models", "/v1//models", "/v1/v1/models/"])
@ensureDeferred
async def test_sloppy_base_urls(relay: Relay, path: str) -> None:
    await with_lists(relay, document(GEMINI), document(listed("gpt-x")))
    assert len(ids(await relay.get(path))) == 3


@ensureDeferred
async def test_a_single_model(relay: Relay) -> None:
    relay.upstream.play(document(listed("gemini-2.5-pro")))
    reply = await relay.get("/v1/models/gemini-2.5-pro")
    assert reply.json == listed("gemini-2.5-pro")["data"][0]
    reply = await relay.get("/v1/models/google/Gemini-9")
    assert reply.json == {
        "id": "gemini-9",
        "object": "model",
        "created": 0,
        "owned_by": "google",
    }
    reply = await relay.get("/v1/models/gemini/x")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert [call.target for call in relay.upstream.calls] == ["/v1/models"]
    model = {"id": "org/gpt-x", "object": "model", "x": 1}
    relay.upstream.play(document(model), document({"error": {"message": "None."}}, 404))
    assert (await relay.get("/v1/models/org/gpt-x")).json == model
    assert relay.upstream.calls[1].target == "/v1/models/org/gpt-x"
    reply = await relay.get("/v1/models/nothing")
    assert (reply.status, reply.error["message"]) == (404, "None.")


# With an engine, or another gemproxy's:


@ensureDeferred
async def test_gemini_models_are_ours_without_an_upstream(product: Product) -> None:
    client = await product.send("GET", "/v1/models", port=product.stream_port)
    assert ids(await client.reply()) == ids(await product.get("/v1/models"))


@ensureDeferred
async def test_another_gemproxy_stands_behind(product: Product) -> None:
    url = f"http://127.0.0.1:{product.port}"
    for base in (url, url + "/v1", url + "/"):
        async with running_relay(GEMINI_PROXY_URL=base) as relay:
            relay.upstream.always(document(listed("gpt-x")))
            own = ids(await product.get("/v1/models"))
            assert ids(await relay.get("/v1/models")) == [*own, "gpt-x"]
    async with running_relay(GEMINI_PROXY_URL=url) as relay:
        assert (await relay.get("/health")).json == {"status": "ok"}
        for name in ("gemini-2.5-flash", "models/Gemini-2.5-Flash"):
            for wanted in (True, False):
                product.api.play(scenarios.thinking("Hm.", "One", " two <disclaimer> never"))
                reply = await relay.ask(chat("Hi", model=name, stream=wanted))
                assert reply.content == "One two "
        product.api.play(scenarios.error(400, "Bad value."), scenarios.daily_quota())
        model = fresh_model()
        for wanted, status in ((True, 400), (False, 429)):
            reply = await relay.ask(chat("Hi", model=model, stream=wanted))
            assert reply.status == status
        assert reply.error["type"] == "insufficient_quota"
        assert reply.headers["x-should-retry"] == "false"
        assert (await relay.ask(gpt(stream=True))).content == "Hello"


@ensureDeferred
async def test_health_is_open_to_all_and_says_so(relay: Relay) -> None:
    relay.upstream.always(events(b"", then="hang"))
    reply = await relay.get("/health")
    assert (reply.status, reply.json) == (200, {"status": "ok"})
    relay.upstream.always(stream("Hello"))
    assert (await relay.ask(gpt())).content == "Hello"
