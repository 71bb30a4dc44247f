"""OpenAI's own Python SDK against the Stream Proxy, for models that are not Gemini's."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import openai
import pytest
from openai import OpenAI
from pytest_twisted import ensureDeferred

from testing.fake_newapi import (
    EVENT_STREAM,
    USAGE,
    answer,
    chunk,
    document,
    event,
    events,
    stream,
    usage_chunk,
)
from tests.sdk import with_openai
from tests.support import Relay, running_relay
from tests.test_relay_flow import pausing

pytestmark = pytest.mark.slow

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
_T = TypeVar("_T")


def in_thread(
    relay: Relay, work: Callable[[OpenAI], _T], path: str = "/v1", retries: int = 0
) -> Awaitable[_T]:
    return with_openai(relay.port, work, "sk-sdk", path, retries)


def ask(client: OpenAI) -> Any:
    return client.chat.completions.create(model="gpt-x", messages=HELLO)


def ask_for_stream(client: OpenAI) -> list[Any]:
    return list(client.chat.completions.create(model="gpt-x", messages=HELLO, stream=True))


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/", "", "/v1/v1"])
@ensureDeferred
async def test_a_completion(relay: Relay, path: str) -> None:
    relay.upstream.play(stream("One", " two", usage=True))
    got = await in_thread(relay, ask, path)
    assert got.choices[0].message.content == "One two"
    assert (got.id, got.model, got.system_fingerprint) == ("chatcmpl-1", "gpt-x", "fp_1")
    assert got.usage.to_dict() == USAGE
    assert relay.upstream.calls[0].header("authorization") == "Bearer sk-sdk"


@ensureDeferred
async def test_a_stream_with_tools_thoughts_and_usage(relay: Relay) -> None:
    function = {"name": "f", "arguments": ""}
    relay.upstream.play(
        stream(
            chunk(delta={"reasoning_content": "Hm."}),
            "One",
            chunk(delta={"tool_calls": [{"index": 0, "id": "c1", "function": function}]}),
            chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}),
            usage=True,
        )
    )

    def work(client: OpenAI) -> Any:
        with client.chat.completions.stream(
            model="gpt-x", messages=HELLO, stream_options={"include_usage": True}
        ) as streamed:
            for _ in streamed:
                pass
            return streamed.get_final_completion()

    got = await in_thread(relay, work)
    message = got.choices[0].message
    assert message.content == "One"
    assert message.reasoning_content == "Hm."
    assert message.tool_calls[0].function.arguments == '{"a":1}'
    assert got.usage.total_tokens == USAGE["total_tokens"]


@ensureDeferred
async def test_several_choices(relay: Relay) -> None:
    given = [chunk("A"), chunk("B", index=1), chunk(finish="length", index=1)]
    relay.upstream.play(
        events(*map(event, given), event(chunk(finish="stop")), event(usage_chunk()))
    )
    got = await in_thread(
        relay, lambda client: client.chat.completions.create(model="x", messages=HELLO, n=2)
    )
    assert [(c.message.content, c.finish_reason) for c in got.choices] == [
        ("A", "stop"),
        ("B", "length"),
    ]


@ensureDeferred
async def test_a_stop_tag(relay: Relay) -> None:
    script = events(*answer("One <disc", "laimer> never"), then="hang")
    relay.upstream.play(script, script)
    chunks = await in_thread(relay, ask_for_stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "One "
    assert chunks[-1].choices[0].finish_reason == "stop"
    got = await in_thread(relay, ask)
    assert (got.choices[0].message.content, got.choices[0].finish_reason) == ("One ", "stop")
    assert got.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("work", [ask, ask_for_stream])
@ensureDeferred
async def test_errors_are_the_sdk_s_own(
    relay: Relay, work: Callable[[OpenAI], Any], status: int, kind: type[openai.APIStatusError]
) -> None:
    error = {"message": "Says New-API.", "type": "new_api_error", "code": "c", "param": "p"}
    relay.upstream.play(document({"error": error}, status))
    with pytest.raises(kind) as raised:
        await in_thread(relay, work)
    assert raised.value.body == error
    assert (raised.value.code, raised.value.param, raised.value.type) == ("c", "p", "new_api_error")


@ensureDeferred
async def test_the_sdk_retries_when_the_error_says_so(relay: Relay) -> None:
    busy = document({"error": {"message": "Busy."}}, 429, [("Retry-After", "0.05")])
    relay.upstream.play(busy, busy, stream("One"))
    got = await in_thread(relay, ask, retries=2)
    assert got.choices[0].message.content == "One"
    final = document({"error": {"message": "No."}}, 429, [("x-should-retry", "false")])
    relay.upstream.play(final)
    with pytest.raises(openai.RateLimitError):
        await in_thread(relay, ask, retries=2)
    assert len(relay.upstream.calls) == 4


@ensureDeferred
async def test_a_cut_answer_is_an_error(relay: Relay) -> None:
    relay.upstream.always(events(event("One"), event(" two"), then="cut"))
    seen: list[str] = []

    def work(client: OpenAI) -> None:
        for item in client.chat.completions.create(model="x", messages=HELLO, stream=True):
            seen.append(item.choices[0].delta.content or "")

    with pytest.raises(openai.APIError, match="closed the connection before"):
        await in_thread(relay, work)
    assert seen == ["One", " two"]
    with pytest.raises(openai.InternalServerError, match="closed the connection before"):
        await in_thread(relay, ask)


@pytest.mark.parametrize("work", [ask, ask_for_stream])
@ensureDeferred
async def test_heartbeats_do_not_disturb_the_sdk(work: Callable[[OpenAI], Any]) -> None:
    async with running_relay(HEARTBEAT_INTERVAL=0.1, JSON_HEARTBEAT_DELAY=0.1) as relay:
        relay.upstream.play(pausing(*answer("One", " two"), seconds=0.25))
        got = await in_thread(relay, work)
        if work is ask:
            assert got.choices[0].message.content == "One two"
        else:
            assert "".join(c.choices[0].delta.content or "" for c in got) == "One two"


@ensureDeferred
async def test_the_sdk_closes_a_stream_half_way(relay: Relay) -> None:
    relay.upstream.play(events(*[event("word ")] * 3, then="hang"))

    def work(client: OpenAI) -> str:
        with client.chat.completions.create(model="x", messages=HELLO, stream=True) as streamed:
            return str(next(iter(streamed)).choices[0].delta.content)

    assert await in_thread(relay, work) == "word "
    await relay.upstream.calls[0].when_closed(1)


@ensureDeferred
async def test_models(relay: Relay) -> None:
    model = {"id": "gpt-x", "object": "model", "created": 1, "owned_by": "us"}
    relay.upstream.always(document({"object": "list", "data": [model]}))
    got = await in_thread(relay, lambda client: [item.to_dict() for item in client.models.list()])
    assert got == [model]
    relay.upstream.always(document(model))
    assert (await in_thread(relay, lambda client: client.models.retrieve("gpt-x"))).created == 1
    gemini = await in_thread(relay, lambda client: client.models.retrieve("gemini-2.5-pro"))
    assert gemini.owned_by == "google"


@ensureDeferred
async def test_everything_else_is_passed_through(relay: Relay) -> None:
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}
    sound = bytes(range(256)) * 500
    created = {"type": "response.created", "sequence_number": 0, "response": {"id": "r"}}
    named = b"event: response.created\ndata: " + json.dumps(created).encode() + b"\n\n"
    relay.upstream.play(
        document({"object": "list", "data": [vector], "model": "e", "usage": USAGE}),
        document(sound, headers=[("Content-Type", "audio/mpeg")]),
        document({"text": "heard"}),
        document({"id": "file-1", "object": "file", "filename": "a.bin", "bytes": 3}),
        events(named, headers=[EVENT_STREAM]),
        document({"error": {"message": "Not here.", "type": "x"}}, 404),
    )

    def work(client: OpenAI) -> list[Any]:
        embedding = client.embeddings.create(model="e", input="a", encoding_format="float")
        speech = client.audio.speech.create(model="tts", voice="alloy", input="a").read()
        heard = client.audio.transcriptions.create(model="w", file=("a.mp3", io.BytesIO(sound)))
        file = client.files.create(file=("a.bin", b"abc"), purpose="assistants")
        streamed = list(client.responses.create(model="gpt-x", input="a", stream=True))
        try:
            client.files.retrieve("file-2")
        except openai.NotFoundError as error:
            lost = error.message
        return [embedding.data[0].embedding, speech, heard.text, file.id, streamed[0].type, lost]

    got = await in_thread(relay, work)
    assert got[:5] == [[0.5, 1.0], sound, "heard", "file-1", "response.created"]
    assert "Not here." in got[5]
    assert sound in bytes(relay.upstream.calls[2].body)
