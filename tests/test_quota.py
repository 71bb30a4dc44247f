"""Quotas and keys, as the requests of a whole daemon see them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from gemproxy.gemini.api import keys
from gemproxy.service import EngineService
from testing.google import scenarios
from testing.google.app import StandIn
from tests.support import Product, chat, fresh_model, shared_daemon, until

KEYS = ("first-key", "second-key", "third-key")

pytestmark = pytest.mark.both_engines
shared_product = shared_daemon(
    "module", GEMINI_API_KEY=",".join(KEYS), MAX_RETRIES=1, RETRY_DELAY=0.05
)


def key_of(asked: Any) -> str:
    return asked.headers["x-goog-api-key"]


def used(product: Product) -> list[str]:
    return [key_of(asked) for asked in product.asked]


async def exhaust(product: Product, model: str) -> None:
    """Use up the daily quota of all keys."""
    product.api.play(*[scenarios.daily_quota()] * len(KEYS))
    reply = await product.ask(chat(model=model))
    assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")
    assert sorted(used(product)[-len(KEYS) :]) == sorted(KEYS)


@ensureDeferred
async def test_several_keys_share_the_requests(product: Product) -> None:
    replies = await product.ask_all(chat(f"{n}", stream=bool(n % 2)) for n in range(12))
    assert {reply.status for reply in replies} == {200}
    assert Counter(used(product)) == dict.fromkeys(KEYS, 4)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "play",
    [scenarios.daily_quota(), scenarios.invalid_key(), scenarios.rate_limited(30)],
    ids=range(3),
)
@ensureDeferred
async def test_another_key_steps_in_and_the_client_does_not_notice(
    product: Product, play: scenarios.Scenario, stream: bool
) -> None:
    model = fresh_model()
    product.api.play(play, *[scenarios.answer("Fine")] * 8)
    began = reactor.seconds()
    for _ in range(5):
        assert (await product.ask(chat(model=model, stream=stream))).status == 200
    assert reactor.seconds() - began < 3
    first, *others = used(product)
    assert len(others) == 5
    assert first not in others
    assert set(others) == set(KEYS) - {first}
    # It is that model alone, and not the daemon's state as long as others are good.
    assert (await product.get("/health")).json["status"] == "ok"
    await product.ask_all(chat() for _ in range(3))
    assert first in used(product)[-3:]


@ensureDeferred
async def test_when_all_are_out_requests_fail_at_once_without_asking(product: Product) -> None:
    model = fresh_model()
    await exhaust(product, model)
    asked = len(product.asked)
    began = reactor.seconds()
    bodies = [chat(model=model, stream=bool(n % 2)) for n in range(20)]
    for reply in await product.ask_all(bodies):
        assert (reply.status, reply.error["type"]) == (429, "insufficient_quota")
        assert reply.error["message"].startswith("You exceeded your current quota")
        assert 1 <= int(reply.headers["retry-after"]) <= keys.REST
        assert reply.headers["x-should-retry"] == "false"
    assert reactor.seconds() - began < 2
    assert len(product.asked) == asked
    assert (await product.ask(chat())).status == 200


@ensureDeferred
async def test_health_tells_which_models_are_out_and_stays_200(product: Product) -> None:
    model = fresh_model()
    await exhaust(product, model)
    health = await product.get("/health")
    assert (health.status, health.json["status"]) == (200, "degraded")
    waits = {entry["model"]: entry["retry_after"] for entry in health.json["quota_exhausted"]}
    assert 1 <= waits[model] <= keys.REST
    ready = await product.get("/ready")
    assert (ready.status, ready.json) == (200, {"ready": True, "status": "degraded"})
    text = health.body.decode()
    assert not any(key in text for key in KEYS)


@ensureDeferred
async def test_one_request_probes_after_the_rest(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh_model()
    (engine,) = (s for s in product.daemon.services if isinstance(s, EngineService))
    ring = engine.engine.keys
    monkeypatch.setattr(ring, "_rest_seconds", 0.3)
    await exhaust(product, model)
    await until(lambda: not any(ring._wait(key, model) for key in KEYS), "all rests are over")
    assert len(product.asked) == len(KEYS)

    # There are as many probes as keys; the rest of the requests is refused.
    product.api.play(*[scenarios.hang("Half", after=1)] * len(KEYS))
    probes = [await product.begin(chat(model=model, stream=True)) for _ in KEYS]
    for probe in probes:
        await probe.until_received(b"Half")
    refused = await product.ask(chat(model=model))
    assert refused.status == 429
    assert (await product.get("/health")).json["status"] == "degraded"
    assert len(product.asked) == 2 * len(KEYS)

    # Nobody knows what would have come of it: the next one is a probe again, and it is good.
    for probe in probes:
        probe.drop()
    await product.until_idle()
    assert (await product.ask(chat(model=model))).status == 200
    assert (await product.ask(chat(model=model))).status == 200


@ensureDeferred
async def test_malformed_keys_are_reported(product: Product) -> None:
    model = fresh_model()
    product.api.play(*[scenarios.invalid_key()] * len(KEYS))
    reply = await product.ask(chat(model=model))
    assert (reply.status, reply.error["code"]) == (502, "gemini_key_refused")
    assert sorted(used(product)) == sorted(KEYS)
    assert not any(key in reply.body.decode() for key in KEYS)


@ensureDeferred
async def test_some_wrong_keys_among_several_do_no_harm(product: Product) -> None:
    api: StandIn = product.api
    model = fresh_model()
    api._keys = {"second-key"}
    try:
        replies = await product.ask_all(chat(model=model) for _ in range(6))
    finally:
        api._keys = None
    assert {reply.status for reply in replies} == {200}
    assert used(product).count("second-key") >= 6


# Signatures

SIGNED = scenarios.call("f") | {"thoughtSignature": "bWFkZSBoZXJl"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


async def signed_history(product: Product, signature: str) -> list[Any]:
    """A conversation with a call whose signature the client dropped."""
    product.api.play(scenarios.answer(SIGNED | {"thoughtSignature": signature}))
    reply = await product.ask(chat("Hi", model="gemini-3.8-flash", tools=TOOLS))
    [call] = reply.json["choices"][0]["message"]["tool_calls"]
    call.pop("extra_content")
    answered = {"role": "tool", "tool_call_id": call["id"], "content": "x"}
    return [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        answered,
    ]


@ensureDeferred
async def test_a_signed_conversation_keeps_to_the_key_that_signed_it(product: Product) -> None:
    history = await signed_history(product, "c2lnbmVkIG9uY2U=")
    for _ in range(5):
        assert (await product.ask(chat(*history, model="gemini-3.8-flash"))).status == 200
    assert len(set(used(product))) == 1


@ensureDeferred
async def test_a_signature_of_another_key_is_replaced_once(product: Product) -> None:
    history = await signed_history(product, "c2lnbmVkIHR3aWNl")
    first = used(product)[0]
    product.api._signatures["c2lnbmVkIHR3aWNl"] = "a-key-of-before"
    reply = await product.ask(chat(*history, model="gemini-3.8-flash"))
    assert reply.status == 200
    # The same key, and no pause before it.
    assert used(product) == [first, first, first]
    signatures = [asked.contents[1]["parts"][0]["thoughtSignature"] for asked in product.asked[1:]]
    assert signatures == ["c2lnbmVkIHR3aWNl", "skip_thought_signature_validator"]


@ensureDeferred
async def test_what_is_corrupted_all_the_same_is_refused(product: Product) -> None:
    history = await signed_history(product, "c2lnbmVkIHRocmljZQ==")
    product.api.play(*[scenarios.error(400, "Corrupted thought signature.")] * 2)
    reply = await product.ask(chat(*history, model="gemini-3.8-flash"))
    assert (reply.status, reply.error["message"]) == (400, "Corrupted thought signature.")
    assert len(product.asked) == 3


@ensureDeferred
async def test_a_signed_text_keeps_to_the_key_that_signed_it(product: Product) -> None:
    signed = scenarios.text("Yes.") | {"thoughtSignature": "b2YgYSB0ZXh0"}
    product.api.play(scenarios.answer(signed))
    reply = await product.ask(chat("Hi", model="gemini-3.8-flash"))
    message = reply.json["choices"][0]["message"]
    for _ in range(5):
        reply = await product.ask(chat("Hi", message, "Sure?", model="gemini-3.8-flash"))
        assert reply.status == 200
    assert len(set(used(product))) == 1
    assert len(used(product)) == 6
