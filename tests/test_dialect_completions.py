"""OpenAI's completions for models that only chat."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from gemproxy.chat.chunks import Usage
from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps
from gemproxy.dialects.completions import COMPLETIONS, MOST_PROMPTS
from gemproxy.dialects.dialect import DialectRequest, Translation
from gemproxy.dialects.seal import Seal
from testing.fake_newapi import DONE, answer, events, stream, usage_chunk
from testing.google import scenarios
from tests.support import Product, Relay

GEMINI = "gemini-2.5-flash"


def translated(**body: Any) -> Translation:
    raw = dumps({"model": "m"} | body)
    return COMPLETIONS.translate(DialectRequest(b"/v1/completions", raw, "1", 0, Seal(b"")))


def sdk(port: int) -> OpenAI:
    return OpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)


def test_a_prompt_becomes_a_message_and_all_else_stays():
    (chat,) = translated(prompt="Hi", max_tokens=5, stop=["x"], odd=1, logprobs=2, echo=True).chats
    messages = [{"role": "user", "content": "Hi"}]
    assert chat.body == {
        "model": "m", "messages": messages, "max_tokens": 5, "stop": ["x"], "odd": 1,
    }  # fmt: skip
    assert dumps(chat.body) == chat.raw


def test_what_is_left_out_is_named():
    assert translated(prompt="Hi", logprobs=2, best_of=4).form.ignored == ("best_of", "logprobs")
    assert translated(prompt="Hi", logprobs=None, best_of=1).form.ignored == ()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": ["x"] * (MOST_PROMPTS + 1)}, "prompt"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "stream": "yes"}, "stream"),
    ],
)
def test_a_bad_request_names_its_field(body: dict[str, Any], param: str):
    with pytest.raises(ChatError) as caught:
        translated(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


@ensureDeferred
async def test_an_sdk_gets_a_completion_of_gemini(product: Product):
    for port in (product.port, product.stream_port):
        product.api.play(
            scenarios.answer("Hel", "lo", usage={"promptTokenCount": 3, "candidatesTokenCount": 2})
        )
        got = await deferToThread(
            sdk(port).completions.create, model=GEMINI, prompt="Say", echo=True, max_tokens=9
        )
        (choice,) = got.choices
        assert (choice.text, choice.finish_reason, choice.index) == ("SayHello", "stop", 0)
        assert (got.object, got.model) == ("text_completion", GEMINI)
        assert got.id.startswith("cmpl-")
        assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (3, 2)
        request = product.asked[-1].body
        assert request["contents"] == [{"role": "user", "parts": [{"text": "Say"}]}]
        assert request["generationConfig"]["maxOutputTokens"] == 9


@ensureDeferred
async def test_the_error_of_a_bad_parameter_reaches_the_sdk(product: Product):
    create = sdk(product.port).completions.create
    with pytest.raises(openai.BadRequestError) as caught:
        await deferToThread(create, model=GEMINI, prompt="Say", temperature="warm")
    assert caught.value.param == "temperature"


def streamed(relay: Relay, **body: Any) -> Any:
    return deferToThread(
        lambda: list(sdk(relay.port).completions.create(model=GEMINI, stream=True, **body))
    )


@ensureDeferred
async def test_a_stream_has_the_texts_alone(relay: Relay):
    relay.upstream.play(stream("Hel", "lo", usage=True))
    chunks = await streamed(relay, prompt="Say", stream_options={"include_usage": True})
    *texts, usage = chunks
    assert "".join(chunk.choices[0].text for chunk in texts) == "Hello"
    assert [chunk.choices[0].finish_reason for chunk in texts][-1] == "stop"
    assert not usage.choices
    assert usage.usage.total_tokens
    assert relay.upstream.calls[-1].target == "/v1/chat/completions"


@ensureDeferred
async def test_prompts_of_a_list_are_numbered_through(relay: Relay):
    one = Usage(10, 20, reasoning=5, cached=4)
    for word in ("one", "two"):
        relay.upstream.play(events(*answer(word)[:-1], usage_chunk(one.as_json()), DONE))
    reply = await (
        await relay.send("POST", "/v1/completions", {"model": GEMINI, "prompt": ["a", "b"]})
    ).reply()
    assert [(c["index"], c["text"]) for c in reply.json["choices"]] == [(0, "one"), (1, "two")]
    # With the kinds of tokens that have prices of their own.
    assert reply.json["usage"] == (one + one).as_json()
    first, second = (call.json["messages"] for call in relay.upstream.calls)
    assert (first[0]["content"], second[0]["content"]) == ("a", "b")
