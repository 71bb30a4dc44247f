"""What a client sets reaches the API, through the real CLI: that, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from testing.google import scenarios
from testing.google.recorded_request import Closed
from tests.support import Product, chat, fresh_model, running, until

pytestmark = pytest.mark.both_engines

SCHEMA = {
    "$defs": {"x": {"type": "string", "enum": ["a", "\u00e9"]}},
    "type": "object",
    "properties": {"x": {"$ref": "#/$defs/x"}, "y": {"anyOf": [{"type": "null"}]}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
SHOWN = {"thinkingConfig": {"includeThoughts": True}}


def json_schema(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA} | more}


async def settings_sent(product: Product, **body: Any) -> dict[str, Any]:
    """The generation settings that the API gets: the same in both modes and on both ports."""
    for stream in (False, True):
        for ask in product.both_ports:
            product.api.play(scenarios.answer("ok"))
            reply = await ask(chat("Hi", stream=stream, **body))
            assert reply.status == 200, reply
            assert reply.content == "ok"
            assert "x-gemproxy-ignored" not in reply.headers
    first, *others = product.asked
    assert len(others) == 3
    assert all(other.body == first.body for other in others)
    return dict(first.body).pop("generationConfig", {})


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({}, {}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 1.25}, {"temperature": 1.25}),
        ({"top_p": 0.1}, {"topP": 0.1}),
        ({"top_k": 3}, {"topK": 3}),
        ({"max_tokens": 77}, {"maxOutputTokens": 77}),
        ({"max_completion_tokens": 78}, {"maxOutputTokens": 78}),
        ({"stop": "\n\nUser:"}, {"stopSequences": ["\n\nUser:"]}),
        ({"stop": ["a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"seed": 42}, {"seed": 42}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_object"}},
            {"responseMimeType": "application/json"},
        ),
        *(
            (
                {"response_format": json_schema(**strict)},
                {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
            )
            for strict in ({}, {"strict": True}, {"strict": False})
        ),
        (
            {
                "temperature": 0.2,
                "top_p": 0.9,
                "top_k": 10,
                "max_tokens": 5,
                "stop": ["x"],
                "seed": 1,
            },
            {
                "temperature": 0.2,
                "topP": 0.9,
                "topK": 10,
                "maxOutputTokens": 5,
                "stopSequences": ["x"],
                "seed": 1,
            },
        ),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
@ensureDeferred
async def test_a_setting_arrives_and_nothing_else(
    product: Product, body: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert await settings_sent(product, **body) == sent | SHOWN
    assert set(product.asked[0].body) == {"contents", "generationConfig"}


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "low", {"includeThoughts": True, "thinkingBudget": 1024}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-pro", "high", {"includeThoughts": True, "thinkingBudget": 24576}),
        ("gemini-3-flash-preview", "none", {"includeThoughts": True, "thinkingLevel": "MINIMAL"}),
        ("gemini-3-flash-preview", "medium", {"includeThoughts": True, "thinkingLevel": "MEDIUM"}),
        ("gemini-3-pro-preview", "minimal", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        ("gemini-3-pro-preview", "high", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-3-pro-preview", None, {"includeThoughts": True}),
        ("gemini-2.0-flash", "none", None),
        ("gemini-2.0-flash", None, None),
    ],
)
@ensureDeferred
async def test_an_effort_arrives_as_the_family_takes_it(
    product: Product, model: str, effort: str | None, sent: Any
) -> None:
    got = await settings_sent(product, model=model, reasoning_effort=effort)
    assert got == ({} if sent is None else {"thinkingConfig": sent})


# What cannot be honoured


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_header_lists_what_is_ignored(product: Product, stream: bool) -> None:
    more = {"logprobs": True, "logit_bias": {"1": 5}, "bad\r\nname: x": 1, "min_p": 0.1}
    for ask in product.both_ports:
        product.api.play(scenarios.answer("ok"))
        reply = await ask(chat("Hi", stream=stream, temperature=1, **more))
        assert reply.status == 200
        assert reply.headers["x-gemproxy-ignored"] == "logprobs, logit_bias, min_p"
        assert "name" not in reply.headers
    assert product.asked[0].generation_config == {"temperature": 1} | SHOWN


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [1]}, "stop"),
        ({"n": 5}, "n"),
        ({"n": 0}, "n"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": json_schema(schema=1)}, "response_format.json_schema.schema"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
@ensureDeferred
async def test_a_wrong_value_is_a_bad_request_that_names_it(
    product: Product, body: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        for ask in product.both_ports:
            reply = await ask(chat("Hi", stream=stream, **body))
            assert reply.status == 400
            assert (reply.error["type"], reply.error["param"]) == ("invalid_request_error", param)
            assert param in reply.error["message"]
    assert not product.asked


@pytest.mark.cli
@ensureDeferred
async def test_a_strict_proxy_refuses_what_it_cannot_honour(tmp_path: Path) -> None:
    async with running(tmp_path, LENIENT="false", GEMINI_WORKERS=1) as product:
        for name, value in (("logprobs", True), ("logit_bias", {"1": 5}), ("min_p", 0.1)):
            for stream in (False, True):
                for ask in product.both_ports:
                    reply = await ask(chat("Hi", stream=stream, **{name: value}))
                    assert reply.status == 400
                    assert reply.error["type"] == "invalid_request_error"
                    assert reply.error["param"] == name
                    assert name in reply.error["message"]
                    assert name in reply.reason
        assert not product.asked
        # What SillyTavern sends with everything asks for nothing.
        product.api.play(scenarios.answer("ok"))
        usual = {"presence_penalty": 0, "logit_bias": {}, "logprobs": False, "user": "me"}
        assert (await product.ask(chat("Hi", **usual))).content == "ok"


# Many at once


@pytest.mark.cli
@ensureDeferred
async def test_forty_different_settings_start_no_process(tmp_path: Path) -> None:
    async with running(tmp_path, GEMINI_WORKERS=4) as product:
        workers = product.worker_pids()
        for number in range(40):
            product.api.play(scenarios.answer("ok"))
            reply = await product.ask(
                chat("Hi", temperature=number / 40, seed=number, max_tokens=number + 1)
            )
            assert reply.status == 200
        assert [asked.generation_config for asked in product.asked] == [
            {"temperature": number / 40, "seed": number, "maxOutputTokens": number + 1} | SHOWN
            for number in range(40)
        ]
        assert product.worker_pids() == workers
        assert len(workers) == 1


def distinct(number: int) -> dict[str, Any]:
    """A request that shares nothing with those of other numbers."""
    tool = {
        "type": "function",
        "function": {"name": f"f{number}", "parameters": {"type": "object", "title": str(number)}},
    }
    return chat(
        {"role": "system", "content": f"rule {number}"},
        {"role": "user", "content": f"ask <{number}>"},
        model="gemini-2.5-flash" if number % 2 else "gemini-2.5-pro",
        temperature=number / 40,
        seed=number,
        stop=[f"end {number}"],
        tools=[tool],
        stream=number % 3 == 0,
    )


@ensureDeferred
async def test_forty_requests_at_once_are_not_mixed_up(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        product.api,
        "chooser",
        lambda asked: scenarios.answer("You ", "said: ", asked.texts[-1][1]),
    )
    replies = await product.ask_all(map(distinct, range(40)))
    for number, reply in enumerate(replies):
        assert reply.status == 200
        assert reply.content == f"You said: ask <{number}>"
    assert len(product.asked) == 40
    seen = {}
    for asked in product.asked:
        number = asked.generation_config["seed"]
        seen[number] = asked
        wanted = distinct(number)
        assert asked.model == wanted["model"]
        assert asked.body == {
            "systemInstruction": {"parts": [{"text": f"rule {number}"}]},
            "contents": [{"role": "user", "parts": [{"text": f"ask <{number}>"}]}],
            "generationConfig": {
                "temperature": number / 40,
                "seed": number,
                "stopSequences": [f"end {number}"],
            }
            | SHOWN,
            "tools": [
                {
                    "functionDeclarations": [
                        {
                            "name": f"f{number}",
                            "parametersJsonSchema": {"type": "object", "title": str(number)},
                        }
                    ]
                }
            ],
        }
    assert sorted(seen) == list(range(40))


# Several answers

COUNTED = {"promptTokenCount": 7, "candidatesTokenCount": 5, "thoughtsTokenCount": 3}


def summed(n: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 7 * n,
        "completion_tokens": 8 * n,
        "total_tokens": 15 * n,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 3 * n},
    }


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@ensureDeferred
async def test_each_answer_is_a_choice_of_its_own(product: Product, n: int) -> None:
    for ask in product.both_ports:
        product.api.play(*(scenarios.answer(f"answer {i}", usage=COUNTED) for i in range(n)))
        reply = await ask(chat("Hi", n=n, temperature=1))
        choices = reply.json["choices"]
        assert [choice["index"] for choice in choices] == list(range(n))
        texts = {choice["message"]["content"] for choice in choices}
        assert texts == {f"answer {i}" for i in range(n)}
        assert {choice["finish_reason"] for choice in choices} == {"stop"}
        assert reply.json["usage"] == summed(n)
    assert len(product.asked) == 2 * n
    assert all(asked.body == product.asked[0].body for asked in product.asked)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@ensureDeferred
async def test_each_streamed_answer_has_its_index(product: Product, n: int) -> None:
    options = {"include_usage": True}
    for ask in product.both_ports:
        product.api.play(
            *(scenarios.answer(f"{i}a", f"{i}b", f"{i}c", usage=COUNTED) for i in range(n))
        )
        reply = await ask(chat("Hi", n=n, stream=True, stream_options=options))
        *chunks, usage, done = reply.data
        assert done == "[DONE]"
        assert (usage["choices"], usage["usage"]) == ([], summed(n))
        assert len({(c["id"], c["created"]) for c in [*chunks, usage]}) == 1
        # openai-python numbers choices by their first appearance.
        assert list(dict.fromkeys(c["choices"][0]["index"] for c in chunks)) == list(range(n))
        texts = set()
        for index in range(n):
            mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
            assert mine[0]["delta"] == {"role": "assistant", "content": ""}
            assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + ["stop"]
            texts.add("".join(c["delta"].get("content", "") for c in mine))
        assert texts == {f"{i}a{i}b{i}c" for i in range(n)}


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_more_stop_sequences_than_google_takes_are_honoured(
    product: Product, stream: bool
) -> None:
    for ask in product.both_ports:
        product.api.play(scenarios.answer("One, two, thr", "ee, four"))
        body = chat("Count", stop=[*"abcde", "three", "fo"], stream=stream)
        reply = await ask(body)
        assert reply.content == "One, two, "
        assert "x-gemproxy-ignored" not in reply.headers
        choice = (reply.data[-2] if stream else reply.json)["choices"][0]
        assert choice["finish_reason"] == "stop"
    assert product.asked[0].body["generationConfig"]["stopSequences"] == [*"abcde"]


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_model_that_takes_no_turn_of_its_own_at_the_end_is_asked_to_go_on(
    product: Product, stream: bool
) -> None:
    for ask in product.both_ports:
        product.api.play(scenarios.answer(" upon a time"))
        reply = await ask(chat("Tell", "Once", model="gemini-3.8-flash", stream=stream))
        assert reply.content == " upon a time"
    for asked in product.asked:
        assert [content["role"] for content in asked.contents] == ["user", "model", "user"]
        assert asked.contents[1]["parts"] == [{"text": "Once"}]


@ensureDeferred
async def test_what_the_newest_models_do_not_take_is_left_out(product: Product) -> None:
    sillytavern = {"temperature": 1, "top_p": 0.9, "top_k": 0, "presence_penalty": 0.5}
    reply = await product.ask(chat("Hi", model="Google/Gemini-3.8-Flash ", **sillytavern))
    assert reply.status == 200
    assert set(reply.headers["x-gemproxy-ignored"].split(", ")) == sillytavern.keys()
    [asked] = product.asked
    assert asked.model == "gemini-3.8-flash"
    assert asked.body.keys() <= {"contents", "generationConfig"}
    assert asked.body["generationConfig"] == SHOWN


REFUSED = scenarios.error(400, "No.")


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_an_answer_that_fails_ends_the_others(product: Product, stream: bool) -> None:
    product.api.play(*[scenarios.hang("One", " two", after=1)] * 3, REFUSED)
    client = await product.begin(chat("Hi", n=3, stream=stream))
    await product.until_asked(3)
    first, *_ = product.asked
    await until(lambda: all(asked.first_chunk_time for asked in product.asked), "all have begun")
    if stream:
        await client.when(lambda: client.received.count(b'"One"') == 3)
    next(p for p in product.api._running if p._received is first).cut(reset=False)
    reply = await client.reply()
    if stream:
        assert reply.status == 200
        assert reply.data[-1]["error"]["code"] == "upstream_error"
        assert "[DONE]" not in reply.data
    else:
        # Nothing of it was seen, so it was tried again.
        assert (reply.status, reply.error["message"]) == (400, "No.")
    ends = await gatherResults([asked.when_closed() for asked in product.asked[:3]])
    assert ends == [Closed.CUT, Closed.GONE, Closed.GONE]
    await product.until_idle()


@ensureDeferred
async def test_a_refused_answer_refuses_them_all(product: Product) -> None:
    hanging = scenarios.hang(after=0)
    product.api.play(hanging, hanging, scenarios.error(400, "No."))
    reply = await product.ask(chat("Hi", n=3, stream=True))
    assert (reply.status, reply.error["message"]) == (400, "No.")
    ends = await gatherResults([asked.when_closed() for asked in product.asked])
    assert sorted(end.value for end in ends) == ["complete", "gone", "gone"]


@ensureDeferred
async def test_answers_stream_side_by_side_and_end_when_the_client_goes(
    product: Product,
) -> None:
    product.api.play(*[scenarios.hang("One", " two", after=1)] * 4)
    client = await product.begin(chat("Hi", n=4, stream=True))
    await product.until_asked(4)
    await client.when(lambda: client.received.count(b'"One"') == 4)
    # All are half out, so none waits for another.
    indexes = re.findall(rb'"index":(\d),"delta":\{"content":"One"\}', client.received)
    assert sorted(indexes) == [b"0", b"1", b"2", b"3"]
    client.drop()
    ends = await gatherResults([asked.when_closed() for asked in product.asked])
    assert ends == [Closed.GONE] * 4


@ensureDeferred
async def test_an_answer_among_several_is_tried_again_by_itself(product: Product) -> None:
    product.api.play(scenarios.answer("a"), scenarios.error(503), scenarios.answer("b"))
    reply = await product.ask(chat("Hi", n=2, model=fresh_model()))
    texts = {choice["message"]["content"] for choice in reply.json["choices"]}
    assert texts == {"a", "b"}
    assert len(product.asked) == 3
