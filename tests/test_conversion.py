"""What is added to a request for an upstream, and taken back where the upstream refuses it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from gemproxy.chat.errors import ChatError
from gemproxy.openai.conversion import (
    MEMORY,
    ConversionMemory,
    Form,
    cannot_stream,
    form_after,
)
from testing.fake_newapi import (
    EVENT_STREAM,
    USAGE,
    Call,
    Script,
    answer,
    document,
    event,
    events,
    head,
    if_streamed,
    stream,
    usage_chunk,
    verbatim,
)
from tests.support import Relay, gpt, running_relay

WHOLE = {
    "id": "chatcmpl-9",
    "object": "not.what.it.should.be",
    "model": None,
    "created": 1,
    "x_top": {"y": [2**70, 1.5, None]},
    "usage": USAGE | {"x": 1},
    "choices": [
        {
            "index": 0,
            "x_choice": [{}],
            "finish_reason": "tool_calls",
            "logprobs": None,
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
                "reasoning_details": [{"type": "x", "text": "a"}],
                "audio": {"data": "AAAA"},
            },
        }
    ],
}

# What upstreams have said: status and body; whether only the options are meant.
REFUSALS: dict[str, tuple[int, Any, bool]] = {
    "OpenAI": (
        400,
        {"error": {"message": "Your organization must be verified.", "param": "stream"}},
        False,
    ),
    "dify": (400, {"error": {"message": "'stream' does not support true"}}, False),
    "llama.cpp": (500, {"error": {"message": "Cannot use tools with stream"}}, False),
    "another status": (403, {"error": {"message": "Verify.", "param": "stream"}}, False),
    "non-streaming": (400, {"error": {"message": "Only non-streaming calls."}}, False),
    "Chinese": (400, {"error": {"message": "该模型不支持流式输出"}}, False),
    "plain text": (400, b"streaming is not supported", False),
    "Azure": (
        400,
        {"error": {"message": "Unrecognized request argument supplied: stream_options"}},
        True,
    ),
    "Mistral": (
        422,
        {
            "detail": [
                {"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"]}
            ]
        },
        True,
    ),
}
OTHERS: dict[str, tuple[int, Any]] = {
    "another parameter": (400, {"error": {"message": "Bad temperature.", "param": "temperature"}}),
    "upstream": (400, {"error": {"message": "The upstream says no to text/event-stream."}}),
    "an echo": (422, {"detail": [{"msg": "Field required", "input": {"stream": True}}]}),
    "a broken stream": (
        500,
        {"error": {"message": "stream error: stream ID 5; INTERNAL_ERROR; received from peer"}},
    ),
    "a rate limit": (429, {"error": {"message": "Too many streams.", "param": "stream"}}),
    "a bad gateway": (502, {"error": {"message": "no stream"}}),
}


def refused(status: int, body: Any) -> Script:
    return document(body, status)


@pytest.mark.parametrize("name", REFUSALS)
@ensureDeferred
async def test_what_was_added_is_taken_back_and_that_is_remembered(relay: Relay, name: str) -> None:
    status, body, only_options = REFUSALS[name]
    sent = json.dumps(gpt(x=1.50, seed=2**70), indent=3).encode()
    good = stream("One") if only_options else document(WHOLE)
    relay.upstream.play(refused(status, body), good, good)
    first = await relay.ask(sent, Accept="a/b")
    second = await relay.ask(sent)
    added, again, remembered = relay.upstream.calls
    assert added.json["stream_options"] == {"include_usage": True}
    for reply, call in ((first, again), (second, remembered)):
        assert reply.status == 200
        if only_options:
            assert call.json == json.loads(sent) | {"stream": True}
            assert reply.content == "One"
        else:
            assert bytes(call.body) == sent
            assert reply.json == WHOLE
    if not only_options:
        assert again.header("accept").split(", ")[0] == "a/b"


@pytest.mark.parametrize("name", OTHERS)
@ensureDeferred
async def test_other_errors_are_no_reason_to_ask_again(relay: Relay, name: str) -> None:
    status, body = OTHERS[name]
    relay.upstream.play(refused(status, body))
    reply = await relay.ask(gpt())
    assert (reply.status, reply.json) == (status, body)
    assert len(relay.upstream.calls) == 1


@ensureDeferred
async def test_the_options_go_first_and_the_stream_after_them(relay: Relay) -> None:
    status, body, _ = REFUSALS["Azure"]
    relay.upstream.play(refused(status, body), refused(*REFUSALS["dify"][:2]), document(WHOLE))
    assert (await relay.ask(gpt(stream_options={"x": 1}))).json == WHOLE
    assert [call.json.get("stream_options") for call in relay.upstream.calls] == [
        {"x": 1, "include_usage": True},
        {"x": 1},
        {"x": 1},
    ]
    assert [call.json.get("stream") for call in relay.upstream.calls] == [True, True, None]


@ensureDeferred
async def test_a_refusal_of_the_request_as_it_was_sent_is_the_clients(relay: Relay) -> None:
    last = {"error": {"message": "Only streams.", "param": "stream"}}
    relay.upstream.always(
        if_streamed(refused(*REFUSALS["dify"][:2]), refused(400, last)),
    )
    for number in (2, 4):
        # Nothing was learnt, since neither way is served.
        assert (await relay.ask(gpt())).json == last
        assert len(relay.upstream.calls) == number


@ensureDeferred
async def test_a_refusal_inside_a_200_is_one(relay: Relay) -> None:
    error = {"error": {"message": "'stream' does not support true", "code": 400}}
    relay.upstream.play(events(event(error)), document(WHOLE))
    assert (await relay.ask(gpt())).json == WHOLE
    # But not once a part of the answer has come.
    relay.upstream.play(events(event("One"), event(error)))
    assert (await relay.ask(gpt(model="gpt-y"))).json == error
    assert len(relay.upstream.calls) == 3


@ensureDeferred
async def test_a_client_that_streams_gets_its_refusal(relay: Relay) -> None:
    status, body, _ = REFUSALS["OpenAI"]
    relay.upstream.play(refused(status, body))
    assert (await relay.ask(gpt(stream=True))).json == body
    assert len(relay.upstream.calls) == 1


@pytest.mark.parametrize(("given", "streamed"), [("wav", None), ("mp3", None), ("pcm16", True)])
@ensureDeferred
async def test_sound_that_cannot_be_streamed_is_not(
    relay: Relay, given: str, streamed: bool | None
) -> None:
    relay.upstream.always(if_streamed(stream("One"), document(WHOLE)))
    assert (await relay.ask(gpt(audio={"format": given, "voice": "v"}))).status == 200
    assert relay.upstream.calls[0].json.get("stream") is streamed


@pytest.mark.parametrize(
    "fields",
    [
        {"capabilities": {"supports": {"streaming": False}}},
        {"supports_streaming": False},
        {"model_info": {"supports_native_streaming": False}},
    ],
)
@ensureDeferred
async def test_models_that_are_listed_as_unable_are_not_asked_to_stream(
    relay: Relay, fields: dict[str, Any]
) -> None:
    models = [{"id": "gpt-x"} | fields, {"id": "gpt-y"}]
    # The second is asked for Gemini's.
    relay.upstream.play(document({"data": models}), document({"data": []}))
    await relay.get("/v1/models")
    relay.upstream.always(if_streamed(stream("One"), document(WHOLE)))
    assert (await relay.ask(gpt())).json == WHOLE
    assert (await relay.ask(gpt(model="gpt-y"))).content == "One"


@pytest.mark.parametrize("model", [{}, {"capabilities": 3}, {"supports_streaming": True}])
def test_a_model_can_stream_unless_it_is_said_that_it_cannot(model: dict[str, Any]) -> None:
    assert not cannot_stream(model)


@ensureDeferred
async def test_nothing_is_converted_if_the_operator_says_so() -> None:
    async with running_relay(CONVERT="off") as relay:
        relay.upstream.always(if_streamed(stream("One"), document(WHOLE)))
        sent = json.dumps(gpt(), indent=3).encode()
        assert (await relay.ask(sent)).json == WHOLE
        assert bytes(relay.upstream.calls[0].body) == sent
        assert (await relay.ask(gpt(stream=True))).content == "One"


@ensureDeferred
async def test_all_is_converted_if_the_operator_says_so() -> None:
    async with running_relay(CONVERT="on") as relay:
        status, body, _ = REFUSALS["dify"]
        relay.upstream.always(refused(status, body))
        assert (await relay.ask(gpt(audio={"format": "wav"}))).json == body
        [call] = relay.upstream.calls
        assert call.json["stream"] is True


# An answer that was not streamed is one like any other:


@ensureDeferred
async def test_an_unstreamed_answer_has_heartbeats() -> None:
    async with running_relay(
        CONVERT="off", HEARTBEAT_INTERVAL=0.1, JSON_HEARTBEAT_DELAY=0.1
    ) as relay:

        async def script(call: Call) -> None:
            await connection.until_received(b"\r\n1\r\n\n\r\n")
            await document(WHOLE)(call)

        relay.upstream.play(script)
        connection = await relay.begin(gpt())
        reply = await connection.reply()
        assert reply.body.startswith(b"\n")
        assert reply.json == WHOLE


@ensureDeferred
async def test_an_unstreamed_answer_has_a_timeout() -> None:
    async with running_relay(CONVERT="off", TIMEOUT=0.3) as relay:
        relay.upstream.play(verbatim(head(200, [("Content-Length", "99")]) + b'{"choices"'))
        assert (await relay.ask(gpt())).error["code"] == "upstream_timeout"


@ensureDeferred
async def test_an_unstreamed_answer_ends_at_a_stop_tag_and_is_kept(tmp_path: Any) -> None:
    whole: dict[str, Any] = json.loads(json.dumps(WHOLE))
    message = {"role": "assistant", "content": "One<x>two", "x": [1]}
    whole["choices"] = [{"index": 0, "message": message, "finish_reason": "length", "y": 1}]
    async with running_relay(CONVERT="off", STOP_TAGS="<x>", LOG_DIR=tmp_path) as relay:
        relay.upstream.play(document(whole))
        reply = (await relay.ask(gpt())).json
    [choice] = reply["choices"]
    assert choice["message"] == message | {"content": "One"}
    assert (choice["finish_reason"], choice["y"]) == ("stop", 1)
    assert (reply["usage"], reply["x_top"]) == (whole["usage"], whole["x_top"])
    [kept] = tmp_path.glob("*_output.txt")
    assert "\n\nOne\n" in kept.read_text()
    assert "prompt_tokens: 9\n" in kept.read_text()


@ensureDeferred
async def test_a_byte_order_mark_is_no_part_of_a_document(relay: Relay) -> None:
    data = b"\xef\xbb\xbf" + json.dumps(WHOLE).encode()
    whole = events(data, headers=[("Content-Type", "application/json")], cuts=range(10_000))
    relay.upstream.play(document(data), whole, events(b"\xef\xbb\xbf", *answer("One")))
    assert (await relay.ask(gpt())).json == WHOLE
    assert (await relay.ask(gpt())).json == WHOLE
    assert (await relay.ask(gpt())).content == "One"


@ensureDeferred
async def test_created_is_as_good_as_ok_and_identity_is_no_coding(relay: Relay) -> None:
    data = json.dumps(WHOLE).encode()
    identity = [("Transfer-Encoding", "identity"), ("Content-Length", str(len(data)))]
    told = b"".join([*answer("One", usage=True), event(usage_chunk())])
    relay.upstream.play(
        document(WHOLE, 201),
        verbatim(head(201, identity) + data),
        verbatim(head(200, [EVENT_STREAM, ("Transfer-Encoding", "identity")]) + told, "close"),
    )
    for _ in range(2):
        reply = await relay.ask(gpt())
        assert (reply.status, reply.json) == (200, WHOLE)
    assert (await relay.ask(gpt())).content == "One"


# Pure:


def test_memory_ends() -> None:
    memory = ConversionMemory()
    memory.learn("a", Form.AS_SENT, 0.0)
    assert memory.form("a", MEMORY - 1) is Form.AS_SENT
    assert memory.form("b", 1.0) is Form.STREAM
    assert memory.form("a", MEMORY) is Form.STREAM


def test_memory_is_bounded() -> None:
    memory = ConversionMemory()
    memory.learn("x" * 1000, Form.AS_SENT, 0.0)
    for number in range(5000):
        memory.learn(f"m{number}", Form.AS_SENT, 0.0)
    assert len(memory._learnt._known) <= 1000
    assert memory.form("m4999", 1.0) is Form.AS_SENT
    assert memory.form("m0", 1.0) is Form.STREAM


def test_what_was_not_added_cannot_be_taken_back() -> None:
    error = ChatError(400, "t", "no stream")
    assert form_after(Form.AS_SENT, error) is None
    assert form_after(Form.STREAM_ALONE, ChatError(400, "t", "no stream_options")) is Form.AS_SENT
