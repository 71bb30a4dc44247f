"""What a client that does not stream gets: one completion, made of the stream."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from testing.fake_newapi import (
    DONE,
    USAGE,
    answer,
    chunk,
    document,
    event,
    events,
    stream,
    usage_chunk,
)
from tests.support import Relay, gpt


def completion(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What New-API answers to those that do not stream."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-x",
        "choices": list(choices),
        "usage": USAGE,
        "system_fingerprint": "fp_1",
    } | fields


def choice(
    content: str | None, finish: str = "stop", index: int = 0, logprobs: Any = None, **message: Any
) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": content} | message,
        "logprobs": logprobs,
        "finish_reason": finish,
    }


TOOL_CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "<b>"}'}},
    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]
LOGPROBS = [{"token": t, "logprob": -0.5, "bytes": [65], "top_logprobs": []} for t in "ABC"]


def call_delta(index: int, **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, **fields}]}


STREAMS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "text": (
        [
            chunk(delta={"role": "assistant", "content": ""}),
            "Grüße, ",
            "世界 🎉\n",
            chunk(finish="stop"),
        ],
        completion(choice("Grüße, 世界 🎉\n")),
    ),
    "reasoning": (
        [
            chunk(delta={"role": "assistant", "content": None, "reasoning_content": "Let "}),
            chunk(delta={"reasoning_content": "me think."}),
            "One",
            chunk(" two"),
            chunk(finish="stop"),
        ],
        completion(choice("One two", reasoning_content="Let me think.")),
    ),
    "tool calls": (
        [
            chunk(delta={"role": "assistant", "content": None}),
            chunk(
                delta=call_delta(
                    0, id="c1", type="function", function={"name": "f", "arguments": ""}
                )
            ),
            chunk(delta=call_delta(0, function={"arguments": '{"a": '})),
            chunk(
                delta=call_delta(
                    1, id="c2", type="function", function={"name": "g", "arguments": "{}"}
                )
            ),
            chunk(delta=call_delta(0, function={"arguments": '"<b>"}'})),
            chunk(finish="tool_calls"),
        ],
        completion(choice(None, "tool_calls", tool_calls=TOOL_CALLS)),
    ),
    "choices in any order": (
        [
            chunk("C", index=2),
            chunk("A"),
            chunk("B", index=1),
            chunk("c", index=2),
            chunk(finish="length", index=1),
            chunk(finish="stop"),
            chunk(finish="content_filter", index=2),
        ],
        completion(
            choice("A"), choice("B", "length", index=1), choice("Cc", "content_filter", index=2)
        ),
    ),
    "logprobs": (
        [
            {"choices": [{"index": 0, "delta": {"content": t}, "logprobs": {"content": [p]}}]}
            for t, p in zip("ABC", LOGPROBS, strict=True)
        ]
        + [chunk(finish="stop")],
        completion(choice("ABC", logprobs={"content": LOGPROBS})),
    ),
    "what nobody knows": (
        [
            chunk(delta={"role": "assistant", "content": "A", "refusal": None}, service_tier="x"),
            chunk(delta={"annotations": [{"type": "url"}], "audio": {"id": "a"}}, citations=["u"]),
            chunk(finish="stop"),
        ],
        completion(
            choice("A", refusal=None, annotations=[{"type": "url"}], audio={"id": "a"}),
            service_tier="x",
            citations=["u"],
        ),
    ),
}


@pytest.mark.parametrize("name", STREAMS)
@ensureDeferred
async def test_the_completion_is_what_the_upstream_would_have_answered(
    relay: Relay, name: str
) -> None:
    given, expected = STREAMS[name]
    whole = [*map(event, given), event(usage_chunk()), DONE]
    relay.upstream.play(events(*whole), events(*whole, cuts=range(10_000)))
    for _ in range(2):
        reply = await relay.ask(gpt())
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert reply.json == expected


@ensureDeferred
async def test_the_request_to_the_upstream_is_for_a_stream_with_usage(relay: Relay) -> None:
    body = gpt(
        seed=2**70, x_unknown=[1], tools=[], stream_options={"x": 1}, temperature=0.1, stream=False
    )
    await relay.ask(body)
    call = relay.upstream.calls[0]
    assert call.json == body | {
        "stream": True,
        "stream_options": {"x": 1, "include_usage": True},
    }
    assert call.header("content-type") == "application/json"
    assert call.header("accept").split(", ")[0] == "text/event-stream"


@ensureDeferred
async def test_an_upstream_without_usage_is_no_failure(relay: Relay) -> None:
    relay.upstream.play(stream("One"))
    assert "usage" not in (await relay.ask(gpt())).json


@ensureDeferred
async def test_usage_in_every_chunk_is_not_added_up(relay: Relay) -> None:
    counted = [USAGE | {"completion_tokens": n, "total_tokens": 9 + n} for n in (1, 2)]
    relay.upstream.play(
        events(
            event(chunk("One", usage=counted[0])),
            event(chunk(finish="stop", usage=counted[1])),
            DONE,
        )
    )
    assert (await relay.ask(gpt())).json["usage"] == counted[1]


WHOLE = completion(
    choice("One", reasoning_content="Hm.", logprobs={"content": LOGPROBS[:1]}),
    choice(None, "tool_calls", index=1, tool_calls=TOOL_CALLS),
    x_unknown={"a": [1]},
)


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "text/plain"]
)
@ensureDeferred
async def test_an_upstream_that_answers_json_is_accepted(relay: Relay, kind: str) -> None:
    relay.upstream.play(document(WHOLE, headers=[("Content-Type", kind)]))
    reply = await relay.ask(gpt())
    assert reply.status == 200
    assert reply.json == WHOLE


@ensureDeferred
async def test_json_without_a_content_type_or_as_an_event_stream_is_accepted(relay: Relay) -> None:
    stream_type = [("Content-Type", "text/event-stream")]
    relay.upstream.play(document(WHOLE, headers=()), document(WHOLE, headers=stream_type))
    for _ in range(2):
        assert (await relay.ask(gpt())).json == WHOLE


@ensureDeferred
async def test_an_upstream_that_answers_compressed_json_is_accepted(relay: Relay) -> None:
    relay.upstream.play(document(WHOLE, zipped=True))
    assert (await relay.ask(gpt())).json == WHOLE


@pytest.mark.parametrize("usage", [False, True])
@ensureDeferred
async def test_json_becomes_events_for_a_client_that_streams(relay: Relay, usage: bool) -> None:
    relay.upstream.play(document(WHOLE))
    options = {"stream_options": {"include_usage": True}} if usage else {}
    reply = await relay.ask(gpt(stream=True, **options))
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, done = reply.data
    assert done == "[DONE]"
    assert {item["object"] for item in chunks} == {"chat.completion.chunk"}
    assert {item["id"] for item in chunks} == {"chatcmpl-1"}
    assert [item.get("usage") for item in chunks if item.get("usage")] == [USAGE] * usage
    choices = [each for item in chunks for each in item["choices"]]
    assert [each["index"] for each in choices] == [0, 1]
    assert choices[0]["delta"]["content"] == "One"
    assert choices[0]["delta"]["reasoning_content"] == "Hm."
    assert choices[0]["logprobs"] == {"content": LOGPROBS[:1]}
    assert choices[0]["finish_reason"] == "stop"
    numbered = [{"index": number} | call for number, call in enumerate(TOOL_CALLS)]
    assert choices[1]["delta"]["tool_calls"] == numbered
    assert choices[1]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'"text"', b"{broken", b"", b'{"choices": 3}', b"<html></html>"]
)
@ensureDeferred
async def test_json_that_is_no_completion_is_a_failure(
    relay: Relay, body: bytes, wanted: bool
) -> None:
    relay.upstream.play(document(body))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == 502
    assert reply.error["type"] == "server_error"


@pytest.mark.parametrize("wanted", [True, False])
@ensureDeferred
async def test_json_that_is_an_error_is_one(relay: Relay, wanted: bool) -> None:
    error = {"error": {"message": "No quota.", "type": "insufficient_quota", "code": 429}}
    relay.upstream.play(document(error))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.status == 429
    assert reply.json == error
    assert reply.reason == "No quota."


@ensureDeferred
async def test_null_for_stream_and_for_its_options_is_as_good_as_nothing(relay: Relay) -> None:
    reply = await relay.ask(gpt(stream=None, stream_options=None))
    assert reply.json["choices"][0]["message"]["content"] == "Hello"


@ensureDeferred
async def test_an_azure_answer_begins_with_a_chunk_of_its_own(relay: Relay) -> None:
    first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "x": [1]}
    relay.upstream.play(events(event(first), *answer("One", usage=True)))
    assert (await relay.ask(gpt())).json == completion(choice("One"), x=[1])
