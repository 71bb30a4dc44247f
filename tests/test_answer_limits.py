"""An answer that is too large is ended: it costs its own request, and no other one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from gemproxy.chat.answer_limits import AnswerLimits, parts_of
from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps
from gemproxy.exchange import Exchange
from gemproxy.gemini.translate.reply import Reply
from testing.fake_newapi import answer, chunk, document, event, events, stream
from testing.google import scenarios
from tests.support import Relay, chat, gpt, running, running_relay
from tests.support import Reply as Response

SMALL = AnswerLimits(size=5000, parts=100, calls=5)
SETTINGS = {"MAX_ANSWER": "100kB", "MAX_ANSWER_PARTS": 1000, "MAX_ANSWER_CALLS": 10}
WORDS = "word " * 200
TOO_MUCH = [WORDS] * 150


def call(number: int) -> dict[str, Any]:
    function = {"name": "f", "arguments": json.dumps({"a": number})}
    return {"index": number, "id": f"call_{number}", "type": "function", "function": function}


def assert_too_large(error: dict[str, Any], *words: str) -> None:
    assert error["code"] == "answer_too_large"
    for word in words:
        assert word in error["message"]


def assert_refused(reply: Response, *words: str) -> None:
    assert reply.status == 502
    # SDKs are not to try it again.
    assert reply.headers["x-should-retry"] == "false"
    assert_too_large(reply.error, *words)


# Pure:


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (chunk("a word"), 0),
        (chunk("a word") | {"usage": {"details": {}}}, 0),
        (chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]}), 0),
        (chunk(delta={"annotations": [[]] * 50}), 47),
    ],
)
def test_what_counts_as_a_part(given: Any, parts: int) -> None:
    assert parts_of(dumps(given)) == parts


@given(st.recursive(st.none(), lambda items: st.lists(items) | st.dictionaries(st.text(), items)))
def test_there_are_no_fewer_parts_than_objects_and_lists(value: Any) -> None:
    def count(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value
        return 1 + sum(map(count, inner)) if isinstance(value, dict | list) else 0

    assert parts_of(dumps(value)) >= count(value) - 8


def collect(*chunks: Any, limits: AnswerLimits = SMALL) -> CompletionCollector:
    collector = CompletionCollector(limits)
    for each in chunks:
        collector.add(dumps(each))
    return collector


@pytest.mark.parametrize(
    ("chunks", "word"),
    [
        ([chunk("x" * 100)] * 30, "5000 bytes"),
        ([chunk("x" * 5000)], "5000 bytes"),
        ([chunk(delta={"annotations": [[]] * 30})] * 4, "100 parts"),
        ([chunk(delta={"tool_calls": [call(number)]}) for number in range(6)], "5 function calls"),
        ([chunk(delta={"tool_calls": [{} for _ in range(6)]})], "5 function calls"),
        ([chunk() | {"choices": [{"message": {"tool_calls": [{}] * 6}}]}], "5 function calls"),
    ],
)
def test_an_answer_is_collected_up_to_a_limit(chunks: list[Any], word: str) -> None:
    with pytest.raises(ChatError, match=word):
        collect(*chunks)


def test_parts_of_one_call_are_one_call() -> None:
    opening = [chunk(delta={"tool_calls": [call(number)]}) for number in range(5)]
    more = {"index": 4, "function": {"arguments": " "}}
    collect(*opening, *[chunk(delta={"tool_calls": [more]})] * 3)


def test_the_arguments_of_a_call_may_be_as_long_as_any_text() -> None:
    pieces = [{"index": 0, "function": {"arguments": "word "}}] * 3000
    collector = collect(
        chunk(delta={"tool_calls": [call(0)]}),
        *[chunk(delta={"tool_calls": [piece]}) for piece in pieces],
        limits=AnswerLimits(parts=1000),
    )
    (called,) = collector.completion()["choices"][0]["message"]["tool_calls"]
    assert called["function"]["arguments"] == '{"a": 0}' + "word " * 3000


def test_what_is_taken_back_does_not_count() -> None:
    collector = CompletionCollector(SMALL)
    for _ in range(20):
        collector.add(dumps(chunk("x" * 500, index=1)))
        collector.discard(1)
    collector.add(dumps(chunk("x" * 500)))
    assert collector.text == "x" * 500


def reply_of(*parts: Any, limits: AnswerLimits = SMALL, events: int = 1) -> Reply:
    reply = Reply(limits)
    content = {"candidates": [{"content": {"parts": list(parts)}}]}
    for _ in range(events):
        reply.feed(b"data: %b\n\n" % dumps(content))
    return reply


PICTURE = scenarios.inline("image/png", "aGk=")
SOUND = scenarios.inline("audio/L16", "aGk=" * 10)


@pytest.mark.parametrize(
    ("parts", "events", "word"),
    [
        ([scenarios.call("f")], 6, "5 function calls"),
        ([scenarios.call("f")] * 6, 1, "5 function calls"),
        ([PICTURE], 6, "5 pictures"),
        ([scenarios.inline("image/png", "aGk=" * 800)], 2, "5000 bytes"),
        ([SOUND], 100, "5000 bytes"),
        ([{"text": "x", "thoughtSignature": "aGk="}], 101, "5000 bytes|100 parts"),
        ([{"text": "x", "more": [[]] * 3000}], 1, "100 parts"),
    ],
)
def test_a_reply_is_kept_up_to_a_limit(parts: list[Any], events: int, word: str) -> None:
    with pytest.raises(ChatError, match=word):
        reply_of(*parts, events=events)


def test_of_sound_there_are_many_pieces() -> None:
    assert len(reply_of(*[SOUND] * 20).media) == 20


def test_text_and_thoughts_of_a_reply_are_not_kept_and_have_no_limit() -> None:
    reply_of({"text": "x" * 500}, {"text": "y" * 500, "thought": True}, events=50)


def test_the_journal_has_as_many_parts_as_anybody_reads() -> None:
    exchange = Exchange("x", 0, 0, "r", "m", True, b"{}")
    for number in range(5000):
        exchange.add(chunk(delta={f"{number}" + "k" * 5000: "x"}), 1)
    assert len(exchange.output()) < 1_000_000
    exchange.add(chunk(delta={"0" + "k" * 5000: "more"}), 1)
    assert b"xmore" in exchange.output()


# Relayed:


@define
class Case:
    """What an upstream answers, and what is too large about it."""

    chunks: list[Any]
    words: tuple[str, ...]


COLLECTED = {
    "bytes": Case(TOO_MUCH, ("100000 bytes", "MAX_ANSWER")),
    "parts": Case([chunk(delta={"annotations": [[]] * 100})] * 12, ("1000 parts", "_PARTS")),
    "calls": Case(
        [chunk(delta={"tool_calls": [call(number)]}) for number in range(12)],
        ("10 function calls", "MAX_ANSWER_CALLS"),
    ),
}


@pytest.mark.parametrize("kind", COLLECTED)
@ensureDeferred
async def test_a_client_that_does_not_stream_is_told(kind: str) -> None:
    case = COLLECTED[kind]
    async with running_relay(**SETTINGS) as relay:
        relay.upstream.play(stream("One", "two", pace=0.1))
        other = await relay.begin(gpt(stream=True))
        await relay.upstream.when_asked()
        relay.upstream.play(events(*answer(*case.chunks)[:-2], then="hang"))
        assert_refused(await relay.ask(gpt()), *case.words)
        # The rest is not waited for.
        await relay.upstream.calls[1].when_closed()
        assert (await other.reply()).content == "Onetwo"
        assert len(relay.upstream.calls) == 2
        # Who streams gets it all.
        relay.upstream.play(stream(*case.chunks))
        reply = await relay.ask(gpt(stream=True))
        assert [data for data in reply.data if data != "[DONE]"][1:-1] == [
            chunk(each) if isinstance(each, str) else each for each in case.chunks
        ]


@ensureDeferred
async def test_after_a_heartbeat_it_is_told_in_the_body() -> None:
    beats = {"HEARTBEAT_INTERVAL": 0.1, "JSON_HEARTBEAT_DELAY": 0.1}
    async with running_relay(**SETTINGS, **beats) as relay:
        relay.upstream.play(stream(*TOO_MUCH, pace=0.01))
        reply = await relay.ask(gpt())
        assert reply.status == 200
        assert reply.body.startswith(b"\n")
        assert_too_large(reply.error, "100000 bytes")


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize(
    ("message", "word"),
    [({"content": WORDS * 150}, "100000 bytes"), ({"annotations": [[]] * 2000}, "1000 parts")],
)
@ensureDeferred
async def test_a_document_is_taken_up_to_a_limit(
    message: dict[str, Any], word: str, wanted: bool
) -> None:
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    async with running_relay(**SETTINGS) as relay:
        relay.upstream.play(document(chunk() | {"choices": [choice]}))
        assert_refused(await relay.ask(gpt(stream=wanted)), word)
        assert (await relay.ask(gpt(stream=wanted))).status == 200


@ensureDeferred
async def test_a_chunk_of_too_many_parts_is_not_even_read() -> None:
    async with running_relay(**SETTINGS) as relay:
        many = chunk(delta={"annotations": [[]] * 2000})
        relay.upstream.always(events(*answer("Well", many)[:-2], then="hang"))
        assert_refused(await relay.ask(gpt()), "1000 parts")
        reply = await relay.ask(gpt(stream=True))
        # What came before it has been delivered.
        assert reply.data[1]["choices"][0]["delta"]["content"] == "Well"
        assert_too_large(reply.data[-1]["error"], "1000 parts")
        for asked in relay.upstream.calls:
            await asked.when_closed()


@pytest.mark.parametrize("wanted", [True, False])
@ensureDeferred
async def test_an_answer_has_so_many_choices(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(events(*[event(chunk("x", index=i)) for i in range(1500)], then="hang"))
    reply = await relay.ask(gpt(stream=wanted))
    error = reply.data[-1]["error"] if wanted else reply.error
    assert_too_large(error, "1000 choices")


@pytest.mark.parametrize("is_stream", [True, False])
@ensureDeferred
async def test_a_completion_that_is_searched_for_tags_has_limits(is_stream: bool) -> None:
    async with running_relay(**SETTINGS, STOP_TAGS="<stop>") as relay:
        body = {"model": "gpt-x", "prompt": "Hello", "stream": is_stream}
        choice = {"index": 0, "text": "x", "more": [[]] * 2000}
        many = {"object": "text_completion", "choices": [choice]}
        relay.upstream.always(events(many) if is_stream else document(many))
        client = await relay.send("POST", "/v1/completions", body)
        reply = await client.reply()
        if is_stream:
            assert_too_large(reply.data[-1]["error"], "1000 parts")
        else:
            assert_refused(reply, "1000 parts")
        relay.upstream.always(document(b"x" * 200_000))
        if not is_stream:
            client = await relay.send("POST", "/v1/completions", body)
            assert_refused(await client.reply(), "100000 bytes")


# Through the CLI:


@pytest.mark.cli
@ensureDeferred
async def test_endless_text_ends_neither_the_cli_nor_other_answers(tmp_path: Path) -> None:
    async with running(tmp_path, MAX_ANSWER=100_000, GEMINI_WORKERS=1) as product:
        (pid,) = product.worker_pids()
        product.api.play(scenarios.answer("One ", "and ", "two.", first_chunk_delay=0.2, pace=0.5))
        other = await product.begin(chat(stream=True))
        await product.until_asked()
        for stream in (True, False):
            product.api.play(scenarios.answer(*[WORDS] * 3000))
            reply = await product.ask(chat(stream=stream))
            if stream:
                # Nothing of it is kept, by the CLI neither.
                assert reply.content == WORDS * 3000
            else:
                assert_refused(reply, "100000 bytes")
        assert (await other.reply()).content == "One and two."
        # What has no place is not tried again.
        assert len(product.asked) == 3
        await product.asked[-1].when_closed()
        assert (await product.ask(chat())).status == 200
        assert product.worker_pids() == [pid]


@pytest.mark.cli
@ensureDeferred
async def test_calls_without_end_are_no_answer(tmp_path: Path) -> None:
    async with running(tmp_path, **SETTINGS) as product:
        (pid,) = product.worker_pids()
        tools = [{"type": "function", "function": {"name": "f"}}]
        many = scenarios.answer("Well. ", *[scenarios.call("f")] * 11, "Nothing more.")
        for stream in (True, False):
            product.api.play(many)
            reply = await product.ask(chat(stream=stream, tools=tools))
            if stream:
                assert reply.content == "Well. "
                assert b"tool_calls" not in reply.body
                assert_too_large(reply.data[-1]["error"], "10 function calls")
            else:
                assert_refused(reply, "10 function calls")
        assert len(product.asked) == 2
        product.api.play(scenarios.calls(*["f"] * 10))
        reply = await product.ask(chat(tools=tools))
        assert len(reply.json["choices"][0]["message"]["tool_calls"]) == 10
        assert product.worker_pids() == [pid]


@ensureDeferred
async def test_a_stream_that_has_to_be_kept_is_ended() -> None:
    async with running_relay(**SETTINGS) as relay:
        relay.upstream.play(stream(*TOO_MUCH))
        body = {"model": "gemini-x", "input": "Hi", "stream": True}
        reply = await (await relay.send("POST", "/v1/responses", body)).reply()
        last = reply.body.decode().rstrip().rpartition("data: ")[2]
        failed = json.loads(last)
        assert failed["type"] == "response.failed"
        assert_too_large(failed["response"]["error"], "MAX_ANSWER")
