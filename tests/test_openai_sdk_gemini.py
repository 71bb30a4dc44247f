"""OpenAI's own Python SDK against both ports, through the real CLI."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import openai
import pydantic
import pytest
from openai import OpenAI
from pytest_twisted import ensureDeferred

from testing.google import scenarios
from tests.sdk import with_openai
from tests.support import Product, fresh_model, running

MODEL = "gemini-2.5-flash"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]

_T = TypeVar("_T")


class Step(pydantic.BaseModel):
    explanation: str
    kind: Literal["add", "take"]


class Answer(pydantic.BaseModel):
    """What the model is to fill in."""

    steps: list[Step]
    result: int | None


ANSWER = {"steps": [{"explanation": "\u00e9\n", "kind": "add"}], "result": 4}


class GetWeather(pydantic.BaseModel):
    """Tells the weather."""

    city: str
    days: int = 1


@ensureDeferred
async def test_a_completion_and_its_parts(product: Product, port: int) -> None:
    product.api.play(scenarios.thinking("Hm.", "Hi ", "there."))
    got = await with_openai(
        port,
        lambda client: client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            temperature=0.5,
            max_completion_tokens=9,
            stop=["x"],
            seed=3,
            reasoning_effort="low",
        ),
    )
    message = got.choices[0].message
    assert (message.content, message.reasoning_content) == ("Hi there.", "Hm.")  # type: ignore[attr-defined]
    assert got.choices[0].finish_reason == "stop"
    assert got.usage is not None
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    assert product.asked[0].generation_config == {
        "temperature": 0.5,
        "maxOutputTokens": 9,
        "stopSequences": ["x"],
        "seed": 3,
        "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 1024},
    }


@ensureDeferred
async def test_a_stream_and_its_parts(product: Product, port: int) -> None:
    product.api.play(scenarios.thinking(["H", "m."], "Hi ", "there."))

    def work(client: OpenAI) -> Any:
        with client.chat.completions.stream(
            model=MODEL, messages=HELLO, stream_options={"include_usage": True}
        ) as stream:
            texts = [event.delta for event in stream if event.type == "content.delta"]
            return texts, stream.get_final_completion()

    texts, final = await with_openai(port, work)
    assert list(filter(None, texts)) == ["Hi ", "there."]
    message = final.choices[0].message
    assert (message.content, message.reasoning_content) == ("Hi there.", "Hm.")
    assert final.choices[0].finish_reason == "stop"
    assert final.usage.completion_tokens_details.reasoning_tokens > 0


@pytest.mark.parametrize("api", ["chat", "beta"])
@ensureDeferred
async def test_an_answer_is_parsed_into_a_model(product: Product, port: int, api: str) -> None:
    product.api.play(scenarios.answer(*json.dumps(ANSWER, ensure_ascii=False)))

    def work(client: OpenAI) -> Any:
        completions = client.chat.completions if api == "chat" else client.beta.chat.completions
        return completions.parse(model=MODEL, messages=HELLO, response_format=Answer)

    got = await with_openai(port, work)
    assert got.choices[0].message.parsed == Answer(**ANSWER)
    config = product.asked[0].generation_config
    assert config["responseMimeType"] == "application/json"
    schema = config["responseJsonSchema"]
    assert schema["required"] == ["steps", "result"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Step"]["properties"]["kind"]["enum"] == ["add", "take"]


@ensureDeferred
async def test_a_stream_is_parsed_into_a_model(product: Product, port: int) -> None:
    product.api.play(scenarios.answer(*json.dumps(ANSWER)))

    def work(client: OpenAI) -> Any:
        with client.chat.completions.stream(
            model=MODEL, messages=HELLO, response_format=Answer
        ) as stream:
            return stream.get_final_completion()

    assert (await with_openai(port, work)).choices[0].message.parsed == Answer(**ANSWER)


@ensureDeferred
async def test_what_is_cut_or_blocked_is_not_parsed(product: Product, port: int) -> None:
    def work(client: OpenAI) -> Any:
        return client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Answer)

    product.api.play(scenarios.answer('{"steps": [', finish_reason="MAX_TOKENS"))
    with pytest.raises(openai.LengthFinishReasonError):
        await with_openai(port, work)
    product.api.play(scenarios.blocked())
    with pytest.raises(openai.ContentFilterFinishReasonError):
        await with_openai(port, work)


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_model_is_parsed_beside_tools(product: Product, port: int, stream: bool) -> None:
    product.api.play(
        scenarios.calls(("GetWeather", {"city": "A", "days": 2})),
        scenarios.calls(("final_answer", ANSWER)),
    )
    tools = [openai.pydantic_function_tool(GetWeather)]
    settings: dict[str, Any] = {"model": MODEL, "tools": tools, "response_format": Answer}

    def ask(client: OpenAI, messages: list[Any]) -> Any:
        if stream:
            with client.chat.completions.stream(messages=messages, **settings) as events:
                return events.get_final_completion().choices[0]
        return client.chat.completions.parse(messages=messages, **settings).choices[0]

    def work(client: OpenAI) -> Any:
        messages: list[Any] = [{"role": "user", "content": "The weather?"}]
        choice = ask(client, messages)
        [call] = choice.message.tool_calls
        assert isinstance(call.function.parsed_arguments, GetWeather)
        messages.append(choice.message.model_dump(exclude_none=True, exclude={"parsed"}))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "Rain"})
        return ask(client, messages)

    choice = await with_openai(port, work)
    assert choice.message.parsed == Answer(**ANSWER)
    assert choice.finish_reason == "stop"
    assert not choice.message.tool_calls


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_loop_of_three_turns_with_tools(product: Product, port: int, stream: bool) -> None:
    signed = scenarios.call("GetWeather", {"city": "A", "days": 2}) | {"thoughtSignature": "c2ln"}
    product.api.play(
        scenarios.answer(
            "I look.", [signed, scenarios.call("GetWeather", {"city": "B", "days": 1})]
        ),
        scenarios.calls(("GetWeather", {"city": "\u00e9", "days": 3})),
        scenarios.answer("Rain ", "everywhere."),
    )
    tools = [openai.pydantic_function_tool(GetWeather)]

    def ask(client: OpenAI, messages: list[Any]) -> Any:
        if stream:
            with client.chat.completions.stream(
                model="gemini-3-pro-preview", messages=messages, tools=tools
            ) as events:
                return events.get_final_completion().choices[0]
        return client.chat.completions.parse(
            model="gemini-3-pro-preview", messages=messages, tools=tools
        ).choices[0]

    def work(client: OpenAI) -> Any:
        messages: list[Any] = [{"role": "user", "content": "The weather?"}]
        reasons, asked = [], []
        for _ in range(3):
            choice = ask(client, messages)
            reasons.append(choice.finish_reason)
            messages.append(choice.message)
            for call in choice.message.tool_calls or ():
                wanted = call.function.parsed_arguments
                asked.append(wanted)
                messages.append(
                    {"role": "tool", "tool_call_id": call.id, "content": f"rain in {wanted.city}"}
                )
        return reasons, asked, choice.message.content

    reasons, asked, text = await with_openai(port, work)
    assert reasons == ["tool_calls", "tool_calls", "stop"]
    assert asked == [
        GetWeather(city="A", days=2),
        GetWeather(city="B", days=1),
        GetWeather(city="\u00e9", days=3),
    ]
    assert text == "Rain everywhere."
    assert len(product.asked) == 3
    first, *history = product.asked[-1].contents
    assert first == {"role": "user", "parts": [{"text": "The weather?"}]}
    told = [
        part.get("text")
        or part.get("functionCall", {}).get("args")
        or part["functionResponse"]["response"]
        for turn in history
        for part in turn["parts"]
    ]
    assert told == [
        "I look.",
        {"city": "A", "days": 2},
        {"city": "B", "days": 1},
        {"output": "rain in A"},
        {"output": "rain in B"},
        {"city": "\u00e9", "days": 3},
        {"output": "rain in \u00e9"},
    ]
    signatures = [part.get("thoughtSignature") for part in history[0]["parts"]]
    assert signatures == [None, "c2ln", None]


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_picture_is_seen(product: Product, port: int, stream: bool) -> None:
    data = base64.b64encode(bytes(range(256))).decode()
    product.api.play(scenarios.answer("A cat."))
    content: list[Any] = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
    ]

    def work(client: OpenAI) -> Any:
        messages: list[Any] = [{"role": "user", "content": content}]
        if stream:
            chunks = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        got = client.chat.completions.create(model=MODEL, messages=messages)
        return got.choices[0].message.content

    assert await with_openai(port, work) == "A cat."
    assert product.asked[0].parts == [
        {"text": "What is it?"},
        {"inlineData": {"mimeType": "image/png", "data": data}},
    ]


@ensureDeferred
async def test_several_answers_stream_side_by_side(product: Product, port: int) -> None:
    def work(client: OpenAI) -> Any:
        with client.chat.completions.stream(model=MODEL, messages=HELLO, n=3) as stream:
            return stream.get_final_completion().choices

    # The last one to be asked for answers first.
    product.api.play(*(scenarios.answer(f"answer {n}", delay=0.1 * (2 - n)) for n in range(3)))
    choices = await with_openai(port, work)
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert {choice.message.content for choice in choices} == {f"answer {n}" for n in range(3)}


@ensureDeferred
async def test_errors_are_the_sdk_s_own(product: Product, port: int) -> None:
    def work(client: OpenAI, **more: Any) -> Any:
        body: dict[str, Any] = {"model": fresh_model(), "messages": HELLO} | more
        return client.chat.completions.create(**body)

    with pytest.raises(openai.BadRequestError) as refused:
        await with_openai(port, lambda client: work(client, n=9))
    assert refused.value.param == "n"
    product.api.play(scenarios.error(404, "No such model."))
    with pytest.raises(openai.NotFoundError, match="No such model") as unknown:
        await with_openai(port, work)
    assert unknown.value.code == "model_not_found"
    product.api.play(scenarios.cut("Half", " of it", after=1))
    with pytest.raises(openai.APIError, match="ended before it was complete"):
        await with_openai(port, lambda client: list(work(client, stream=True)))


@pytest.mark.cli
@ensureDeferred
async def test_a_lasting_rate_limit_is_the_sdk_s_own_error(tmp_path: Path) -> None:
    settings = {"MAX_RETRIES": 5, "RETRY_DELAY": 0.3, "HEARTBEAT_INTERVAL": 0.05}
    async with running(tmp_path, JSON_HEARTBEAT_DELAY=3, **settings) as product:
        for port in (product.port, product.stream_port):
            product.begin_test()
            product.api.play(*[scenarios.bare_rate_limited()] * 100)
            with pytest.raises(openai.RateLimitError) as limited:
                await with_openai(
                    port,
                    lambda client: client.chat.completions.create(model=MODEL, messages=HELLO),
                )
            assert limited.value.code == "rate_limit_exceeded"
            assert limited.value.response.headers["retry-after"] == "10"
            assert len(product.asked) >= 2
