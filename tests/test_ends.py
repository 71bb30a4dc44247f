"""Where an upstream's answer ends, and what is no end."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import deferLater

from gemproxy.service import Patience
from testing.fake_newapi import (
    DONE,
    USAGE,
    Call,
    chunk,
    document,
    event,
    events,
    in_http_chunks,
    usage_chunk,
)
from tests.support import Relay, gpt

pytestmark = pytest.mark.slow

both_modes = pytest.mark.parametrize("wanted", [True, False])


@pytest.fixture
def patience() -> Patience:
    return Patience(finish=0.3)


@pytest.mark.parametrize(
    "given",
    [
        [DONE],
        [b": PING\n\n", DONE],
        [event(usage_chunk()), DONE],
        [event("One"), DONE],
        [event("One"), event(usage_chunk()), DONE],
        [event(chunk("One", finish="")), DONE],
        [event(chunk("A", finish="stop")), event(chunk("B", index=1)), DONE],
    ],
)
@both_modes
@ensureDeferred
async def test_done_without_an_end_of_the_answer_is_a_broken_one(
    relay: Relay, wanted: bool, given: list[bytes]
) -> None:
    relay.upstream.play(events(*given))
    reply = await relay.ask(gpt(stream=wanted))
    has_begun = wanted and len(given) > 1 and b"chatcmpl" in given[0]
    assert reply.status == (200 if has_begun else 502)
    error = reply.data[-1]["error"] if has_begun else reply.error
    assert error["code"] == "upstream_error"
    assert b"data: [DONE]" not in reply.body


@both_modes
@ensureDeferred
async def test_a_document_without_choices_is_a_broken_answer(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(document({"object": "chat.completion", "choices": [], "usage": USAGE}))
    assert (await relay.ask(gpt(stream=wanted))).status == 502


@both_modes
@ensureDeferred
async def test_silence_after_the_finish_reasons_is_the_end(relay: Relay, wanted: bool) -> None:
    given = [event("One"), event(chunk(finish="stop")), event(usage_chunk()), b": PING\n\n"]
    relay.upstream.play(events(*given, then="hang"))
    began = reactor.seconds()
    reply = await relay.ask(gpt(stream=wanted))
    assert 0.3 <= reactor.seconds() - began < 3
    assert (reply.status, reply.content) == (200, "One")
    if wanted:
        assert reply.data[-1] == "[DONE]"
    else:
        assert reply.json["usage"] == USAGE
    await relay.upstream.calls[0].when_closed(2)


@both_modes
@ensureDeferred
async def test_comments_do_not_put_the_end_off(relay: Relay, wanted: bool) -> None:
    async def script(call: Call) -> None:
        await call.whole()
        await call.head(200, [("Transfer-Encoding", "chunked")])
        await call.send(in_http_chunks([event("One"), event(chunk(finish="stop"))]))
        while call.closed is None:
            await call.send(in_http_chunks([b": PING\n\n"]))

    relay.upstream.play(script)
    assert (await relay.ask(gpt(stream=wanted))).content == "One"


@both_modes
@ensureDeferred
async def test_a_choice_that_has_not_begun_is_waited_for(relay: Relay, wanted: bool) -> None:
    async def script(call: Call) -> None:
        await call.whole()
        await call.head(200, [("Transfer-Encoding", "chunked")])
        await call.send(in_http_chunks([event(chunk("A", finish="stop"))]))
        await other
        await call.send(in_http_chunks([event(chunk("B", "stop", index=1)), DONE]) + b"0\r\n\r\n")
        call.end()

    other = deferLater(reactor, 0.6)
    relay.upstream.play(script)
    assert b'"B"' in (await relay.ask(gpt(stream=wanted, n=2))).body


@ensureDeferred
async def test_a_client_that_reads_slowly_is_no_silence(relay: Relay) -> None:
    text = "x" * 8_000_000
    given = [event(chunk("One", finish="stop")), *[event(text)] * 3, event("The end"), DONE]
    relay.upstream.play(events(*given))
    connection = await relay.begin(gpt(stream=True))
    await connection.until_received(b"One")
    connection.transport.pauseProducing()
    await deferLater(reactor, 0.6)
    connection.transport.resumeProducing()
    assert b"The end" in (await connection.reply()).body


@pytest.mark.parametrize("framing", ["chunked", "length"])
@both_modes
@ensureDeferred
async def test_text_and_a_proper_end_are_an_answer(
    relay: Relay, wanted: bool, framing: str
) -> None:
    given = [event("One"), event(chunk(" two", finish="")), event(usage_chunk())]
    relay.upstream.play(events(*given, framing=framing))
    reply = await relay.ask(gpt(stream=wanted))
    assert (reply.status, reply.content) == (200, "One two")
    if wanted:
        *_, end, done = reply.data
        assert done == "[DONE]"
        assert end["id"] == "chatcmpl-1"
        [choice] = end["choices"]
    else:
        [choice] = reply.json["choices"]
        assert reply.json["usage"] == USAGE
    assert choice["finish_reason"] == "stop"
    assert [text for text in relay.warnings if "gpt-x" in text and "finish_reason" in text]


@pytest.mark.parametrize(
    ("given", "framing"),
    [
        ([event("One")], "close"),
        ([event("One"), event("two")[:-9]], "chunked"),
        ([event(chunk(delta={"reasoning_content": "Hm."}))], "chunked"),
        ([event("One"), event(chunk(delta={"tool_calls": [{"index": 0}]}))], "chunked"),
        ([event(chunk("A", finish="stop")), event(chunk("B", index=1))], "chunked"),
        ([event(usage_chunk())], "chunked"),
        ([], "chunked"),
    ],
)
@ensureDeferred
async def test_what_may_be_cut_is_no_answer(relay: Relay, given: list[bytes], framing: str) -> None:
    relay.upstream.play(events(*given, framing=framing))
    assert (await relay.ask(gpt())).status == 502
