"""A client that goes takes its request with it, at whatever stage that is."""

from __future__ import annotations

import os
import signal

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import deferLater

from testing.google import scenarios
from testing.google.recorded_request import Closed
from tests.support import Connection, Product, chat, shared_daemon, until

pytestmark = pytest.mark.both_engines

SESSIONS = 2

shared_product = shared_daemon(
    "module", GEMINI_WORKERS=1, GEMINI_SESSIONS=SESSIONS, RETRY_DELAY=0.4, HEARTBEAT_INTERVAL=0.1
)


async def drop(product: Product, client: Connection, number: int = 1) -> None:
    """The client goes, and the API's connection with it; a slow machine gets twice its second."""
    asked = await product.until_asked(number)
    began = reactor.seconds()
    client.drop()
    closed = asked.when_closed()
    closed.addTimeout(10, reactor)
    assert await closed is Closed.GONE
    assert reactor.seconds() - began < 3


async def assert_nothing_is_left(product: Product) -> None:
    """Neither on disk nor in the worker, which is as good as before."""
    pids = product.worker_pids()
    await product.until_idle()
    assert product.session_files() == []
    assert product.temp_files() == []
    product.api.play(scenarios.answer("still here"))
    assert (await product.ask(chat())).content == "still here"
    assert product.worker_pids() == pids


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_before_the_api_answers(product: Product, stream: bool) -> None:
    product.api.play(scenarios.hang())
    client = await product.begin(chat("Hi", stream=stream))
    await product.until_asked()
    await drop(product, client)
    await assert_nothing_is_left(product)


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_between_the_api_s_headers_and_its_first_chunk(
    product: Product, stream: bool
) -> None:
    product.api.play(scenarios.hang(after=0))
    client = await product.begin(chat("Hi", stream=stream))
    asked = await product.until_asked()
    await until(lambda: asked.first_byte_time, "the headers are out")
    await drop(product, client)
    await assert_nothing_is_left(product)


@ensureDeferred
async def test_in_the_middle_of_a_streamed_answer(product: Product) -> None:
    product.api.play(scenarios.hang("One ", "two ", "three", after=2))
    client = await product.begin(chat("Hi", stream=True))
    await client.until_received(b"two ")
    await drop(product, client)
    await assert_nothing_is_left(product)


@ensureDeferred
async def test_in_the_middle_of_an_answer_that_is_being_collected(product: Product) -> None:
    product.api.play(scenarios.hang("One ", "two ", "three", after=2))
    client = await product.begin(chat("Hi"))
    asked = await product.until_asked()
    await until(lambda: asked.first_chunk_time, "the answer has begun")
    await drop(product, client)
    await assert_nothing_is_left(product)


@ensureDeferred
async def test_while_an_answer_pours_in(product: Product) -> None:
    product.api.play(scenarios.answer(*["words " * 1000] * 5000, pace=0.001))
    client = await product.begin(chat("Hi", stream=True))
    await client.when(lambda: len(client.received) > 100_000)
    await drop(product, client)
    await assert_nothing_is_left(product)


@ensureDeferred
async def test_after_a_heartbeat(product: Product) -> None:
    product.api.play(scenarios.hang())
    client = await product.begin(chat("Hi", stream=True))
    await client.until_received(b": heartbeat")
    await drop(product, client)
    await assert_nothing_is_left(product)


@pytest.mark.of_workers
@ensureDeferred
async def test_while_the_session_is_set_up(product: Product) -> None:
    (member,) = product.daemon.pool._members
    for _ in range(3):
        member.sessions._resting.clear()
        os.kill(member.worker.pid, signal.SIGSTOP)
        client = await product.begin(chat("Hi"))
        await until(lambda: member.sessions._waiting, "it waits for a session")
        client.drop()
        await until(lambda: not product.daemon._admission.open, "it is noticed")
        assert product.busy() == 1
        os.kill(member.worker.pid, signal.SIGCONT)
        await until(lambda: not product.busy(), "it has given the worker back")
    assert product.asked == []
    # The session is as good as new.
    await until(lambda: not member.sessions._opening, "no other is being opened")
    opened = member.worker.opened
    await assert_nothing_is_left(product)
    assert member.worker.opened == opened


@pytest.mark.of_workers
@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_while_it_waits_for_a_worker(product: Product, stream: bool) -> None:
    product.api.play(*[scenarios.hang()] * SESSIONS)
    busy = [await product.begin(chat("Hi")) for _ in range(SESSIONS)]
    await product.until_asked(SESSIONS)
    waiting = await product.begin(chat("Hi", stream=stream))
    await until(lambda: product.daemon.pool.queued() == 1, "it waits")
    waiting.drop()
    await until(lambda: product.daemon.pool.queued() == 0, "it waits no longer", seconds=1)
    for client in busy:
        client.drop()
    await product.until_idle()
    assert len(product.asked) == SESSIONS
    await assert_nothing_is_left(product)


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_between_two_tries(product: Product, stream: bool) -> None:
    product.api.play(scenarios.error(503))
    client = await product.begin(chat("Hi", stream=stream))
    asked = await product.until_asked()
    await asked.when_closed()
    await product.until_idle()
    client.drop()
    # Longer than the delay before the try that must not come.
    await deferLater(reactor, 0.8)
    assert len(product.asked) == 1
    await assert_nothing_is_left(product)


@ensureDeferred
async def test_one_client_that_goes_leaves_the_others_of_its_worker_alone(
    product: Product,
) -> None:
    product.api.play(scenarios.hang(), scenarios.answer("One", " two", " three", pace=0.3))
    goes = await product.begin(chat("Hi"))
    await product.until_asked(1)
    stays = await product.begin(chat("Hi", stream=True))
    await stays.until_received(b"One")
    goes.drop()
    assert (await stays.reply()).content == "One two three"
    await assert_nothing_is_left(product)


@pytest.mark.parametrize("thinks", [False, True])
@ensureDeferred
async def test_nobody_asks_again_for_a_client_that_has_gone(product: Product, thinks: bool) -> None:
    """What it has seen of the answer, if anything, is no content yet: it could be begun anew."""
    thought = {"text": "Hm.", "thought": True}
    product.api.play(
        scenarios.Scenario(((thought,), (thought,)), fault=scenarios.hang("x", after=1).fault)
        if thinks
        else scenarios.hang("x", after=0)
    )
    client = await product.begin(chat("Hi", stream=True))
    if thinks:
        await client.until_received(b"Hm.")
    await drop(product, client)
    # A retry would come after 0.4 s.
    await deferLater(reactor, 0.6)
    assert len(product.asked) == 1
