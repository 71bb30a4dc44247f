"""What the Stream Proxy has on offer, and how a second gemproxy stands behind it."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

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
from testing.processes import free_port
from tests.support import Product, Relay, Reply, chat, fresh_model, gpt, running_relay


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


@pytest.mark.parametrize("patience", [Patience(models=0.3)])
@pytest.mark.parametrize("how", BROKEN)
@ensureDeferred
async def test_ours_alone_when_the_upstream_has_no_list(relay: Relay, how: str) -> None:
    await with_lists(relay, document(GEMINI), BROKEN[how])
    reply = await relay.get("/v1/models")
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
    assert ids(await relay.get("/v1/models")) == ["gpt-x"]


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


OTHERS = listed("org/gpt-x", "GPT-y:free", *(f"gpt-{number}" for number in range(30)))


@ensureDeferred
async def test_one_model_of_the_upstream_is_looked_up_in_its_list(relay: Relay) -> None:
    relay.upstream.always(document(OTHERS))
    for name in ("org/gpt-x", "GPT-y:free", "gpt-7", "org%2Fgpt-x"):
        reply = await relay.get(f"/v1/models/{name}")
        assert reply.json in OTHERS["data"]
        assert reply.json["id"] == name.replace("%2F", "/")
        assert "x-gemproxy-stale" not in reply.headers
    for name in ("nothing", "gpt-Y:free", "org"):
        reply = await relay.get(f"/v1/models/{name}")
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert f"'{name}'" in reply.error["message"]
        assert "org/gpt-x" in reply.error["message"]
        assert len(reply.error["message"]) < 500
    assert {call.target for call in relay.upstream.calls} == {"/v1/models"}


@ensureDeferred
async def test_a_model_cannot_be_looked_up_without_a_list(relay: Relay) -> None:
    for script, status in ((BROKEN["refused"], 401), (BROKEN["HTML"], 502)):
        relay.upstream.play(script)
        assert (await relay.get("/v1/models/gpt-x")).status == status


@ensureDeferred
async def test_a_bare_array_is_a_list(relay: Relay) -> None:
    await with_lists(relay, document(GEMINI), document(listed("gpt-x", "b")["data"]))
    assert ids(await relay.get("/v1/models"))[2:] == ["gpt-x", "b"]


async def list_of(relay: Relay, path: str = "/v1/models", key: str = "a") -> Reply:
    return await (await relay.send("GET", path, Authorization=f"Bearer {key}")).reply()


def no_gemini() -> str:
    """The URL of a Gemini Proxy that is not there: what is listed is the upstream's."""
    return f"http://127.0.0.1:{free_port()}"


AWAY = [how for how in BROKEN if how not in ("refused", "elsewhere")]


@pytest.mark.slow
@pytest.mark.parametrize("how", [*AWAY, "elsewhere"])
@ensureDeferred
async def test_the_last_list_serves_while_the_upstream_is_slow_or_away(how: str) -> None:
    async with running_relay(Patience(models=0.3), GEMINI_PROXY_URL=no_gemini()) as relay:
        relay.upstream.always(document(listed("gpt-x")))
        assert "x-gemproxy-stale" not in (await list_of(relay)).headers
        relay.upstream.always(BROKEN[how])
        reply = await list_of(relay)
        assert ids(reply) == ["gpt-x"]
        assert reply.headers["x-gemproxy-stale"] == "true"
        reply = await list_of(relay, "/v1/models/gpt-x")
        assert (reply.json["id"], reply.headers["x-gemproxy-stale"]) == ("gpt-x", "true")
        reply = await list_of(relay, "/v1/models/gpt-y")
        assert (reply.status, reply.headers["x-gemproxy-stale"]) == (404, "true")
        # Others may not use these models.
        assert ids(await list_of(relay, key="b")) == []
        relay.upstream.always(document(listed("gpt-y")))
        reply = await list_of(relay)
        assert ids(reply) == ["gpt-y"]
        assert "x-gemproxy-stale" not in reply.headers


@ensureDeferred
async def test_the_last_list_of_a_fixed_key_is_for_all() -> None:
    async with running_relay(FIXED_API_KEY="sk-fixed", GEMINI_PROXY_URL=no_gemini()) as relay:
        relay.upstream.always(document(listed("gpt-x")))
        await list_of(relay)
        relay.upstream.always(BROKEN["failed"])
        assert ids(await list_of(relay, key="b")) == ["gpt-x"]


@ensureDeferred
async def test_a_client_that_is_refused_gets_no_list_any_more(relay: Relay) -> None:
    relay.upstream.always(document(listed("gpt-x")))
    await list_of(relay)
    for how in ("refused", "failed"):
        relay.upstream.always(BROKEN[how])
        reply = await list_of(relay)
        assert ids(reply) == []
        assert "x-gemproxy-stale" not in reply.headers


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
