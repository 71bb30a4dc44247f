"""What a client hears while there is nothing to tell, and how long anybody may say nothing."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import deferLater

from testing.google import scenarios
from testing.google.recorded_request import Closed
from tests.support import Connection, Product, Reply, chat, running, shared_daemon

pytestmark = pytest.mark.both_engines(quick=False)

INTERVAL = 0.2
JSON_DELAY = 0.7
TIMEOUT = 2.0
# What a busy machine may be late by.
TOLERANCE = 0.15

shared_product = shared_daemon(
    "module",
    HEARTBEAT_INTERVAL=INTERVAL,
    JSON_HEARTBEAT_DELAY=JSON_DELAY,
    TIMEOUT=TIMEOUT,
    GEMINI_WORKERS=1,
    GEMINI_SESSIONS=1,
    RETRY_DELAY=1,
    MAX_RETRIES=2,
)


def silences(client: Connection, began: float) -> list[float]:
    times = [began, *(time for time, _ in client.arrivals)]
    return [later - earlier for earlier, later in pairwise(times)]


@ensureDeferred
async def test_a_streaming_client_never_waits_longer_than_the_interval(product: Product) -> None:
    product.api.play(
        scenarios.answer("One", " two", " three", delay=0.9, first_chunk_delay=0.5, pace=0.7)
    )
    began = reactor.seconds()
    client = await product.begin(chat("Hi", stream=True))
    reply = await client.reply()
    assert reply.content == "One two three"
    assert max(silences(client, began)) <= INTERVAL + TOLERANCE
    assert 8 <= len(reply.comments) <= 30


@ensureDeferred
async def test_a_heartbeat_is_a_comment_that_every_client_skips(product: Product) -> None:
    product.api.play(scenarios.answer("One", " two", delay=0.5, pace=0.5))
    reply = await product.ask(chat("Hi", stream=True))
    assert reply.comments
    assert all(re.fullmatch(r": heartbeat [ -~]+", comment) for comment in reply.comments)
    assert all(
        event.startswith((": ", "data: ")) for event in reply.body.decode().split("\n\n")[:-1]
    )
    assert reply.data[-1] == "[DONE]"


@ensureDeferred
async def test_a_lively_answer_needs_no_heartbeat(product: Product) -> None:
    product.api.play(scenarios.answer(*["word "] * 20, pace=INTERVAL / 4))
    assert (await product.ask(chat("Hi", stream=True))).comments == []


@ensureDeferred
async def test_a_heartbeat_says_what_is_going_on(product: Product) -> None:
    product.api.play(
        scenarios.error(503), scenarios.answer("One", delay=0.5), scenarios.answer("Two")
    )
    first = await product.begin(chat("Hi", stream=True))
    await first.until_received(b": heartbeat retry 1 of 2 in 1 s")
    await first.until_received(b": heartbeat waiting for the model")
    second = await product.begin(chat("Hi", stream=True))
    if product.worker_pids():
        await second.until_received(b": heartbeat waiting for a worker")
    assert [(await client.reply()).content for client in (first, second)] == ["One", "Two"]


@ensureDeferred
async def test_white_space_keeps_a_client_waiting_that_does_not_stream(product: Product) -> None:
    product.api.play(scenarios.answer("Hello", delay=1.5))
    began = reactor.seconds()
    client = await product.begin(chat())
    await client.when(lambda: client.received.endswith(b"\r\n\r\n1\r\n\n\r\n"))
    assert JSON_DELAY <= client.arrivals[0][0] - began <= JSON_DELAY + INTERVAL + TOLERANCE
    reply = await client.reply()
    assert reply.status == 200
    assert reply.content == "Hello"
    white, document, _ = reply.body.partition(reply.body.strip())
    assert set(white) == {0x0A}
    assert len(white) >= 3
    assert json.loads(document)["object"] == "chat.completion"
    assert max(silences(client, client.arrivals[0][0])) <= INTERVAL + TOLERANCE


@ensureDeferred
async def test_an_answer_before_the_white_space_is_a_plain_response(product: Product) -> None:
    product.api.play(scenarios.answer("Hello", delay=JSON_DELAY / 2))
    reply = await product.ask(chat())
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert reply.body.startswith(b"{")


@ensureDeferred
async def test_an_error_after_the_white_space_is_in_the_body(product: Product) -> None:
    product.api.play(scenarios.error(400, "Bad value.", delay=JSON_DELAY + 3 * INTERVAL))
    reply = await product.ask(chat())
    assert reply.status == 200
    assert reply.body.startswith(b"\n")
    assert reply.error["message"] == "Bad value."


@pytest.mark.cli
@ensureDeferred
async def test_white_space_can_be_off(tmp_path: Path) -> None:
    async with running(tmp_path, HEARTBEAT_INTERVAL=0.05, JSON_HEARTBEAT_DELAY="off") as product:
        product.api.play(scenarios.error(400, "Bad value.", delay=0.6))
        client = await product.begin(chat())
        reply = await client.reply()
        assert reply.status == 400
        assert reply.body.startswith(b"{")
        assert reply.headers["content-length"]


def assert_timed_out(error: dict[str, str]) -> None:
    assert (error["type"], error["code"]) == ("server_error", "upstream_timeout")
    assert f"{TIMEOUT:g} s" in error["message"]


@pytest.mark.cli
@pytest.mark.parametrize("after", [None, 0])
@ensureDeferred
async def test_a_silent_api_is_given_up(tmp_path: Path, after: int | None) -> None:
    async with running(tmp_path, TIMEOUT=TIMEOUT) as product:
        for stream in (False, True):
            product.api.play(scenarios.hang(after=after))
            began = reactor.seconds()
            reply = await product.ask(chat("Hi", stream=stream))
            assert TIMEOUT <= reactor.seconds() - began < TIMEOUT + 1.5
            assert reply.status == 504
            assert_timed_out(reply.error)
            assert await product.api.requests[-1].when_closed() is Closed.GONE
        assert len(product.asked) == 2
        await product.until_idle()
        assert product.session_files() == []


@ensureDeferred
async def test_an_api_that_falls_silent_is_given_up_with_an_error_event(product: Product) -> None:
    product.api.play(scenarios.hang("Half", " of it", after=1))
    reply = await product.ask(chat("Hi", stream=True))
    assert reply.status == 200
    assert reply.content == "Half"
    assert_timed_out(reply.data[-1]["error"])
    assert await product.asked[0].when_closed() is Closed.GONE


@ensureDeferred
async def test_a_slow_api_that_is_never_silent_for_long_is_not_given_up(product: Product) -> None:
    words = ["a ", "b ", "c ", "d"]
    product.api.play(scenarios.answer(*words, delay=TIMEOUT * 0.6, pace=TIMEOUT * 0.5))
    assert (await product.ask(chat("Hi", stream=True))).content == "a b c d"


@pytest.mark.of_workers
@ensureDeferred
async def test_waiting_for_a_worker_is_no_silence_of_the_api(product: Product) -> None:
    slow = scenarios.answer("a ", "b ", "c", pace=TIMEOUT * 0.6)
    product.api.play(slow, scenarios.answer("Hello"))
    first = await product.begin(chat("Hi", stream=True))
    await product.until_asked()
    second = await product.begin(chat("Hi", stream=True))
    assert (await first.reply()).content == "a b c"
    reply: Reply = await second.reply()
    assert reply.content == "Hello"


@ensureDeferred
async def test_no_heartbeat_follows_the_end(product: Product) -> None:
    product.api.play(scenarios.answer("Hello"))
    client = await product.begin(chat("Hi", stream=True))
    await client.reply()
    length = len(client.received)
    await deferLater(reactor, 3 * INTERVAL)
    assert len(client.received) == length
