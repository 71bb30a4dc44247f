"""Thoughts of the model, through the real CLI."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from testing.google import scenarios
from tests.support import Product, chat

pytestmark = pytest.mark.both_engines

TITLED = "**Weighing the matter**\n\nFirst, \u00e9\u2028\U0001f600.\n\n\n"
THOUGHTS = [TITLED, " ", "/help ", "\n", "**Bold**", "data: [DONE]\n\n", '{"a":1}']


@ensureDeferred
async def test_thoughts_stream_before_the_content_as_they_were_thought(product: Product) -> None:
    for ask in product.both_ports:
        product.api.play(scenarios.thinking(THOUGHTS, "So: ", "yes."))
        reply = await ask(chat("Hi", stream=True))
        assert [chunk["choices"][0]["delta"] for chunk in reply.data[:-1]] == [
            {"role": "assistant", "content": ""},
            *({"reasoning_content": text} for text in THOUGHTS),
            {"content": "So: "},
            {"content": "yes."},
            {},
        ]


@ensureDeferred
async def test_thoughts_are_a_field_of_a_message_and_not_of_its_content(product: Product) -> None:
    for ask in product.both_ports:
        product.api.play(scenarios.thinking(THOUGHTS, "So: ", "yes."))
        message = (await ask(chat("Hi"))).json["choices"][0]["message"]
        assert message == {
            "role": "assistant",
            "content": "So: yes.",
            "reasoning_content": "".join(THOUGHTS),
        }


@ensureDeferred
async def test_a_thought_reaches_the_client_before_the_next_one_exists(product: Product) -> None:
    thought = {"text": "Hm.", "thought": True}
    product.api.play(
        scenarios.Scenario(((thought,), (thought,)), fault=scenarios.hang("x", after=1).fault)
    )
    client = await product.begin(chat("Hi", stream=True))
    await client.until_received(b'"reasoning_content":"Hm."')
    assert client.received.count(b"Hm.") == 1


@ensureDeferred
async def test_a_thought_and_a_word_in_one_piece_are_separated(product: Product) -> None:
    both = [scenarios.thought("Hm."), scenarios.text("Yes."), scenarios.thought("Or?")]
    for stream in (False, True):
        product.api.play(scenarios.answer(both))
        reply = await product.ask(chat("Hi", stream=stream))
        assert reply.content == "Yes."
        assert reply.body.count(b'"reasoning_content":"Hm.') == 1


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_reasoning_tokens_are_counted(product: Product, stream: bool) -> None:
    counted = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 60,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 300,
    }
    product.api.play(scenarios.thinking("Hm.", "Yes.", usage=counted))
    reply = await product.ask(chat("Hi", stream=stream, stream_options={"include_usage": True}))
    assert (reply.data[-2] if stream else reply.json)["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 320,
        "total_tokens": 420,
        "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 300},
    }


@ensureDeferred
async def test_reasoning_of_the_history_is_not_sent_back(product: Product) -> None:
    product.api.play(scenarios.answer("ok"))
    past: list[dict[str, Any]] = [
        {"role": "assistant", "content": "Yes.", "reasoning_content": "zebra"},
        {"role": "user", "content": "Sure?", "reasoning_content": "zebra"},
        {"role": "assistant", "content": "", "reasoning": "zebra", "reasoning_content": "zebra"},
    ]
    assert (await product.ask(chat("Hi", *past, "Really?"))).content == "ok"
    (asked,) = product.asked
    assert b"zebra" not in asked.raw
    assert asked.texts == [("user", "Hi"), ("model", "Yes."), ("user", "Sure?Really?")]


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_client_may_do_without_thoughts(product: Product, stream: bool) -> None:
    hidden = {"thinking_config": {"include_thoughts": False, "thinking_budget": 512}}
    product.api.play(scenarios.thinking(THOUGHTS, "So: ", "yes."))
    reply = await product.ask(chat("Hi", stream=stream, extra_body={"google": hidden}))
    assert reply.content == "So: yes."
    assert b"reasoning_content" not in reply.body
    assert product.asked[0].body["generationConfig"] == {"thinkingConfig": {"thinkingBudget": 512}}


NEWEST = "gemini-3.8-flash"


def signed(part: dict[str, Any], signature: str) -> dict[str, Any]:
    return part | {"thoughtSignature": signature}


def extra(signature: str) -> dict[str, Any]:
    return {"google": {"thought_signature": signature}}


@ensureDeferred
async def test_signatures_stream_with_the_thought_and_after_the_text(product: Product) -> None:
    for ask in product.both_ports:
        product.api.play(
            scenarios.answer(
                signed(scenarios.thought("Hm."), "dGhvdWdodA=="),
                "Yes",
                [scenarios.text("."), signed(scenarios.text(""), "dGV4dA==")],
                signed(scenarios.call("f"), "Y2FsbA=="),
            )
        )
        reply = await ask(chat("Hi", model=NEWEST, stream=True))
        deltas = [chunk["choices"][0]["delta"] for chunk in reply.data[:-1]]
        assert deltas[1] == {"reasoning_content": "Hm.", "extra_content": extra("dGhvdWdodA==")}
        assert "".join(delta.get("content") or "" for delta in deltas) == "Yes."
        after = [delta for delta in deltas if "extra_content" in delta][1:]
        assert after == [{"extra_content": extra("dGV4dA==")}]
        [opening, _] = deltas[deltas.index(after[0]) + 1 : -1]
        assert opening["tool_calls"][0]["extra_content"] == extra("Y2FsbA==")


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_signed_text_comes_back_to_the_model(product: Product, stream: bool) -> None:
    answer = scenarios.thinking("Hm.", "Yes", signed(scenarios.text("."), "c2lnbmVk"))
    product.api.play(answer, scenarios.answer("ok"))
    reply = await product.ask(chat("Hi", model=NEWEST, stream=stream))
    kept = next(
        holder["extra_content"]
        for choice in (chunk["choices"][0] for chunk in (reply.data if stream else [reply.json]))
        if "extra_content" in (holder := choice["delta" if stream else "message"])
    )
    past = {"role": "assistant", "content": reply.content, "extra_content": kept}
    again = await product.ask(chat("Hi", past, "Sure?", model=NEWEST))
    assert again.content == "ok"
    # The stand-in refuses signatures that it did not make.
    assert product.asked[1].contents[1]["parts"] == [signed({"text": "Yes."}, "c2lnbmVk")]
    assert len(product.asked) == 2


@ensureDeferred
async def test_a_signed_thought_comes_back_as_a_thought(product: Product) -> None:
    thought = signed(scenarios.thought("Hm."), "dGhpbmtpbmc=")
    product.api.play(scenarios.answer(thought, "Yes."), scenarios.answer("ok"))
    message = (await product.ask(chat("Hi", model=NEWEST))).json["choices"][0]["message"]
    past = {
        "role": "assistant",
        "content": [
            {
                "type": "thinking",
                "thinking": message["reasoning_content"],
                "extra_content": message["extra_content"],
            },
            {"type": "text", "text": message["content"]},
        ],
    }
    assert (await product.ask(chat("Hi", past, "Sure?", model=NEWEST))).content == "ok"
    assert product.asked[1].contents[1]["parts"] == [thought, {"text": "Yes."}]
