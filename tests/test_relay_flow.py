"""How an answer flows: who waits for whom, who hears what meanwhile, and who is gone."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater

from gemproxy.web.heartbeat_timer import HeartbeatTimer
from testing.fake_newapi import (
    DONE,
    EVENT_STREAM,
    USAGE,
    Call,
    Script,
    answer,
    chunk,
    document,
    event,
    events,
    hang,
    head,
    headers_and_hang,
    in_http_chunks,
    stream,
    usage_chunk,
    verbatim,
)
from testing.google import scenarios
from tests.support import Connection, Relay, chat, gpt, running, running_relay

pytestmark = pytest.mark.slow

both_modes = pytest.mark.parametrize("wanted", [True, False])
MB = 1_000_000
INTERVAL = 0.2
# What a busy machine may be late by.
TOLERANCE = 0.25


async def quiet(call: Call, seconds: float = 0.4) -> int:
    """
    Wait until the fake cannot send any more; how much it has sent until then. On a busy machine
    time alone tells nothing: what counts is how often nothing was sent.
    """
    sent, looks = -1, 0
    while looks < seconds / 0.02:
        looks += 1
        if call.sent != sent:
            sent, looks = call.sent, 0
        await deferLater(reactor, 0.02)
    return sent


def memory() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def for_ever(call: Call) -> None:
    """Talks and talks."""
    await call.whole()
    await call.head(200, [EVENT_STREAM, ("Transfer-Encoding", "chunked")])
    piece = in_http_chunks([event("word " * 10)] * 20)
    while True:
        await call.send(piece)


def without_reading(first: Script | None = None) -> Script:
    async def script(call: Call) -> None:
        call.stop_reading()
        await call.when(lambda: False, 60)

    return script


# Clients that go:

STAGES = {
    "nothing was answered": hang(),
    "there are headers": headers_and_hang(),
    "in mid-answer": events(event("One"), event(" two"), then="hang"),
    "while it talks": for_ever,
    "in mid-event": events(event("One"), b'data: {"choices":', then="hang"),
    "in an error": verbatim(head(500, [("Content-Length", "100")]) + b"Half"),
    "in a document": verbatim(
        head(200, [("Content-Type", "application/json"), ("Content-Length", "100")]) + b'{"id":'
    ),
}


@pytest.mark.parametrize("stage", STAGES)
@both_modes
@ensureDeferred
async def test_the_upstream_is_closed_when_the_client_goes(
    relay: Relay, wanted: bool, stage: str
) -> None:
    relay.upstream.play(STAGES[stage])
    client = await relay.begin(gpt(stream=wanted))
    call = await relay.upstream.when_asked()
    await call.whole()
    if wanted and "mid" in stage:
        await client.until_received(b'"One"')
    else:
        await call.when(lambda: call.played or call.sent > 100_000)
    went = reactor.seconds()
    client.drop()
    assert await call.when_closed() - went < 3
    assert (await relay.ask(gpt(stream=wanted))).content == "Hello"


@both_modes
@ensureDeferred
async def test_a_client_that_hangs_up_politely_is_gone_as_well(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(hang())
    client = await relay.begin(gpt(stream=wanted))
    call = await relay.upstream.when_asked()
    client.transport.loseConnection()
    await call.when_closed(1)


@both_modes
@ensureDeferred
async def test_a_client_may_go_while_its_request_is_on_the_way(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(without_reading())
    client = await relay.begin(gpt("x" * 12 * MB, stream=wanted))
    call = await relay.upstream.when_asked()
    await quiet(call)
    client.drop()
    while not await relay.count_of("gemproxy_requests_total", 'status="499"'):
        await deferLater(reactor, 0.02)
    call.go_on_reading()
    await call.when_closed(1)
    assert not call.complete


@both_modes
@ensureDeferred
async def test_a_stalled_client_may_go(relay: Relay, wanted: bool) -> None:
    relay.upstream.play(for_ever if wanted else hang())
    client = await relay.begin(gpt(stream=wanted))
    client.transport.pauseProducing()
    call = await relay.upstream.when_asked()
    await quiet(call)
    went = reactor.seconds()
    client.drop()
    assert await call.when_closed() - went < 3


@both_modes
@ensureDeferred
async def test_a_client_may_go_between_heartbeats(wanted: bool) -> None:
    async with running_relay(HEARTBEAT_INTERVAL=0.1, JSON_HEARTBEAT_DELAY=0.1) as relay:
        relay.upstream.play(hang())
        client = await relay.begin(gpt(stream=wanted))
        await client.when(lambda: len(client.arrivals) > 2)
        client.drop()
        await relay.upstream.calls[0].when_closed(1)


@ensureDeferred
async def test_half_a_request_reaches_no_upstream(relay: Relay) -> None:
    client = await relay.connect()
    client.transport.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 99\r\n\r\n{")
    client.drop()
    assert (await relay.ask(gpt())).content == "Hello"
    assert len(relay.upstream.calls) == 1


@ensureDeferred
async def test_clients_that_go_leave_nothing_behind(relay: Relay) -> None:
    relay.upstream.always(for_ever)
    clients = [await relay.begin(gpt(stream=True)) for _ in range(20)]
    await gatherResults([client.when(lambda c=client: c.received) for client in clients])
    for client in clients:
        client.drop()
    for call in relay.upstream.calls:
        await call.when_closed(1)
    assert relay.upstream.connections == []
    assert await relay.count_of("gemproxy_requests_total", 'status="499"') == 20


# Clients that read slowly:


@ensureDeferred
async def test_a_stalled_client_stalls_the_upstream_and_costs_no_memory(relay: Relay) -> None:
    relay.upstream.play(for_ever)
    client = await relay.begin(gpt(stream=True))
    await client.until_received(b"word")
    client.transport.pauseProducing()
    call = relay.upstream.calls[0]
    sent = await quiet(call)
    # That is what the sockets' own buffers take.
    assert sent < 16 * MB
    before = memory()
    # A socket may find room for a little more.
    assert await quiet(call, 1.0) - sent < MB
    assert memory() - before < 4 * MB
    client.transport.resumeProducing()
    await call.when(lambda: call.sent > sent + 4 * MB)


@ensureDeferred
async def test_nothing_is_lost_on_a_client_that_stalls_now_and_then(relay: Relay) -> None:
    words = [f"{number} ".ljust(20_000, ".") for number in range(600)]
    relay.upstream.play(stream(*words))
    client = await relay.begin(gpt(stream=True))
    call = await relay.upstream.when_asked()
    for _ in range(3):
        client.transport.pauseProducing()
        await quiet(call, 0.2)
        length = len(client.received)
        client.transport.resumeProducing()
        await client.when(lambda length=length: len(client.received) > length + MB)
    assert (await client.reply()).content == "".join(words)


@ensureDeferred
async def test_a_stalled_client_is_no_silence_of_the_upstream() -> None:
    async with running_relay(TIMEOUT=0.5, HEARTBEAT_INTERVAL=0.1) as relay:
        words = ["." * 20_000] * 600
        relay.upstream.play(stream(*words))
        client = await relay.begin(gpt(stream=True))
        await client.until_received(b"..")
        client.transport.pauseProducing()
        await quiet(relay.upstream.calls[0], 1.5)
        client.transport.resumeProducing()
        reply = await client.reply()
        assert reply.data[-1] == "[DONE]"
        assert reply.content == "".join(words)
        # It would not have read them.
        assert len(reply.comments) <= 3


@both_modes
@ensureDeferred
async def test_a_connection_is_used_again_though_a_client_had_stalled_it(
    relay: Relay, wanted: bool
) -> None:
    long = "x" * 12 * MB
    body = in_http_chunks([b"".join(answer(long))])

    async def with_late_end(call: Call) -> None:
        await call.whole()
        await call.head(200, [EVENT_STREAM, ("Transfer-Encoding", "chunked")])
        await call.send(body)
        await quiet(call, 0.2)
        await call.send(b"0\r\n\r\n")
        call.end()

    relay.upstream.play(events(b"".join(answer(long))), with_late_end)
    for number in range(2):
        client = await relay.begin(gpt(stream=wanted))
        client.transport.pauseProducing()
        call = await relay.upstream.when_asked(number)
        await call.when(lambda call=call: call.finished)
        await quiet(call, 0.2)
        client.transport.resumeProducing()
        assert (await client.reply()).content == long
    began = reactor.seconds()
    assert (await relay.ask(gpt(stream=wanted))).content == "Hello"
    assert reactor.seconds() - began < 3
    assert len({id(call.connection) for call in relay.upstream.calls}) == 1


# What is large:


@both_modes
@ensureDeferred
async def test_a_request_of_ten_megabytes_passes_intact(relay: Relay, wanted: bool) -> None:
    body = gpt("Grüße 🎉 " * 800_000, stream=wanted)
    assert (await relay.ask(body)).content == "Hello"
    asked = relay.upstream.calls[0].json
    assert len(relay.upstream.calls[0].body) > 10 * MB
    assert asked["messages"] == body["messages"]


@pytest.mark.parametrize("pieces", [1, 2000])
@both_modes
@ensureDeferred
async def test_an_answer_of_ten_megabytes_passes_intact(
    relay: Relay, wanted: bool, pieces: int
) -> None:
    words = [f"<{n}>".ljust(10 * MB // pieces, "<") for n in range(pieces)]
    # What is cut at random is not cut at events.
    relay.upstream.play(stream(*words, cuts=range(0, 15 * MB, 65_521)))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.content == "".join(words)


@both_modes
@ensureDeferred
async def test_a_json_answer_of_twenty_megabytes_passes_intact(relay: Relay, wanted: bool) -> None:
    message = {"role": "assistant", "content": "é<" * 3 * MB}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    relay.upstream.play(document({"id": "x", "choices": [choice], "usage": USAGE}))
    reply = await relay.ask(gpt(stream=wanted))
    assert reply.content == message["content"]


@both_modes
@ensureDeferred
async def test_other_clients_are_served_while_a_large_answer_passes(
    relay: Relay, wanted: bool
) -> None:
    words = ["x" * 10_000] * 1000
    relay.upstream.play(stream(*words))
    large = await relay.begin(gpt(stream=wanted))
    await relay.upstream.when_asked()
    for _ in range(5):
        began = reactor.seconds()
        assert (await relay.ask(gpt(stream=True))).content == "Hello"
        assert reactor.seconds() - began < 3
    assert (await large.reply()).content == "".join(words)


# Heartbeats:


def silences(client: Connection, began: float) -> list[float]:
    return [b - a for a, b in pairwise([began, *(time for time, _ in client.arrivals)])]


def pausing(*given: Any, seconds: float = 0.5, before: float = 0.5) -> Script:
    """Silent before the headers, and after each event."""

    async def script(call: Call) -> None:
        await call.whole()
        await deferLater(reactor, before)
        await events(*given, pace=seconds)(call)

    return script


@ensureDeferred
async def test_a_streaming_client_never_waits_longer_than_the_interval() -> None:
    async with running_relay(HEARTBEAT_INTERVAL=INTERVAL) as relay:
        relay.upstream.play(pausing(*answer("One <dis", "tance")))
        began = reactor.seconds()
        client = await relay.begin(gpt(stream=True))
        reply = await client.reply()
        assert reply.content == "One <distance"
        assert max(silences(client, began)) <= INTERVAL + TOLERANCE
        assert all(text.startswith(": heartbeat ") for text in reply.comments)
        assert len(reply.comments) >= 8


@ensureDeferred
async def test_comments_of_the_upstream_do_not_keep_the_client_from_hearing_anything() -> None:
    async with running_relay(HEARTBEAT_INTERVAL=INTERVAL) as relay:
        pings = [b": PING\n\n"] * 12
        relay.upstream.play(events(event("One"), *pings, *answer(" two"), pace=0.06))
        began = reactor.seconds()
        client = await relay.begin(gpt(stream=True))
        reply = await client.reply()
        assert reply.content == "One two"
        assert max(silences(client, began)) <= INTERVAL + TOLERANCE


@pytest.mark.parametrize("kind", ["stream", "document"])
@ensureDeferred
async def test_a_client_that_does_not_stream_gets_white_space(kind: str) -> None:
    async with running_relay(HEARTBEAT_INTERVAL=INTERVAL, JSON_HEARTBEAT_DELAY=0.3) as relay:
        script = pausing(*answer("One", usage=True), seconds=0.3)
        if kind == "document":
            data = b'{"choices": [{"message": {"content": "One"}, "finish_reason": "stop"}]}'
            script = pausing(data[:30], data[30:], before=0.8)
        relay.upstream.play(script)
        began = reactor.seconds()
        client = await relay.begin(gpt())
        reply = await client.reply()
        assert reply.status == 200
        assert reply.content == "One"
        white = reply.body[: reply.body.index(b"{")]
        assert set(white) == {0x0A}
        assert len(white) >= 4
        first = client.arrivals[0][0]
        assert 0.3 <= first - began <= 0.3 + INTERVAL + TOLERANCE
        assert max(silences(client, first)) <= INTERVAL + TOLERANCE


@ensureDeferred
async def test_a_lively_answer_needs_no_heartbeat() -> None:
    async with running_relay(HEARTBEAT_INTERVAL=1) as relay:
        relay.upstream.play(stream(*["word "] * 12, pace=0.1))
        assert (await relay.ask(gpt(stream=True))).comments == []


@both_modes
@pytest.mark.parametrize("name", ["HEARTBEAT_INTERVAL", "EARLY_HEARTBEATS"])
@ensureDeferred
async def test_the_status_can_be_kept_for_an_error_before_the_first_data(
    name: str, wanted: bool
) -> None:
    settings: dict[str, Any] = {"HEARTBEAT_INTERVAL": 0.05, "JSON_HEARTBEAT_DELAY": 0.05}
    async with running_relay(**(settings | {name: "off"})) as relay:
        refused = document({"error": {"message": "Late."}}, 429)

        async def late(call: Call) -> None:
            await call.whole()
            await deferLater(reactor, 0.4)
            await refused(call)

        relay.upstream.play(late)
        reply = await relay.ask(gpt(stream=wanted))
        assert (reply.status, reply.error["message"]) == (429, "Late.")


@ensureDeferred
async def test_late_heartbeats_begin_with_the_first_data() -> None:
    settings = {"HEARTBEAT_INTERVAL": INTERVAL, "JSON_HEARTBEAT_DELAY": 0.05}
    async with running_relay(**settings, EARLY_HEARTBEATS="false") as relay:
        for wanted in (True, False):
            relay.upstream.play(pausing(*answer("One"), seconds=0.5, before=0.6))
            began = reactor.seconds()
            client = await relay.begin(gpt(stream=wanted))
            reply = await client.reply()
            assert reply.content == "One"
            first = client.arrivals[0][0]
            assert first - began >= 0.6
            assert max(silences(client, first)) <= INTERVAL + TOLERANCE
            beat = b": heartbeat" if wanted else b"\n"
            assert (beat in reply.body) and reply.body.startswith(beat) != wanted


@ensureDeferred
async def test_without_an_interval_there_are_no_heartbeats() -> None:
    async with running_relay(HEARTBEAT_INTERVAL="off", JSON_HEARTBEAT_DELAY=0.05) as relay:
        for wanted in (True, False):
            relay.upstream.play(pausing(*answer("One"), seconds=0.2, before=0.2))
            reply = await relay.ask(gpt(stream=wanted))
            assert reply.content == "One"
            assert not reply.comments
            assert reply.body.startswith(b"data: " if wanted else b"{")


@pytest.mark.parametrize(("interval", "timers"), [(None, 0), (1.0, 1)])
def test_without_an_interval_nobody_looks(interval: float | None, timers: int) -> None:
    class Waiting:
        def look(self) -> None:
            pass

    clock, waiting = Clock(), Waiting()
    timer = HeartbeatTimer(clock, interval)
    timer.add(waiting)
    assert len(clock.getDelayedCalls()) == timers
    timer.remove(waiting)
    assert clock.getDelayedCalls() == []


@pytest.mark.cli
@ensureDeferred
async def test_gemini_heartbeats(tmp_path: Path) -> None:
    settings = {"HEARTBEAT_INTERVAL": INTERVAL, "JSON_HEARTBEAT_DELAY": 0.3}
    async with running(tmp_path, **settings) as product:
        for wanted in (True, False):
            product.api.play(scenarios.answer("One", " two", delay=0.8, pace=0.5))
            began = reactor.seconds()
            client = await product.begin(chat("Hi", stream=wanted), port=product.stream_port)
            reply = await client.reply()
            assert reply.content == "One two"
            if not wanted:
                began = client.arrivals[0][0]
            assert max(silences(client, began)) <= INTERVAL + TOLERANCE


# Many:


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@ensureDeferred
async def test_three_hundred_streams_at_once(relay: Relay, many_files: None) -> None:
    all_there: Deferred[None] = Deferred()

    async def script(call: Call) -> None:
        await call.whole()
        if call.number == 299:
            all_there.callback(None)
        await call.head(200, [EVENT_STREAM, ("Transfer-Encoding", "chunked")])
        await call.send(in_http_chunks([event("0 ")]))
        if not all_there.called:
            waiter: Deferred[None] = Deferred()
            all_there.addCallback(waiter.callback)
            await waiter
        for number in range(1, 8):
            await call.send(in_http_chunks([event(f"{number} ")]))
        end = [event(chunk(finish="stop")), event(usage_chunk()), DONE]
        await call.send(in_http_chunks(end) + b"0\r\n\r\n")
        call.end()

    relay.upstream.always(script)
    bodies = [gpt(f"{n}", stream=n % 2 == 0) for n in range(300)]
    replies = await relay.ask_all(bodies)
    expected = "".join(f"{number} " for number in range(8))
    assert [reply.content for reply in replies] == [expected] * 300


@ensureDeferred
async def test_three_hundred_half_sent_requests_delay_no_other(
    relay: Relay, many_files: None
) -> None:
    halves = [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    ]
    for number in range(300):
        client = await relay.connect()
        client.transport.write(halves[number % 3])
    for wanted in (True, False):
        began = reactor.seconds()
        assert (await relay.ask(gpt(stream=wanted))).content == "Hello"
        assert reactor.seconds() - began < 3
    assert (await relay.get("/health")).status == 200
