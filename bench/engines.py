"""
What an answer of Gemini's costs by each way to it: C{python -m bench engines}.

The daemon as it is, beside itself with other settings, and beside another version of it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from time import monotonic

from attrs import field, frozen

from bench.answers import Spec
from bench.contenders import ROOT
from bench.gemini import (
    LONG,
    MARKER,
    Route,
    ask,
    check,
    of_api,
    of_daemon,
    running,
    until_ready,
)
from bench.load import connections
from bench.numbers import Measures
from testing.processes import children, proportional_memory

CLI, NO_CLI = "CLI", "no CLI"
_SHORT = Spec(20, 0, 0)
_COLD_CLIENTS = 60
_ALONE = 100
_TOGETHER = 10
# Clients that ask at once, and streams side by side.
_AT_ONCE = 200
_STREAMS = 50
# Requests after which a daemon needs no more memory than before.
_MORE = 1000


@frozen
class Version:
    """
    @ivar root: the folder with its code.
    @ivar options: of twistd, beside the bench's own.
    """

    name: str
    root: Path = ROOT
    options: dict[str, str] = field(factory=dict)


def versions(beside: Path | None) -> list[Version]:
    """@param beside: the folder of another version to compare with."""
    found = [Version(CLI), Version(NO_CLI, options={"gemini_engine": "direct"})]
    return found + ([Version("CLI, before", beside)] if beside is not None else [])


async def measure(version: Version, folder: Path) -> Measures:
    """One round of a version, from a fresh start."""
    with running(folder, version.root, **version.options) as route:
        measures = await _cold(route)
        await asyncio.to_thread(until_ready, route.port)
        await ask(route.port, lambda: of_daemon(_SHORT), _SHORT, 1, 10, True)
        own = await ask(route.api_port, lambda: of_api(_SHORT), _SHORT, 1, _ALONE, False)
        firsts, short = await _cost(route, _SHORT, 1, _ALONE)
        _, long = await _cost(route, LONG, _TOGETHER, 2)
        measures |= {"first_ms": (median(firsts) - median(own)) * 1000}
        measures |= {f"short_{name}": value for name, value in short.items()}
        measures |= {f"long_{name}": value for name, value in long.items()}
        measures |= await _many(route)
        workers = children(route.daemon.pid)
        measures |= {"workers": len(workers)}
        if workers:
            _, cli = route.costs()
            measures |= {
                "worker_mb": cli.memory / len(workers) / 1e6,
                "worker_own_mb": median(map(proportional_memory, workers)) / 1e6,
            }
    return measures


async def _cold(route: Route) -> Measures:
    """Clients that ask all at once while no worker is ready yet."""
    opened = await connections(route.port, _COLD_CLIENTS)
    begun = monotonic()

    async def one(number: int) -> float:
        answer = await opened[number].ask(of_daemon(_SHORT), MARKER)
        check(answer, _SHORT, True)
        assert answer.first is not None
        return answer.first - begun

    firsts = sorted(await asyncio.gather(*map(one, range(_COLD_CLIENTS))))
    for client in opened:
        client.close()
    _, cli = route.costs()
    return {
        "cold_first_ms": firsts[0] * 1000,
        "cold_p50_ms": median(firsts) * 1000,
        "cold_last_ms": firsts[-1] * 1000,
        "cold_cli_cpu_s": cli.cpu,
        "cold_workers": len(children(route.daemon.pid)),
    }


async def _many(route: Route) -> Measures:
    """Many clients at once, many streams side by side, and many requests one after the other."""
    await ask(route.port, lambda: of_daemon(_SHORT), _SHORT, _AT_ONCE, 1, True)
    own = await ask(route.api_port, lambda: of_api(_SHORT), _SHORT, _AT_ONCE, 3, False)
    firsts = await ask(route.port, lambda: of_daemon(_SHORT), _SHORT, _AT_ONCE, 3, True)
    _, streams = await _cost(route, LONG, _STREAMS, 1)
    before, _ = route.costs()
    await ask(route.port, lambda: of_daemon(_SHORT), _SHORT, _TOGETHER, _MORE // _TOGETHER, True)
    after, _ = route.costs()
    return {
        "at_once_p50_ms": (median(firsts) - median(own)) * 1000,
        "chunk_us": streams["cpu_ms"] * 1000 / LONG.chunks,
        "grown_mb": (after.memory - before.memory) / 1e6,
    }


async def _cost(route: Route, spec: Spec, clients: int, times: int) -> tuple[list[float], Measures]:
    """Seconds to the first content, and milliseconds of CPU for an answer."""
    daemon, cli = route.costs()
    firsts = await ask(route.port, lambda: of_daemon(spec), spec, clients, times, True)
    daemon_after, cli_after = route.costs()
    count = clients * times
    spent = (daemon_after.cpu - daemon.cpu) / count * 1000
    spent_by_cli = (cli_after.cpu - cli.cpu) / count * 1000
    return firsts, {
        "cpu_ms": spent + spent_by_cli,
        "daemon_cpu_ms": spent,
        "cli_cpu_ms": spent_by_cli,
    }
