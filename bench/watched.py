"""What a page that watches the daemon costs: the same loads with one open and without, in turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from bench.answers import Spec
from bench.contenders import Contender, Limits
from bench.load import connections
from bench.numbers import Measures, medians
from bench.relay import close, small_answers

NAMES = ("nobody watches", "one page is open")
# Chunks in a second.
_RATE = 20
# Seconds of a turn, and how many there are with a page and without.
_TURN, _TURNS = 3.0, 6
# Short ones, since the machine is never the same for long.
_ANSWER_TURNS, _ANSWERS = 14, 160


@asynccontextmanager
async def _page(port: int, is_open: bool) -> AsyncIterator[None]:
    """A page that reads all that it is told, as a browser does."""
    if not is_open:
        yield
        return
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /admin/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"event: state")

    async def read() -> None:
        while await reader.read(1 << 20):
            pass

    reading = asyncio.create_task(read())
    try:
        yield
    finally:
        reading.cancel()
        writer.close()


async def measure(contender: Contender) -> dict[str, Measures]:
    """One round, by L{NAMES}."""
    contender.limits = Limits(answers=_ANSWERS)
    answers: dict[str, list[Measures]] = {name: [] for name in NAMES}
    for number, name in [*enumerate(NAMES)] * _ANSWER_TURNS:
        async with _page(contender.target.port, bool(number)):
            answers[name].append(await small_answers(contender))
    measured = {name: medians(kept) for name, kept in answers.items()}
    chunks = await _shares(contender, 200, _RATE)
    many = await _shares(contender, 1000, 1)
    for name in NAMES:
        measured[name]["chunk_us"] = chunks[name] * 1e6 / (200 * _RATE)
        measured[name]["thousand_percent"] = many[name] * 100
    return measured


async def _shares(contender: Contender, count: int, rate: int) -> dict[str, float]:
    """
    What of a core the daemon takes while so many answers are under way, in turns, so that all that
    is different is the page.

    @param rate: chunks of each in a second.
    """
    seconds = 2 * _TURNS * _TURN + 10
    spec = Spec(int(seconds * rate), 40, 1000 // rate)
    request = contender.target.request(spec.model, True)
    clients = await connections(contender.target.port, count)
    asking = [asyncio.create_task(client.ask(request)) for client in clients]
    await asyncio.sleep(5)
    spent = dict.fromkeys(NAMES, 0.0)
    for turn in range(2 * _TURNS):
        name = NAMES[turn % 2]
        async with _page(contender.target.port, bool(turn % 2)):
            began, before = monotonic(), contender.process.cost().cpu
            await asyncio.sleep(_TURN)
            cpu = contender.process.cost().cpu - before
            spent[name] += cpu / (monotonic() - began) / _TURNS
    assert not any(task.done() for task in asking)
    for task in asking:
        task.cancel()
    close(clients)
    await asyncio.sleep(1)
    return spent
