"""Google's own API on both ports: keys, paths, and what goes on as it came."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from gemproxy.accounts.records import limits_of_json
from gemproxy.config_file import PriceConfig, PriceListConfig
from gemproxy.usage.prices import Prices
from testing.fake_newapi import document, stream
from testing.google import refusals, scenarios
from tests.support import Product, Relay, Reply, chat, running_relay, shared_daemon

KEY = "a-key-of-this-proxy"
SENT = {
    "contents": [
        {"role": "user", "parts": [{"text": "/help"}, {"fileData": {"fileUri": "f"}}]},
        {"role": "user", "parts": [{"text": "twice the user"}]},
    ],
    "generationConfig": {"responseModalities": ["TEXT"], "mediaResolution": "X"},
    "safetySettings": [{"category": "C", "threshold": "T"}],
    "cachedContent": "cachedContents/1",
}
FUTURE = SENT | {
    "fromTheFuture": [1, 2**70, 0.1],
    "tools": [{"laterTool": {"x": None}}],
    "system_instruction": {"parts": [{"text": "Be brief."}]},
}

pytestmark = pytest.mark.both_engines
shared_product = shared_daemon("module", PROXY_API_KEYS=KEY, GEMINI_WORKERS=1, STOP_TAGS="</end>")


async def generate(
    product: Product,
    port: int,
    body: Any = SENT,
    method: str = "generateContent",
    model: str = "gemini-3.8-flash",
    version: str = "/v1beta",
    query: str = f"?key={KEY}",
    **headers: str,
) -> Reply:
    path = f"{version}/models/{model}:{method}{query}"
    connection = await product.send("POST", path, body, port, **headers)
    return await connection.reply()


def ports(product: Product) -> tuple[int, int]:
    return product.port, product.stream_port


@ensureDeferred
async def test_an_account_has_its_models_and_budget_on_both_ports(product: Product) -> None:
    accounts, file = product.daemon._accounts, product.daemon._accounts_file
    price = PriceConfig("gemini-*", input=1e6, output=1e6)
    product.daemon._meter.prices = Prices(PriceListConfig(per_million=(price,)))
    limits = limits_of_json({"models": ["gemini-*-flash"], "budgets": ["1000USD/day"]})
    _, key = await accounts.change(file.add, "bob", limits, 1.0)
    query, other = f"?key={key}", "gemini-2.5-pro"
    for port in ports(product):
        assert (await generate(product, port, query=query)).status == 200
        for method in ("generateContent", "streamGenerateContent", "countTokens", "embedContent"):
            reply = await generate(product, port, method=method, model=other, query=query)
            assert (reply.status, reply.error["status"]) == (403, "PERMISSION_DENIED"), method
        for path, body in (
            ("/v1beta/cachedContents", {"contents": []}),
            ("/v1/images/generations", {"prompt": "x"}),
            ("/v1/responses", {"input": "x"}),
            ("/v1/messages/count_tokens", chat()),
        ):
            asked = body | {"model": f"models/{other}"}
            sent = await product.send("POST", path + query, asked, port)
            assert (await sent.reply()).status == 403, path
        listed = await (await product.send("GET", f"/v1beta/models{query}", port=port)).reply()
        assert listed.json["models"]
        assert all(model["name"].endswith("-flash") for model in listed.json["models"])
        sent = await product.send("GET", f"/v1beta/models/{other}{query}", port=port)
        assert (await sent.reply()).status == 403
    assert accounts.spent("bob")["day"].requests == 2
    cost = accounts.spent("bob")["day"].cost
    assert cost == accounts.spent("bob")["day"].tokens > 0
    await accounts.change(file.change, "bob", {"budgets": [f"{cost:g}USD/day"]})
    for port in ports(product):
        reply = await generate(product, port, query=query)
        assert (reply.status, reply.error["status"]) == (429, "RESOURCE_EXHAUSTED")
        (delay,) = [one["retryDelay"] for one in reply.error["details"] if "retryDelay" in one]
        assert re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?s", delay)
    await accounts.change(file.revoke, "bob", 2.0)
    assert (await generate(product, product.port, query=query)).status == 401


RICH = scenarios.answer(
    {"text": "Hm.", "thought": True, "thoughtSignature": "c2ln"},
    {"executableCode": {"language": "PYTHON", "code": "1"}},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
    {"text": "One", "later": {"a": 1}},
    usage={"later": 7},
)


@ensureDeferred
async def test_everything_goes_on_and_comes_back_as_it_was(product: Product) -> None:
    for port in ports(product):
        product.api.play(RICH, RICH, RICH)
        whole = await generate(product, port)
        events = await generate(
            product, port, method="streamGenerateContent", query=f"?alt=sse&key={KEY}"
        )
        array = await generate(product, port, method="streamGenerateContent")
        assert product.asked[-1].body == product.asked[-2].body == SENT
        parts = [part for chunk in RICH.chunks for part in chunk]
        assert whole.json["candidates"][0]["content"]["parts"] == parts
        assert whole.json["usageMetadata"]["later"] == 7
        said = [json.loads(line[6:]) for line in events.body.decode().split("\r\n\r\n") if line]
        for responses in (said, array.json):
            assert [part for each in responses for part in _parts(each)] == parts
            assert responses[-1]["candidates"][0]["finishReason"] == "STOP"
        assert events.headers["content-type"].startswith("text/event-stream")
        assert array.headers["content-type"].startswith("application/json")


@ensureDeferred
async def test_what_only_google_may_know_is_for_google_to_judge(product: Product) -> None:
    for port in ports(product):
        reply = await generate(product, port, FUTURE)
        assert (reply.status, reply.error["status"]) == (400, "INVALID_ARGUMENT")
        assert "fromTheFuture" in reply.error["message"]
        assert product.asked[-1].body == FUTURE


def _parts(response: Any) -> list[Any]:
    return response["candidates"][0]["content"].get("parts", [])


@ensureDeferred
async def test_every_version_and_every_way_to_show_the_key(product: Product) -> None:
    for port in ports(product):
        for version in ("/v1", "/v1beta", "/v1alpha", "", "/v1/v1beta"):
            product.api.play(scenarios.answer("Hi"))
            reply = await generate(product, port, {"contents": SENT["contents"]}, version=version)
            assert (reply.status, _parts(reply.json)) == (200, [{"text": "Hi"}])
        for headers in ({"X_Goog_Api_Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            product.api.play(scenarios.answer("Hi"))
            assert (await generate(product, port, query="", **headers)).status == 200
        assert product.asked[-1].key == "the-key"
        assert "key" not in product.asked[-1].query


@ensureDeferred
async def test_errors_of_admission_have_googles_shape(product: Product) -> None:
    for port in ports(product):
        for query in ("", "?key=wrong-key-of-a-client"):
            reply = await generate(product, port, query=query)
            assert (reply.status, reply.error["status"]) == (401, "UNAUTHENTICATED")
        reply = await generate(product, port, b"{", model="gemini-3.8-flash")
        assert (reply.status, reply.error["status"]) == (400, "INVALID_ARGUMENT")
        reply = await generate(product, port, method="predict")
        assert (reply.status, reply.error["status"]) == (404, "NOT_FOUND")


@ensureDeferred
async def test_the_key_in_a_query_is_nowhere_else(product: Product) -> None:
    for port in ports(product):
        product.api.play(scenarios.answer("Hi"))
        await generate(product, port)
        await generate(product, port, method="countTokens")
        for asked in product.asked[-2:]:
            assert KEY not in repr((asked.headers, asked.query, asked.raw))
    for path in product.run_root.parent.glob("logs/**/*"):
        assert not path.is_file() or KEY not in path.read_text()


@ensureDeferred
async def test_an_error_of_googles_is_told_as_it_came(product: Product) -> None:
    details = [refusals.error_info("WHY", a="b")]
    for port in ports(product):
        for method in ("generateContent", "streamGenerateContent"):
            product.api.play(scenarios.error(403, "No.", details=details))
            reply = await generate(product, port, method=method)
            told = reply.json if method == "generateContent" else reply.json[0]
            assert reply.status == 403
            assert told["error"] == {
                "code": 403,
                "message": "No.",
                "status": "PERMISSION_DENIED",
                "details": details,
            }


@ensureDeferred
async def test_an_answer_that_google_calls_malformed_is_the_answer(product: Product) -> None:
    for port in ports(product):
        play = scenarios.answer("So far", finish_reason="MALFORMED_FUNCTION_CALL")
        product.api.play(*[play] * 9)
        reply = await generate(product, port, method="streamGenerateContent")
        product.api._plays.clear()
        assert reply.json[-1]["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"
        product.api.play(scenarios.blocked("SAFETY"))
        reply = await generate(product, port)
        assert reply.json["promptFeedback"] == {"blockReason": "SAFETY"}


@ensureDeferred
async def test_stop_tags_hold_here_too(product: Product) -> None:
    product.api.play(scenarios.answer("Yes</e", "nd> and no"))
    reply = await generate(product, product.stream_port)
    assert _parts(reply.json) == [{"text": "Yes"}]
    assert reply.json["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize("key", ["a-client-key", ""])
@ensureDeferred
async def test_the_models_of_upstreams_are_translated_if_need_be(relay: Relay, key: str) -> None:
    answer = {
        "id": "x",
        "choices": [
            {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop", "delta": None}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }
    relay.upstream.play(document({"error": {"message": "no such path"}}, status=404))
    relay.upstream.always(document(answer))
    path = "/v1beta/models/gpt-x:generateContent" + (f"?key={key}" if key else "")
    for _ in range(2):
        reply = await (await relay.send("POST", path, {"contents": SENT["contents"][:1]})).reply()
        assert _parts(reply.json) == [{"text": "Hi"}]
        assert reply.json["usageMetadata"]["totalTokenCount"] == 3
    targets = [call.target for call in relay.upstream.calls if call.method == "POST"]
    assert targets == [path, "/v1/chat/completions", "/v1/chat/completions"]
    shown = relay.upstream.calls[-1].all_headers("authorization")
    assert shown == ([f"Bearer {key}"] if key else [])
    reply = await (
        await relay.send("POST", "/v1beta/models/gpt-x:countTokens", {"contents": [{"parts": []}]})
    ).reply()
    assert reply.json["totalTokens"] >= 0


@ensureDeferred
async def test_an_upstream_that_speaks_it_is_asked_so(relay: Relay) -> None:
    relay.upstream.always(document({"candidates": []}))
    path = "/v1beta/models/gpt-x:generateContent?key=k"
    reply = await (await relay.send("POST", path, SENT)).reply()
    assert reply.json == {"candidates": []}
    assert relay.upstream.calls[-1].target == path


@ensureDeferred
async def test_a_stream_of_an_upstream_is_translated(relay: Relay) -> None:
    relay.upstream.play(document({"error": {"message": "no"}}, status=405))
    relay.upstream.play(stream("He", "llo"))
    path = "/v1beta/models/gpt-x:streamGenerateContent"
    reply = await (await relay.send("POST", path, {"contents": SENT["contents"]})).reply()
    assert "".join(part["text"] for each in reply.json for part in _parts(each)) == "Hello"
    assert reply.json[-1]["candidates"][0]["finishReason"] == "STOP"


@ensureDeferred
async def test_another_gemproxy_with_the_workers_gets_it_as_it_is(product: Product) -> None:
    url = f"http://127.0.0.1:{product.port}/v1"
    async with running_relay(GEMINI_PROXY_URL=url) as relay:
        for method, query in (("generateContent", ""), ("streamGenerateContent", "?alt=json")):
            product.api.play(RICH)
            path = f"/v1beta/models/gemini-3.8-flash:{method}{query}"
            reply = await (await relay.send("POST", path, SENT, X_Goog_Api_Key=KEY)).reply()
            told = reply.json if isinstance(reply.json, list) else [reply.json]
            parts = [part for chunk in RICH.chunks for part in chunk]
            assert [part for each in told for part in _parts(each)] == parts
            assert product.asked[-1].body == SENT
        path = "/v1beta/models/gemini-3.8-flash:countTokens"
        reply = await (await relay.send("POST", path, SENT, X_Goog_Api_Key=KEY)).reply()
        assert reply.json["totalTokens"] > 0
