"""What relaying an upstream's answers costs: each function one kind of load, one round of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

from attrs import frozen

from bench.answers import Spec, WrongAnswer
from bench.contenders import Contender
from bench.load import Connection, Received, connections
from bench.numbers import Measures, percentile

_SIDE_BY_SIDE = 4
_RATE = 20
_RAMP = 1.5
_WINDOW = 5.0
_MEGABYTE = 1_000_000
_LARGE_CHUNK = 2000
# What the JSON around the text of a large chunk takes.
_FRAME = 200
_SLOW = 10 * _MEGABYTE


@frozen
class Load:
    """
    @ivar fits: whether a contender is to be tried.
    """

    name: str
    measure: Callable[[Contender], Awaitable[Measures]]
    fits: Callable[[Contender], bool] = lambda contender: True


async def _cpu_per_answer(contender: Contender, stream: bool) -> float:
    """Milliseconds of CPU for one answer of 20 chunks, a few side by side."""
    spec = Spec(20)
    target = contender.target
    request = target.request(spec.model, stream)
    count = contender.limits.answers // _SIDE_BY_SIDE
    clients = await connections(target.port, _SIDE_BY_SIDE)

    async def ask(connection: Connection, times: int) -> list[Received]:
        return [await connection.ask(request) for _ in range(times)]

    for client in clients:
        await ask(client, 2)
    before = contender.process.cost().cpu
    answers = await asyncio.gather(*(ask(client, count) for client in clients))
    spent = contender.process.cost().cpu - before
    for answer in (answer for some in answers for answer in some):
        answer.check(spec, stream)
    close(clients)
    return spent / (count * _SIDE_BY_SIDE) * 1000


async def small_answers(contender: Contender) -> Measures:
    if not contender.is_proxy:
        return {}
    return {
        "answer_ms": await _cpu_per_answer(contender, stream=False),
        "streamed_answer_ms": await _cpu_per_answer(contender, stream=True),
    }


def streams(count: int) -> Callable[[Contender], Awaitable[Measures]]:
    async def measure(contender: Contender) -> Measures:
        return await _streams(contender, count)

    return measure


async def _streams(contender: Contender, count: int) -> Measures:
    """Streams of 20 chunks a second side by side, begun one after the other."""
    spec = Spec(int((_RAMP + _WINDOW + 1.0) * _RATE), 40, 1000 // _RATE)
    request = contender.target.request(spec.model, True)
    clients = await connections(contender.target.port, count)
    begun = monotonic()

    async def ask(number: int) -> Received | None:
        await asyncio.sleep(_RAMP * 0.8 * number / count)
        try:
            return await clients[number].ask(request)
        except ConnectionError:
            return None

    asking = [asyncio.create_task(ask(number)) for number in range(count)]
    await asyncio.sleep(begun + _RAMP - monotonic())
    window = monotonic()
    before = contender.process.cost().cpu
    await asyncio.sleep(_WINDOW)
    spent = contender.process.cost().cpu - before
    end = monotonic()
    done, late = await asyncio.wait(asking, timeout=4 * _WINDOW)
    partial = [client.response for client in clients if client.response is not None]
    for task in late:
        task.cancel()
    answers = [answer for task in done if (answer := task.result()) is not None]
    whole = sum(is_whole(answer, spec) for answer in answers)
    delays = sorted(
        delay for answer in (*answers, *partial) for delay in answer.delays(window, end)
    )
    close(clients)
    return {
        "held": whole,
        "chunk_us": spent / len(delays) * 1e6 if delays and contender.is_proxy else None,
        "chunks_s": len(delays) / (end - window),
        "p50_ms": percentile(delays, 50, 1000),
        "p99_ms": percentile(delays, 99, 1000),
    }


def is_whole(answer: Received, spec: Spec) -> bool:
    try:
        answer.check(spec, True)
    except (WrongAnswer, ValueError):
        return False
    return True


async def first_content(contender: Contender) -> Measures:
    """One client, again and again; then 200 at the same moment, each on a new connection."""
    spec = Spec(3, 40, 5)
    target = contender.target
    request = target.request(spec.model, True)
    client = await Connection.open(target.port)
    alone = []
    for _ in range(min(150, contender.limits.answers)):
        answer = await client.ask(request)
        answer.check(spec, True)
        assert answer.first is not None
        alone.append(answer.first - answer.asked)
    client.close()
    together: list[float] = []
    for burst in range(4 if contender.limits.streams > 200 else 2):
        clients = await connections(target.port, 200)
        asked = [client.ask_only(request) for client in clients]
        answers = await asyncio.wait_for(asyncio.gather(*asked), 120)
        for answer in answers:
            answer.check(spec, True)
        if burst:
            together += [a.first - a.asked for a in answers if a.first is not None]
        close(clients)
        await asyncio.sleep(0.1)
    together.sort()
    return {
        "alone_ms": percentile(sorted(alone), 50, 1000),
        "together_p50_ms": percentile(together, 50, 1000),
        "together_p99_ms": percentile(together, 99, 1000),
    }


async def memory(contender: Contender) -> Measures:
    """Of a fresh process: idle, and with slow streams, as many as it is fit for."""
    if not contender.is_proxy:
        return {}
    warm = await Connection.open(contender.target.port)
    for stream in (False, True) * 5:
        await warm.ask(contender.target.request(Spec(20).model, stream))
    warm.close()
    count = min(3000, contender.limits.streams)
    spec = Spec(12, 40, 1000)
    idle = contender.process.cost().memory
    clients = await connections(contender.target.port, count)
    request = contender.target.request(spec.model, True)

    async def ask(number: int) -> Received:
        await asyncio.sleep(number / count * 4)
        return await clients[number].ask(request)

    asking = [asyncio.create_task(ask(number)) for number in range(count)]
    await asyncio.sleep(9)
    held = contender.process.cost().memory
    answers = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 120)
    whole = sum(isinstance(a, Received) and is_whole(a, spec) for a in answers)
    close(clients)
    return {
        "idle_mb": idle / _MEGABYTE,
        "slow_streams": count,
        "slow_streams_failed": count - whole,
        "stream_kb": (held - idle) / count / 1000,
    }


async def large_answer(contender: Contender) -> Measures:
    """One answer of many megabytes, streamed, not streamed, and streamed to a slow reader."""
    size = contender.limits.megabytes
    spec = Spec(size * _MEGABYTE // (_LARGE_CHUNK + _FRAME), _LARGE_CHUNK)
    quarter = Spec(spec.chunks // 4, _LARGE_CHUNK)
    await _large(contender, quarter, True)
    streamed = await _large(contender, spec, True)
    part = await _large(contender, quarter, True)
    whole = await _large(contender, spec, False)
    slow = await _large(contender, spec, True, _SLOW)
    return {
        "megabytes": size,
        "streamed_mb_s": streamed["mb_s"],
        "streamed_cpu_ms_mb": streamed["cpu_ms_mb"],
        "quarter_cpu_ms_mb": part["cpu_ms_mb"],
        "streamed_peak_mb": streamed["peak_mb"],
        "slow_reader_peak_mb": slow["peak_mb"],
        "document_mb_s": whole["mb_s"],
        "document_peak_mb": whole["peak_mb"],
    }


async def _large(
    contender: Contender, spec: Spec, stream: bool, bytes_per_second: float | None = None
) -> Measures:
    process = contender.process
    client = await Connection.open(contender.target.port)
    await asyncio.sleep(0.1)
    process.forget_peak()
    before = process.cost()
    request = contender.target.request(spec.model, stream)
    answer = await asyncio.wait_for(client.ask(request, bytes_per_second=bytes_per_second), 600)
    spent = process.cost().cpu - before.cpu
    peak = process.peak() - before.memory
    client.close()
    answer.check(spec, stream)
    assert answer.ended is not None
    size = len(answer.raw) / _MEGABYTE
    return {
        "mb_s": size / (answer.ended - answer.asked),
        "cpu_ms_mb": spent / size * 1000 if contender.is_proxy else None,
        "peak_mb": max(0.0, peak / _MEGABYTE) if contender.is_proxy else None,
    }


def close(clients: Sequence[Connection]) -> None:
    for client in clients:
        client.close()
    gc.collect()


LOADS = (
    # On a process that has done nothing yet, hence the first.
    Load("memory", memory),
    Load("small", small_answers),
    Load("streams_200", streams(200), lambda c: c.limits.streams >= 200),
    Load("streams_1000", streams(1000), lambda c: c.limits.streams >= 1000),
    Load("first", first_content),
    Load("large", large_answer),
)
