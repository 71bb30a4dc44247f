"""How a stop tag ends an answer, on the way to New-API and on the way to Gemini."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from testing.fake_newapi import (
    EVENT_STREAM,
    USAGE,
    Call,
    answer,
    chunk,
    document,
    event,
    events,
    in_http_chunks,
    stream,
    usage_chunk,
)
from testing.google import scenarios
from testing.google.recorded_request import Closed
from tests.support import Product, Relay, Reply, chat, gpt, running_relay

BEFORE = 'Hi <b>"there"</b>, <!-- 世界 🎉 --> '
TAGS = ("<!--ST0P_PROXY_", "<disclaimer>")
both_modes = pytest.mark.parametrize("wanted", [True, False])


def finish_reason(reply: Reply, index: int = 0) -> str | None:
    """The finish reason of a choice, which is said once."""
    if reply.headers["content-type"].startswith("application/json"):
        return reply.json["choices"][index]["finish_reason"]
    choices = [each for item in reply.data[:-1] for each in item["choices"]]
    reasons = [c["finish_reason"] for c in choices if c["index"] == index and c["finish_reason"]]
    assert len(reasons) <= 1
    return reasons[0] if reasons else None


def assert_stopped(reply: Reply, content: str) -> None:
    assert reply.status == 200
    assert reply.content == content
    assert finish_reason(reply) == "stop"
    assert b"ST0P" not in reply.body
    assert b"disclaimer" not in reply.body
    assert b"never" not in reply.body
    if reply.headers["content-type"].startswith("text/event-stream"):
        assert reply.data[-1] == "[DONE]"
        assert reply.data.count("[DONE]") == 1


async def in_two_pieces(call: Call) -> None:
    """Streams the text that is asked for, cut where that is asked for."""
    await call.whole()
    wish = json.loads(call.json["messages"][0]["content"])
    text, cut = wish["text"], wish["cut"]
    await events(*answer(text[:cut], text[cut:]), then="hang")(call)


@pytest.mark.parametrize("tag", TAGS)
@both_modes
@ensureDeferred
async def test_a_tag_is_found_across_every_cut(relay: Relay, wanted: bool, tag: str) -> None:
    text = BEFORE + tag + "END--> never"
    relay.upstream.always(in_two_pieces)
    cuts = range(len(BEFORE) - 3, len(BEFORE + tag) + 3)
    wishes = [json.dumps({"text": text, "cut": cut}) for cut in cuts]
    replies = await relay.ask_all([gpt(wish, stream=wanted) for wish in wishes])
    for reply in replies:
        assert_stopped(reply, BEFORE)


@both_modes
@ensureDeferred
async def test_a_tag_is_found_when_it_comes_letter_by_letter(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(stream(*BEFORE, *TAGS[0], *"never", then="hang"))
    assert_stopped(await relay.ask(gpt(stream=wanted)), BEFORE)


@pytest.mark.parametrize(
    "spelling",
    [
        r"\u003c!--ST0P_PROXY_",
        r"\u003C!--ST0P_PROXY_",
        r"<\u0021\u002d-ST\u0030P_PROXY\u005F",
        r"\u003cdisclaimer\u003e",
        "".join(f"\\u{ord(letter):04x}" for letter in "<disclaimer>"),
    ],
)
@both_modes
@ensureDeferred
async def test_a_tag_is_found_in_json_escapes(relay: Relay, wanted: bool, spelling: str) -> None:
    item = event(chunk("HERE")).replace(b"HERE", b"Caf\\u00e9 " + spelling.encode() + b" never")
    given = [event(chunk("One ")), item, *answer("never")]
    for cuts in (None, range(10_000)):
        relay.upstream.play(events(*given, cuts=cuts, then="hang"))
        assert_stopped(await relay.ask(gpt(stream=wanted)), "One Café ")


@ensureDeferred
async def test_what_stood_before_is_passed_on_before_the_tag_is_there(relay: Relay) -> None:
    more: Deferred[None] = Deferred()

    async def script(call: Call) -> None:
        await call.whole()
        await call.head(200, [EVENT_STREAM, ("Transfer-Encoding", "chunked")])
        await call.send(in_http_chunks([event("One <dis")]))
        await more
        await call.send(in_http_chunks([event("tance>")]))

    relay.upstream.play(script)
    client = await relay.begin(gpt(stream=True))
    await client.until_received(b'"One "')
    assert b"dis" not in client.received
    more.callback(None)
    await client.until_received(b'"<distance>"')


@pytest.mark.parametrize(
    "text", ["a < b", "<", "<!--", "<!-- ST0P_PROXY_ -->", "<disclaimer", "<<disclaim er>", "ST0P"]
)
@both_modes
@ensureDeferred
async def test_what_only_looks_like_a_tag_is_released(
    relay: Relay, wanted: bool, text: str
) -> None:
    for given in ([text], list(text)):
        relay.upstream.play(stream(*given))
        reply = await relay.ask(gpt(stream=wanted))
        assert reply.content == text
        assert finish_reason(reply) == "stop"


@ensureDeferred
async def test_what_was_held_back_comes_out_before_an_error(relay: Relay) -> None:
    relay.upstream.play(events(event("One"), event(" <disc"), then="cut"))
    reply = await relay.ask(gpt(stream=True))
    assert "error" in reply.data[-1]
    texts = [item["choices"][0]["delta"]["content"] for item in reply.data[:-1]]
    assert "".join(texts) == "One <disc"


@ensureDeferred
async def test_what_was_held_back_comes_out_when_no_finish_reason_comes(relay: Relay) -> None:
    relay.upstream.play(events(event("One <disc")))
    reply = await relay.ask(gpt(stream=True))
    assert reply.content == "One <disc"
    assert reply.data[-1] == "[DONE]"


@both_modes
@ensureDeferred
async def test_the_true_finish_reason_survives_where_there_is_no_tag(
    relay: Relay, wanted: bool
) -> None:
    relay.upstream.play(events(*answer("One <dis", finish="length")))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.content == "One <dis"
    assert finish_reason(reply) == "length"


@both_modes
@ensureDeferred
async def test_the_upstream_is_aborted_at_once(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(events(*answer("One <disclaimer>")[:-2], then="hang"))
    reply = await relay.ask(gpt(stream=wanted))
    answered = reactor.seconds()
    assert_stopped(reply, "One ")
    assert await relay.upstream.calls[0].when_closed() - answered < 3


@both_modes
@ensureDeferred
async def test_the_upstream_is_aborted_while_it_goes_on_talking(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(stream("One <disclaimer>", *["never "] * 2000))
    assert_stopped(await relay.ask(gpt(stream=wanted)), "One ")
    call = relay.upstream.calls[0]
    await call.when_closed()
    assert call.sent < 300 * len(event("never "))


@both_modes
@ensureDeferred
async def test_a_tag_at_the_very_beginning_leaves_an_empty_answer(
    relay: Relay, wanted: bool
) -> None:
    relay.upstream.play(events(event("<disclaimer>never"), then="hang"))
    assert_stopped(await relay.ask(gpt(stream=wanted)), "")


@ensureDeferred
async def test_the_last_chunk_has_all_fields_of_its_answer(relay: Relay) -> None:
    last = chunk("One <disclaimer>", x_unknown=[1])
    last["choices"][0]["x_choice"] = 2
    last["choices"][0]["delta"]["x_delta"] = 3
    relay.upstream.play(events(event(chunk("Zero ")), event(last), then="hang"))
    options = {"include_usage": True}
    reply = await relay.ask(gpt(stream=True, stream_options=options))
    first, second, usage, _ = reply.data
    assert first == chunk("Zero ")
    expected = chunk("One ", "stop", x_unknown=[1])
    expected["choices"][0]["x_choice"] = 2
    expected["choices"][0]["delta"]["x_delta"] = 3
    del expected["choices"][0]["logprobs"]
    second["choices"][0].pop("logprobs", None)
    assert second == expected
    assert usage["choices"] == []
    for name in ("id", "object", "created", "model", "system_fingerprint"):
        assert usage[name] == first[name]


@both_modes
@ensureDeferred
async def test_usage_is_estimated_where_the_upstream_did_not_say(
    relay: Relay, wanted: bool
) -> None:
    relay.upstream.play(events(event("x" * 40 + "<disclaimer>"), then="hang"))
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    reply = await relay.ask(gpt("y" * 400, stream=wanted, **options))
    usage = reply.data[-2]["usage"] if wanted else reply.json["usage"]
    assert usage["estimated"] is True
    assert usage["completion_tokens"] == 10
    assert 100 <= usage["prompt_tokens"] <= 120
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@both_modes
@ensureDeferred
async def test_usage_that_the_upstream_said_in_time_is_kept(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(
        events(event(chunk("One", usage=USAGE)), event("<disclaimer>"), then="hang")
    )
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    reply = await relay.ask(gpt(stream=wanted, **options))
    assert (reply.data[-2] if wanted else reply.json)["usage"] == USAGE


@ensureDeferred
async def test_usage_that_was_not_requested_is_not_made_up(relay: Relay) -> None:
    relay.upstream.play(events(event("One <disclaimer>"), then="hang"))
    reply = await relay.ask(gpt(stream=True))
    assert len(reply.data) == 2
    assert "usage" not in reply.data[0]


def two_choices(*given: tuple[int, str | None, str | None]) -> list[bytes]:
    return [event(chunk(text, finish, index)) for index, text, finish in given]


def content_of(reply: Reply, index: int) -> str:
    if reply.headers["content-type"].startswith("application/json"):
        return reply.json["choices"][index]["message"]["content"]
    choices = [each for item in reply.data[:-1] for each in item["choices"]]
    return "".join(c["delta"].get("content") or "" for c in choices if c["index"] == index)


@both_modes
@ensureDeferred
async def test_each_choice_has_its_own_tag(relay: Relay, wanted: bool) -> None:
    given = two_choices(
        (0, "A <disc", None),
        (1, "B laimer> <disc", None),
        (0, "laimer> never", None),
        (1, "ussion", None),
        (0, "never", None),
        (1, None, "length"),
        (0, None, "content_filter"),
    )
    relay.upstream.play(events(*given, then="hang"))
    reply = await relay.ask(gpt(stream=wanted, n=2))
    assert b"never" not in reply.body
    assert [content_of(reply, index) for index in (0, 1)] == ["A ", "B laimer> <discussion"]
    assert [finish_reason(reply, index) for index in (0, 1)] == ["stop", "length"]
    await relay.upstream.calls[0].when_closed(1)


@both_modes
@ensureDeferred
async def test_tags_in_all_choices_end_the_answer(relay: Relay, wanted: bool) -> None:
    given = two_choices(
        (1, "B<disclaimer>", None), (0, "A", None), (0, "<!--ST0P_PROXY_", None), (0, "never", None)
    )
    relay.upstream.play(events(*given, then="hang"))
    reply = await relay.ask(gpt(stream=wanted, n=2))
    assert [content_of(reply, index) for index in (0, 1)] == ["A", "B"]
    assert [finish_reason(reply, index) for index in (0, 1)] == ["stop", "stop"]
    await relay.upstream.calls[0].when_closed(1)


@both_modes
@ensureDeferred
async def test_two_choices_in_one_chunk_are_separated(relay: Relay, wanted: bool) -> None:
    both = chunk("A<disclaimer>never")
    both["choices"].append(chunk("B", index=1)["choices"][0])
    relay.upstream.play(events(event(both), event(chunk(finish="stop", index=1)), then="hang"))
    reply = await relay.ask(gpt(stream=wanted, n=2))
    assert b"never" not in reply.body
    assert [content_of(reply, index) for index in (0, 1)] == ["A", "B"]


@both_modes
@ensureDeferred
async def test_reasoning_and_tool_calls_are_not_searched(relay: Relay, wanted: bool) -> None:
    function = {"name": "f", "arguments": '{"a": "<disclaimer>"}'}
    given = [
        chunk(delta={"reasoning_content": "<!--ST0P_PROXY_ "}),
        chunk(delta={"tool_calls": [{"index": 0, "id": "c", "function": function}]}),
        "One",
    ]
    relay.upstream.play(stream(*given))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.content == "One"
    message = reply.json["choices"][0]["message"] if not wanted else {}
    if wanted:
        for item in reply.data[:-1]:
            message |= item["choices"][0]["delta"]
    assert message["reasoning_content"] == "<!--ST0P_PROXY_ "
    assert message["tool_calls"][0]["function"] == function


@both_modes
@ensureDeferred
async def test_a_tag_in_a_json_answer_is_found(relay: Relay, wanted: bool) -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "One <disclaimer> never"},
        "finish_reason": "length",
    }
    relay.upstream.play(document({"id": "x", "choices": [choice], "usage": USAGE}))
    assert_stopped(await relay.ask(gpt(stream=wanted)), "One ")


def with_logprobs(*tokens: str) -> list[dict[str, Any]]:
    items = []
    for token in tokens:
        item = chunk(token)
        item["choices"][0]["logprobs"] = {"content": [{"token": token, "logprob": -1}]}
        items.append(item)
    return items


def logprob_tokens(reply: Reply) -> list[str]:
    if reply.headers["content-type"].startswith("application/json"):
        choices = reply.json["choices"]
    else:
        choices = [each for item in reply.data[:-1] for each in item["choices"]]
    return [
        entry["token"]
        for each in choices
        if each.get("logprobs")
        for entry in each["logprobs"]["content"]
    ]


@both_modes
@ensureDeferred
async def test_log_probabilities_are_those_of_what_is_passed_on(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(stream(*with_logprobs("a ", "<", "dis", "tance", ">", " b <", "x", " <")))
    reply = await relay.ask(gpt(stream=wanted, logprobs=True))
    assert reply.content == "a <distance> b <x <"
    assert logprob_tokens(reply) == ["a ", "<", "dis", "tance", ">", " b <", "x", " <"]
    relay.upstream.play(stream(*with_logprobs("a ", "b <dis", "claim", "er> never"), then="hang"))
    reply = await relay.ask(gpt(stream=wanted, logprobs=True))
    assert_stopped(reply, "a b ")
    assert logprob_tokens(reply) == ["a "]


@ensureDeferred
async def test_no_tags_at_all() -> None:
    async with running_relay(STOP_TAGS="") as relay:
        text = BEFORE + "".join(TAGS)
        given = answer(*text)
        relay.upstream.play(events(*given), events(*given))
        reply = await relay.ask(gpt(stream=True))
        assert reply.body == b"".join(given)
        assert (await relay.ask(gpt())).content == text


@both_modes
@ensureDeferred
async def test_tags_of_ones_own(wanted: bool) -> None:
    tags = '終わり,🛑🛑,"end",ab<x>cdef,<x>'
    async with running_relay(STOP_TAGS=tags) as relay:
        for text, expected in {
            "終わ 終わり never": "終わ ",
            "🛑 🛑🛑 never": "🛑 ",
            'an "end" never': "an ",
            "ab<x>cdef never": "",
            "ab<x>cd": "ab",
            "a\nb\\<y> <disclaimer>": "a\nb\\<y> <disclaimer>",
        }.items():
            for given in ([text], list(text)):
                relay.upstream.play(stream(*given))
                reply = await relay.ask(gpt(stream=wanted))
                assert reply.content == expected
                assert finish_reason(reply) == "stop"
                assert b"never" not in reply.body
        surrogates = event(chunk("X")).replace(b"X", rb"\ud83d\uded1\uD83D\uDED1 never")
        relay.upstream.play(events(surrogates, then="hang"))
        assert (await relay.ask(gpt(stream=wanted))).content == ""


@both_modes
@ensureDeferred
async def test_a_tag_that_is_found_at_the_very_end_is_the_reason_to_stop(wanted: bool) -> None:
    async with running_relay(STOP_TAGS="ab<x>cdef,<x>") as relay:
        relay.upstream.play(events(*answer("ab<x>cd", finish="length")))
        reply = await relay.ask(gpt(stream=wanted))
        assert reply.content == "ab"
        assert finish_reason(reply) == "stop"
        relay.upstream.play(events(event("ab<x>cd")))
        reply = await relay.ask(gpt(stream=wanted))
        assert reply.content == "ab"
        assert finish_reason(reply) == "stop"


@ensureDeferred
async def test_usage_after_the_last_choice_stopped_by_itself_is_not_doubled(relay: Relay) -> None:
    options = {"include_usage": True}
    relay.upstream.play(events(*answer("One"), usage_chunk()), stream("One", usage=True))
    for _ in range(2):
        reply = await relay.ask(gpt(stream=True, stream_options=options))
        assert len([1 for item in reply.data[:-1] if item.get("usage")]) <= 1


# The way to Gemini:


@both_modes
@ensureDeferred
async def test_gemini_a_tag_is_found_across_every_cut(product: Product, wanted: bool) -> None:
    text = BEFORE + "<disclaimer>never"
    for cut in range(len(BEFORE), len(BEFORE) + 12, 2):
        product.api.play(scenarios.answer(text[:cut], text[cut:], "never"))
        reply = await product.ask(chat("Hi", stream=wanted), product.stream_port)
        assert_stopped(reply, BEFORE)


@both_modes
@ensureDeferred
async def test_gemini_is_aborted_at_once(product: Product, wanted: bool) -> None:
    product.api.play(scenarios.hang("One ", "<!--ST0P_", "PROXY_END-->", after=3))
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    body = chat("Hi", stream=wanted, **options)
    reply = await product.ask(body, product.stream_port)
    answered = reactor.seconds()
    assert_stopped(reply, "One ")
    usage = reply.data[-2]["usage"] if wanted else reply.json["usage"]
    assert usage["completion_tokens"] > 0
    assert await product.asked[0].when_closed() is Closed.GONE
    assert reactor.seconds() - answered < 1


@both_modes
@ensureDeferred
async def test_gemini_what_only_looks_like_a_tag_is_released(
    product: Product, wanted: bool
) -> None:
    product.api.play(scenarios.answer("a < b <!--", " <disclaim", "ed> <"))
    reply = await product.ask(chat("Hi", stream=wanted), product.stream_port)
    assert reply.content == "a < b <!-- <disclaimed> <"


@ensureDeferred
async def test_gemini_thoughts_are_not_searched(product: Product) -> None:
    product.api.play(scenarios.thinking("Think <disclaimer>", "One"))
    body = chat("Hi", reasoning_effort="low")
    message = (await product.ask(body, product.stream_port)).json["choices"][0]["message"]
    assert message["content"] == "One"
    assert "<disclaimer>" in message.get("reasoning_content", "<disclaimer>")


@both_modes
@ensureDeferred
async def test_the_gemini_proxy_knows_no_tags(product: Product, wanted: bool) -> None:
    product.api.play(scenarios.answer("One <disclaimer>", " two"))
    reply = await product.ask(chat("Hi", stream=wanted))
    assert reply.content == "One <disclaimer> two"
