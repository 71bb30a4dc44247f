"""Work in processes of its own: what it returns, and what becomes of it when that goes wrong."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from pickle import PicklingError
from typing import Any

import pytest
import treq
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from gemproxy.chat.errors import ChatError
from gemproxy.chat.json_limits import JsonLimits
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.request import is_large
from gemproxy.chat.sse import Event
from gemproxy.demo.answer import answer_to
from gemproxy.demo.server import Demo
from gemproxy.dialects.dialect import Dialect, DialectRequest, Translation
from gemproxy.dialects.registry import DIALECTS
from gemproxy.dialects.seal import Seal
from gemproxy.offload.frames import FrameReader, decode, encode
from gemproxy.offload.pool import Offload, OffloadLimits
from gemproxy.web.bodies import read_dialect
from testing.fake_newapi import chunk, usage_chunk
from tests.offloaded import end_by, environment, pid, refuse, reply, run_out_of_memory, unpicklable
from tests.support import until

pytestmark = pytest.mark.slow

BIG = bytes(range(256)) * 1000


@async_yield_fixture
async def offload() -> AsyncIterator[Offload]:
    one = Offload(reactor, OffloadLimits(processes=1, time=20.0, idle_life=30.0))
    one.startService()
    yield one
    await one.stopService()


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


VALUES = st.recursive(
    st.none() | st.integers() | st.binary(max_size=9) | st.just(BIG) | st.just(b"x" * 65536),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(VALUES, st.lists(st.integers(1, 100_000), max_size=4))
def test_a_frame_is_read_however_it_is_cut(value: Any, sizes: list[int]):
    frame = b"".join(encode(value))
    reader = FrameReader()
    for size in sizes:
        piece, frame = frame[:size], frame[size:]
        reader.feed(piece)
    if frame:
        assert reader.missing
        reader.feed(frame)
    assert not reader.missing
    assert decode(reader.pieces) == value


def test_nothing_comes_behind_a_frame():
    with pytest.raises(ValueError, match="more than one"):
        FrameReader().feed(b"".join(encode(1)) + b"x")


@ensureDeferred
async def test_arguments_and_results_are_those_of_a_call(offload: Offload) -> None:
    assert await offload.run(reply, 1, BIG, {"a": b"small"}) == (1, BIG, {"a": b"small"})
    large = b"0123456789abcdef" * 500_000
    assert await offload.run(reply, large, large) == (large, large)


@ensureDeferred
async def test_what_is_small_is_done_here(offload: Offload) -> None:
    assert await offload.when(False, pid) == os.getpid()
    first = await offload.when(True, pid)
    assert first != os.getpid()
    # The process serves the next one as well.
    assert await offload.when(True, pid) == first


@ensureDeferred
async def test_an_exception_is_that_of_the_call(offload: Offload) -> None:
    with pytest.raises(ChatError) as caught:
        await offload.run(refuse, "why")
    assert (caught.value.message, caught.value.param) == ("why", "param")
    for how in ("raised", "returned"):
        with pytest.raises((RuntimeError, AttributeError, PicklingError)):
            await offload.run(unpicklable, how)
    assert await offload.run(reply) == ()


def told(translation: Translation) -> tuple[Any, ...]:
    """What becomes of an answer."""
    (chat,) = translation.chats
    chunks = [chunk("It "), chunk("rains", finish="stop"), usage_chunk()]
    written = translation.form.events([Event(dumps(each)) for each in chunks])
    return chat, written, translation.form.end(), translation.record()


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@ensureDeferred
async def test_a_request_in_any_dialect_can_be_large(offload: Offload, dialect: Dialect) -> None:
    long = "x" * 1_100_000
    messages = [{"role": "user", "content": long}]
    texts = {
        "completions": {"prompt": long},
        "responses": {"input": long},
        "messages": {"messages": messages, "max_tokens": 9},
        "native": {"contents": [{"role": "user", "parts": [{"text": long}]}]},
    }
    raw = dumps(texts[dialect.name] | {"model": "m", "stream": True})
    assert is_large(raw)
    path = dialect.rules[0].encode()
    asked = DialectRequest(path, raw, "1", 0, Seal(b"secret"), keeps=True)
    translation = await offload.run(read_dialect, dialect, asked, JsonLimits())
    assert told(translation) == told(read_dialect(dialect, asked, JsonLimits()))


@ensureDeferred
async def test_the_demo_reads_large_requests_there(
    offload: Offload, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo: Any = Demo(reactor, offload)
    demo.startService()
    url = f"{demo.url}/v1beta/models/gemini-3.8-flash"
    contents = [{"role": "user", "parts": [{"text": "x" * 1_100_000}]}]
    body = dumps({"contents": contents})
    assert is_large(body)
    run, there = offload.run, []
    monkeypatch.setattr(offload, "run", lambda *call: there.append(call[0]) or run(*call))
    response = await treq.post(f"{url}:streamGenerateContent?alt=sse", body)
    text = await response.text()
    assert (response.code, there) == (200, [answer_to])
    # It is not repeated as a whole.
    assert '"finishReason":"MAX_TOKENS"' in text
    assert len(text) < 300_000
    await demo.stopService()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
@ensureDeferred
async def test_what_ends_a_process_is_not_called_again(offload: Offload, number: int) -> None:
    first = offload.run(end_by, number)
    second = offload.run(reply, 2)
    with pytest.raises(ChatError) as caught:
        await first
    assert (caught.value.status, caught.value.final) == (503, True)
    assert await second == (2,)


@ensureDeferred
async def test_what_takes_too_long_is_ended() -> None:
    offload = Offload(reactor, OffloadLimits(processes=1, time=2.5))
    with pytest.raises(ChatError, match="too complex") as caught:
        await offload.run(time.sleep, 60)
    assert caught.value.status == 400
    assert await offload.run(reply, 1) == (1,)
    await offload.stopService()


@ensureDeferred
async def test_work_that_nobody_waits_for_any_more_is_ended(offload: Offload) -> None:
    process = await offload.run(pid)
    running, waiting = offload.run(time.sleep, 60), offload.run(time.sleep, 60)
    after = offload.run(reply, 1)
    for one in (waiting, running):
        one.cancel()
        with pytest.raises(CancelledError):
            await one
    assert await after == (1,)
    assert not is_alive(process)


@ensureDeferred
async def test_a_process_is_kept_for_a_moment_only() -> None:
    offload = Offload(reactor, OffloadLimits(idle_life=0.05))
    process = await offload.run(pid)
    await until(lambda: not is_alive(process), "the process ends")
    await offload.stopService()


@ensureDeferred
async def test_a_stop_waits_for_what_is_under_way() -> None:
    offload = Offload(reactor)
    process = await offload.run(pid)
    running = offload.run(reply, 1)
    await offload.stopService()
    assert await running == (1,)
    assert not is_alive(process)


@ensureDeferred
async def test_a_process_does_not_know_the_keys_of_the_daemon(
    offload: Offload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "secret")
    assert "GEMINI_API_KEY" not in await offload.run(environment)


@ensureDeferred
async def test_too_little_memory_is_an_error_of_its_own(offload: Offload) -> None:
    with pytest.raises(ChatError, match="too little memory"):
        await offload.run(run_out_of_memory)
    assert await offload.run(reply) == ()


@ensureDeferred
async def test_without_a_process_there_is_an_error() -> None:
    class NoDescriptors(Clock):
        def spawnProcess(self, *args: Any, **kwargs: Any) -> None:
            raise OSError(24, "Too many open files")

    offload = Offload(NoDescriptors())
    for _ in range(3):
        with pytest.raises(ChatError) as caught:
            await offload.run(reply)
        assert caught.value.status == 503
