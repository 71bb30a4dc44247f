"""OpenAI's Python SDK with the Responses API against both ports, through the real CLI."""

from __future__ import annotations

import json
import time
from typing import Any, TypeVar

import openai
import pydantic
import pytest
from openai import OpenAI
from pytest_twisted import ensureDeferred

from testing.fake_newapi import document, stream
from testing.google import scenarios
from tests.sdk import with_openai
from tests.support import Product, Relay

MODEL = "gemini-3.8-flash"
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
INCLUDE: Any = ["reasoning.encrypted_content"]

_T = TypeVar("_T")


class Answer(pydantic.BaseModel):
    """What the model is to fill in."""

    result: int


@ensureDeferred
async def test_a_response_and_its_request(product: Product, port: int):
    product.api.play(scenarios.thinking("Hm.", "Hi ", "there."))
    got = await with_openai(
        port,
        lambda client: client.responses.create(
            model=MODEL,
            instructions="Be brief.",
            input="Hello",
            max_output_tokens=99,
            reasoning={"effort": "low", "summary": "auto"},
        ),
    )
    assert (got.status, got.output_text) == ("completed", "Hi there.")
    assert abs(got.created_at - time.time()) < 60
    assert got.output[0].type == "reasoning"
    assert got.output[0].summary[0].text == "Hm."
    request = product.asked[-1].body
    assert request["contents"] == [{"role": "user", "parts": [{"text": "Hello"}]}]
    assert request["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert request["generationConfig"]["maxOutputTokens"] == 99
    assert request["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "LOW"


@ensureDeferred
async def test_the_streaming_helper_collects_what_was_said(product: Product, port: int):
    product.api.play(scenarios.thinking(["H", "m."], "Hi ", "there."))

    def work(client: OpenAI) -> tuple[list[str], Any]:
        with client.responses.stream(model=MODEL, input="Hello") as events:
            return [event.type for event in events], events.get_final_response()

    kinds, final = await with_openai(port, work)
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") == 2
    assert final.output_text == "Hi there."


@ensureDeferred
async def test_structured_output(product: Product, port: int):
    product.api.play(scenarios.answer('{"resu', 'lt": 4}'))
    got = await with_openai(
        port, lambda client: client.responses.parse(model=MODEL, input="2+2", text_format=Answer)
    )
    assert got.output_parsed == Answer(result=4)
    config = product.asked[-1].body["generationConfig"]
    assert config["responseMimeType"] == "application/json"
    assert config["responseJsonSchema"]["properties"]["result"]["type"] == "integer"


@pytest.mark.parametrize("include", [INCLUDE, []])
@ensureDeferred
async def test_a_loop_of_tools_brings_the_signature_back(product: Product, port: int, include: Any):
    def ask(client: OpenAI, input: Any) -> Any:
        return client.responses.create(
            model=MODEL, input=input, tools=[TOOL], include=include, store=False
        )

    input: list[Any] = [{"role": "user", "content": "Weather in Rome?"}]
    product.api.play(scenarios.calls(("weather", {"city": "Rome"})))
    got = await with_openai(port, lambda client: ask(client, input))
    (call,) = [item for item in got.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Rome"}
    input += [item.to_dict() for item in got.output]
    input.append({"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."})
    product.api.play(scenarios.answer("It is sunny."))
    got = await with_openai(port, lambda client: ask(client, input))
    assert got.output_text == "It is sunny."
    _, model, result = product.asked[-1].body["contents"]
    (part,) = [part for part in model["parts"] if "functionCall" in part]
    assert part["functionCall"]["args"] == {"city": "Rome"}
    (answered,) = result["parts"]
    assert answered["functionResponse"]["response"] == {"output": "Sunny."}


@ensureDeferred
async def test_errors_are_the_sdks_own(product: Product, port: int):
    def create(**fields: Any) -> Any:
        return with_openai(port, lambda client: client.responses.create(**fields))

    with pytest.raises(openai.BadRequestError) as caught:
        await create(model=MODEL, input="Hello", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"
    with pytest.raises(openai.BadRequestError) as caught:
        await create(model=MODEL, input="Hello", temperature="warm")
    assert caught.value.param == "temperature"
    product.api.play(scenarios.blocked())
    got = await create(model=MODEL, input="Hello")
    assert got.status == "incomplete"
    assert got.incomplete_details.reason == "content_filter"


@ensureDeferred
async def test_tokens_are_counted_by_google(product: Product, port: int):
    got = await with_openai(
        port, lambda client: client.responses.input_tokens.count(model=MODEL, input="Hello")
    )
    assert got.object == "response.input_tokens"
    assert got.input_tokens > 0


# Models of an upstream that has no such path.


@ensureDeferred
async def test_an_upstream_without_responses_is_asked_to_chat(relay: Relay):
    relay.upstream.play(document({"error": {"message": "no"}}, 404), stream("Hi", usage=True))

    def work(client: OpenAI) -> Any:
        tools: Any = [{"type": "web_search"}, TOOL]
        return client.responses.create(model="gpt-x", input="Hello", tools=tools)

    got = await with_openai(relay.port, work)
    assert got.output_text == "Hi"
    assert got.usage.total_tokens == 11
    asked = relay.upstream.calls[-1]
    assert asked.target == "/v1/chat/completions"
    assert [tool["type"] for tool in asked.json["tools"]] == ["function"]
