"""What recording the usage costs a request, and how long a million rows take to answer."""

from __future__ import annotations

import asyncio
import http.client
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median

from bench import dialects
from bench.answers import Spec
from bench.load import Connection
from bench.numbers import Measures
from gemproxy.usage import tables
from gemproxy.usage.recorder import FILE, WRITE_DELAY
from gemproxy.usage.row import Row, bucket_of
from testing.processes import Running

ROWS = 1_000_000
DAYS = 90
_ACCOUNTS, _MODELS, _UPSTREAMS = 20, 10, 2
_BATCH = 50_000
# Small answers, and long ones, in each turn of a daemon.
_TURNS, _ANSWERS, _LONG_ANSWERS = 20, 50, 10
_SHORT, _LONG = Spec(20), Spec(400)
_TIMES = 7
_PLOTS = {
    "days_ms": "by=day&from=90d",
    "days_by_model_ms": "by=day,model&from=90d",
    "days_by_account_ms": "by=day,account&from=90d",
    "totals_ms": "by=account,model&from=90d",
    "hours_ms": "by=hour,model&from=24h",
    "minutes_ms": "by=minute,model&from=60m",
}
_PRICES = """
[prices]
as_of = 2026-11-28
per_million = [{ models = ["*"], input = 1.0, output = 2.0 }]
"""


def start(folder: Path, upstream: int, days: int) -> tuple[Running, int]:
    """A daemon that records for so many days, and its port."""
    return dialects.start(folder, upstream, _PRICES, data_dir=folder / "data", usage_days=days)


async def compare(daemons: Mapping[str, tuple[Running, int]]) -> dict[str, Measures]:
    """
    What an answer costs each of some daemons, which are asked in turn. What they do afterwards is
    part of it, such as writing rows.
    """
    clients = {name: await Connection.open(port) for name, (_, port) in daemons.items()}

    async def cost(spec: Spec, stream: bool, answers: int) -> dict[str, float]:
        """Milliseconds of CPU for an answer."""
        requests = {
            name: dialects.DIALECTS["chat"].request(port, spec, stream)
            for name, (_, port) in daemons.items()
        }
        before = {name: running.cost().cpu for name, (running, _) in daemons.items()}
        for _ in range(_TURNS):
            for name, client in clients.items():
                for _ in range(answers):
                    await client.ask(requests[name])
        await asyncio.sleep(2 * WRITE_DELAY)
        spent = {name: running.cost().cpu - before[name] for name, (running, _) in daemons.items()}
        return {name: cpu / answers / _TURNS * 1000 for name, cpu in spent.items()}

    # The first ones warm up.
    await cost(_SHORT, True, 10)
    document = await cost(_SHORT, False, _ANSWERS)
    streamed = await cost(_SHORT, True, _ANSWERS)
    long = await cost(_LONG, True, _LONG_ANSWERS)
    for client in clients.values():
        client.close()
    chunks = _LONG.chunks - _SHORT.chunks
    return {
        name: {
            "answer_ms": document[name],
            "streamed_answer_ms": streamed[name],
            "chunk_us": (long[name] - streamed[name]) / chunks * 1000,
        }
        for name in daemons
    }


def fill(folder: Path) -> None:
    """Make the file of a daemon with as many rows as are asked about, as it would have made it."""
    folder.mkdir()
    rows = _rows(random.Random(1))
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            ";".join(tables.MIGRATIONS) + f"; PRAGMA user_version = {len(tables.MIGRATIONS)}"
        )
        while batch := [*islice(rows, _BATCH)]:
            with connection:
                tables.write(connection, batch)


def _rows(chance: random.Random) -> Iterator[Row]:
    """In the order of their times, evenly over the days until now."""
    end = time.time()
    for number in range(ROWS):
        first = chance.lognormvariate(-0.5, 0.8)
        tokens, model = chance.randrange(10, 5000), chance.randrange(_MODELS)
        yield Row(
            time=end - DAYS * tables.DAY * (1 - number / ROWS),
            account=f"account-{chance.randrange(_ACCOUNTS)}",
            model=f"model-{model}",
            upstream=f"upstream-{model % _UPSTREAMS}",
            status=500 if chance.random() < 0.02 else 200,
            finish="stop",
            input=tokens,
            cached=tokens // 3,
            output=tokens // 2,
            reasoning=tokens // 4,
            first_token=first,
            bucket=bucket_of(first),
            duration=4 * first,
            retries=0,
            cost=tokens / 1e6,
            id=f"{number:016x}",
        )


def ask(port: int) -> Measures:
    """Milliseconds for each plot, from the request to the last byte."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def took(query: str) -> float:
        began = time.perf_counter()
        connection.request("GET", f"/admin/usage?{query}")
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return (time.perf_counter() - began) * 1000

    with closing(connection):
        return {name: median(_repeated(took, query)) for name, query in _PLOTS.items()}


def _repeated(took: Callable[[str], float], query: str) -> list[float]:
    # The first answer reads the file.
    return [took(query) for _ in range(_TIMES + 1)][1:]
