"""What a streaming client gets of New-API's answer, and New-API of its request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from testing.fake_newapi import (
    DONE,
    EVENT_STREAM,
    USAGE,
    answer,
    chunk,
    event,
    events,
    in_http_chunks,
    stream,
    usage_chunk,
)
from tests.support import Relay, Reply, encode, gpt, running_relay

IGNORED = "x-gemproxy-ignored"
RICH: list[dict[str, Any]] = [
    chunk(delta={"role": "assistant", "content": None, "refusal": None}),
    chunk(delta={"reasoning_content": "Let me think… \u2028 done."}),
    chunk(delta={"content": 'Grüße, 世界 🎉 "quoted" \\ back\nslash'}, index=1),
    chunk(
        delta={
            "content": None,
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "function", "function": {"name": "f"}},
                {"index": 1, "id": "c2", "function": {"name": "g", "arguments": ""}},
            ],
        }
    ),
    chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"a": '}}]}),
    chunk("A")
    | {
        "choices": [
            {
                "index": 0,
                "delta": {"content": "A", "unknown_to_all": {"deep": [1.50, None, True]}},
                "logprobs": {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": []}]},
                "finish_reason": None,
            },
            {"index": 1, "delta": {"content": ""}, "finish_reason": None},
        ],
        "service_tier": "default",
        "x_nobody_knows": 12345678901234567890123,
        "usage": None,
    },
    chunk(finish="tool_calls"),
    chunk(finish="length", index=1),
    usage_chunk(USAGE | {"prompt_tokens_details": {"cached_tokens": 3}, "cost": 0.00001}),
]
RICH_EVENTS = [event(item) for item in RICH]


def data_lines(reply: Reply) -> list[bytes]:
    """The events as they came, less heartbeats."""
    blocks = reply.body.split(b"\n\n")
    assert blocks.pop() == b""
    return [block for block in blocks if not block.startswith(b":")]


def assert_streamed(reply: Reply, *expected: bytes) -> None:
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert data_lines(reply) == [item.strip() for item in expected]


@ensureDeferred
async def test_every_field_of_every_chunk_survives_byte_for_byte(relay: Relay) -> None:
    relay.upstream.play(events(*RICH_EVENTS, DONE))
    assert_streamed(await relay.ask(gpt(stream=True)), *RICH_EVENTS, DONE)


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@ensureDeferred
async def test_events_survive_a_network_that_delivers_single_bytes(
    relay: Relay, framing: str
) -> None:
    end = chunk() | {"choices": [{"index": n, "finish_reason": "stop"} for n in (0, 1)]}
    few = [event(RICH[2]), b": comment\n\n", event(RICH[3]), event(end), DONE]
    relay.upstream.play(events(*few, framing=framing, cuts=range(10_000)))
    reply = await relay.ask(gpt(stream=True))
    assert_streamed(reply, few[0], few[2], few[3], DONE)


@pytest.mark.slow
@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"\r"])
@ensureDeferred
async def test_events_survive_every_single_cut(relay: Relay, eol: bytes) -> None:
    given = [{"choices": [{"delta": {"content": "ä€🎉"}, "finish_reason": "stop"}]}]
    named = b"event: message" + eol
    wire = b": hi" + eol * 2 + named + event(given[0], eol) + b"data: [DONE]" + eol * 2
    cuts = range(1, len(in_http_chunks([wire])) + 5)
    for cut in cuts:
        relay.upstream.play(events(wire, cuts=[cut]))
    replies = await relay.ask_all([gpt(stream=True)] * len(cuts))
    for reply in replies:
        assert_streamed(reply, b"event: message\n" + event(given[0]), DONE)


@ensureDeferred
async def test_what_came_at_once_is_still_several_events(relay: Relay) -> None:
    relay.upstream.play(events(b"".join([*RICH_EVENTS, DONE])))
    assert_streamed(await relay.ask(gpt(stream=True)), *RICH_EVENTS, DONE)


@ensureDeferred
async def test_each_event_is_passed_on_before_the_next_one_comes(relay: Relay) -> None:
    passed: list[Deferred[None]] = [Deferred() for _ in range(3)]

    async def script(call: Any) -> None:
        await call.whole()
        await call.head(200, [EVENT_STREAM, ("Transfer-Encoding", "chunked")])
        for number, waiter in enumerate(passed):
            await call.send(in_http_chunks([event(f"<{number}>")]))
            await waiter
        await call.send(in_http_chunks([event(chunk(finish="stop")), DONE]) + b"0\r\n\r\n")
        call.end()

    relay.upstream.play(script)
    client = await relay.begin(gpt(stream=True))
    for number, waiter in enumerate(passed):
        await client.until_received(f"<{number}>".encode())
        waiter.callback(None)
    assert (await client.reply()).content == "<0><1><2>"


@ensureDeferred
async def test_comments_event_lines_ids_and_retries_are_understood(relay: Relay) -> None:
    first, last = event("One"), event(chunk(finish="stop"))
    relay.upstream.play(
        events(
            b"\xef\xbb\xbf: welcome\n\n",
            b"event: message\nid: 7\nretry: 10\n" + first,
            b":no space\n: two\n" + last.replace(b"data: ", b"data:"),
            b"data:[DONE]\n\n",
        )
    )
    reply = await relay.ask(gpt(stream=True))
    assert_streamed(reply, b"event: message\n" + first, last, DONE)


@ensureDeferred
async def test_an_event_of_several_data_lines_stays_one(relay: Relay) -> None:
    text = json.dumps(chunk("One"), indent=1)
    lines = "".join(f"data: {line}\n" for line in text.split("\n")).encode()
    relay.upstream.play(events(lines + b"\n", event(chunk(finish="stop")), DONE))
    reply = await relay.ask(gpt(stream=True))
    assert_streamed(reply, lines, event(chunk(finish="stop")), DONE)


@pytest.mark.parametrize("zipped", [False, True])
@ensureDeferred
async def test_a_compressed_answer_is_understood(relay: Relay, zipped: bool) -> None:
    relay.upstream.play(events(*answer("One", " two"), zipped=zipped, cuts=range(0, 9999, 7)))
    reply = await relay.ask(gpt(stream=True))
    assert_streamed(reply, *answer("One", " two"))
    assert "content-encoding" not in reply.headers


@ensureDeferred
async def test_upper_case_and_parameters_in_the_content_type_do_not_matter(relay: Relay) -> None:
    relay.upstream.play(events(*answer("One"), headers=[("content-type", "Text/Event-Stream")]))
    assert_streamed(await relay.ask(gpt(stream=True)), *answer("One"))


@ensureDeferred
async def test_done_is_said_once_with_or_without_the_upstream_saying_it(relay: Relay) -> None:
    relay.upstream.play(events(*answer("One")[:-1]), events(*answer("One"), DONE, event("late")))
    for _ in range(2):
        assert_streamed(await relay.ask(gpt(stream=True)), *answer("One"))


@ensureDeferred
async def test_the_last_event_needs_no_blank_line(relay: Relay) -> None:
    relay.upstream.play(events(event("One"), event(chunk(finish="stop")).strip()))
    reply = await relay.ask(gpt(stream=True))
    assert_streamed(reply, event("One"), event(chunk(finish="stop")), DONE)


@ensureDeferred
async def test_usage_is_shown_if_the_upstream_shows_it(relay: Relay) -> None:
    relay.upstream.play(stream("One", usage=True), stream("One"))
    options = {"include_usage": True}
    assert (await relay.ask(gpt(stream=True, stream_options=options))).data[-2]["usage"] == USAGE
    assert relay.upstream.calls[0].json["stream_options"] == options
    reply = await relay.ask(gpt(stream=True))
    assert all(item == "[DONE]" or not item.get("usage") for item in reply.data)
    assert "stream_options" not in relay.upstream.calls[1].json


@ensureDeferred
async def test_the_request_is_seen_upstream_exactly_as_it_was_sent(relay: Relay) -> None:
    body = (
        b'{ "stream":true,\t"model" : "org/GPT-x",  "messages":[{"role":"user","content":"\\u00fc '
        + "ü🎉".encode()
        + b'"}],"temperature":1.0,"seed":123456789012345678901234567890,"x":{"b":[],"a":1e2},'
        b'"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"n":1}\n'
    )
    assert (await relay.ask(body)).status == 200
    call = relay.upstream.calls[0]
    assert (call.method, call.target) == ("POST", "/v1/chat/completions")
    assert bytes(call.body) == body
    assert call.all_headers("content-type") == ["application/json"]
    assert call.all_headers("content-length") == [str(len(body))]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/prefix/v1"])
@ensureDeferred
async def test_the_upstream_url_may_be_written_in_many_ways(suffix: str) -> None:
    async with (
        running_relay() as other,
        running_relay(UPSTREAM_URL=other.upstream.url + suffix) as relay,
    ):
        assert (await relay.ask(gpt(stream=True))).content == "Hello"
        prefix = "/prefix" if "prefix" in suffix else ""
        assert other.upstream.calls[0].target == prefix + "/v1/chat/completions"


@ensureDeferred
async def test_headers_are_passed_on_less_those_of_the_connection(relay: Relay) -> None:
    await relay.ask(
        gpt(stream=True),
        Authorization="Bearer sk-client",
        User_Agent="SomeClient/1",
        X_Custom="one, two",
        Cookie="session=1",
        Connection="keep-alive, X-Hop",
        X_Hop="mine",
        Keep_Alive="timeout=5",
        Proxy_Authorization="Basic secret",
        TE="trailers",
        Accept_Encoding="br",
    )
    call = relay.upstream.calls[0]
    assert call.header("host") == relay.upstream.url.removeprefix("http://")
    assert call.all_headers("authorization") == ["Bearer sk-client"]
    assert call.header("user-agent") == "SomeClient/1"
    assert call.header("x-custom") == "one, two"
    assert call.header("accept").split(", ")[0] == "text/event-stream"
    assert "br" not in (call.header("accept-encoding") or "")
    for name in ("x-hop", "keep-alive", "proxy-authorization", "te", "transfer-encoding"):
        assert call.header(name) is None


@ensureDeferred
async def test_the_fixed_key_stands_in_for_all_keys_of_clients() -> None:
    async with running_relay(FIXED_API_KEY="sk-fixed") as relay:
        await relay.ask(
            gpt(stream=True),
            Authorization="Bearer sk-client",
            X_Api_Key="sk-client",
            Api_Key="sk-client",
            Cookie="session=sk-client",
        )
        await relay.ask(gpt())
        await relay.get("/v1/models")
        await relay.send("POST", "/v1/embeddings", {}, Authorization="Bearer sk-client")
        await relay.upstream.when_asked(3)
        for call in relay.upstream.calls:
            if call.header("authorization") != "Bearer sk-fixed":
                # That is the list of the Gemini models, asked of another gemproxy.
                assert call.target == "/v1/models"
                assert call.header("authorization") is None
            assert "sk-client" not in repr(call.headers)


@ensureDeferred
async def test_an_empty_key_of_a_client_is_no_reason_to_fail(relay: Relay) -> None:
    assert (await relay.ask(gpt(stream=True), Authorization="Bearer ")).content == "Hello"


@ensureDeferred
async def test_cookies_of_the_upstream_are_not_kept_for_others(relay: Relay) -> None:
    cookie = ("Set-Cookie", "session=of-the-first; Path=/")
    relay.upstream.always(events(*answer("One"), headers=[EVENT_STREAM, cookie]))
    for stream_wanted in (True, False, True):
        await relay.ask(gpt(stream=stream_wanted))
    await relay.get("/v1/models")
    assert [call.header("cookie") for call in relay.upstream.calls] == [None] * len(
        relay.upstream.calls
    )


@ensureDeferred
async def test_connections_to_the_upstream_are_used_again(relay: Relay) -> None:
    for wanted in (True, False, True, False):
        await relay.ask(gpt(stream=wanted))
    assert len({id(call.connection) for call in relay.upstream.calls}) == 1


@ensureDeferred
async def test_a_client_may_keep_its_connection(relay: Relay) -> None:
    relay.upstream.play(stream("One"), stream("Two"))
    client = await relay.begin(gpt(stream=True))
    assert (await client.reply()).content == "One"
    client.received.clear()
    client.send("POST", "/v1/chat/completions", gpt(stream=True))
    assert (await client.reply()).content == "Two"


@ensureDeferred
async def test_models_of_gemini_in_any_spelling_take_the_other_way() -> None:
    async with (
        running_relay() as gemini,
        running_relay(GEMINI_PROXY_URL=gemini.upstream.url) as relay,
    ):
        gemini.upstream.always(stream("Gemini"))
        for name in ("gemini-2.5-pro", "GEMINI-2.5-Pro", "google/Gemini-2.5-pro"):
            for wanted in (True, False):
                body = encode(gpt(model=name, stream=wanted))
                assert (await relay.ask(body)).content == "Gemini"
                assert gemini.upstream.calls[-1].json["model"] == "gemini-2.5-pro"
        assert (await relay.ask(gpt(model="gemma-3", stream=True))).content == "Hello"
        # A name that may be Google's is looked up first.
        assert [call.target for call in gemini.upstream.calls[6:]] == ["/v1/models"]


@ensureDeferred
async def test_answers_side_by_side_are_not_mixed_up(relay: Relay) -> None:
    words = [f"answer-{number} " for number in range(30)]

    async def script(call: Any) -> None:
        await call.whole()
        word = call.json["messages"][0]["content"]
        await stream(*[word] * 10, cuts=range(0, 9000, 50))(call)

    relay.upstream.always(script)
    replies = await gatherResults(
        [Deferred.fromCoroutine(relay.ask(gpt(word, stream=True))) for word in words]
    )
    assert [reply.content for reply in replies] == [word * 10 for word in words]


@pytest.mark.parametrize("number", [3, 500])
@ensureDeferred
async def test_the_list_of_what_is_ignored_has_its_bounds(relay: Relay, number: int) -> None:
    names = [f"parameter_{n}" for n in range(number)]
    header = (IGNORED, ", ".join(names))
    relay.upstream.play(events(*answer("Hi"), headers=(EVENT_STREAM, header)))
    reply = await relay.ask(gpt())
    assert reply.content == "Hi"
    shown = reply.headers[IGNORED].split(", ")
    if number == 3:
        assert shown == names
    else:
        assert shown == [*names[: len(shown) - 1], "..."]
        assert 900 < len(reply.headers[IGNORED]) < 1010
