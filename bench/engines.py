"""
What an answer of Gemini's costs by each way to it: C{python -m bench engines}.

The daemon as it is, beside itself with other settings, and beside another version of it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic

from attrs import field, frozen

from bench import relay
from bench.answers import Spec
from bench.contenders import (
    ROOT,
    Contender,
    gemproxy_environment,
    start_gemproxy,
    start_upstream,
)
from bench.gemini import (
    LONG,
    MARKER,
    MODEL,
    Route,
    ask,
    check,
    of_api,
    of_daemon,
    running,
    until_ready,
)
from bench.load import Target, connections
from bench.numbers import Measures
from testing.processes import Running, children, free_port, proportional_memory

CLI, NO_CLI = "CLI", "no CLI"
# What a program that asks as the CLI does, and does nothing else, costs in its place.
_LEAST, _LEAST_CLI = "least Node", ROOT / "bench" / "least_cli.mjs"
_SHORT = Spec(20, 0, 0)
_COLD_CLIENTS = 60
_ALONE = 100
_TOGETHER = 10
# Streams side by side.
_STREAMS = 200
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
    found = [
        Version(CLI),
        Version(NO_CLI, options={"gemini_engine": "direct"}),
        Version(_LEAST, options={"gemini_cli": str(_LEAST_CLI)}),
    ]
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
        measures |= {"grown_mb": await _growth(route)}
        # Node has compiled what it is used for by now.
        firsts, short = await _cost(route, _SHORT, 1, _ALONE)
        measures |= {"later_first_ms": (median(firsts) - median(own)) * 1000}
        measures |= {"later_short_cpu_ms": short["cpu_ms"]}
        workers = children(route.daemon.pid)
        measures |= {"workers": len(workers)}
        if workers:
            _, cli = route.costs()
            measures |= {
                "worker_mb": cli.memory / len(workers) / 1e6,
                "worker_own_mb": median(map(proportional_memory, workers)) / 1e6,
            }
    if version.name == NO_CLI:
        measures |= await _as_a_relay(version, folder / "relay")
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


async def _growth(route: Route) -> float:
    """By how many MB the daemon grows with many requests."""
    for _ in range(2):
        before, _ = route.costs()
        times = _MORE // _TOGETHER
        await ask(route.port, lambda: of_daemon(_SHORT), _SHORT, _TOGETHER, times, True)
        after, _ = route.costs()
    return (after.memory - before.memory) / 1e6


async def _as_a_relay(version: Version, folder: Path) -> Measures:
    """
    What a version does with the loads of the relay. The stand-in for Google would need more of the
    machine than the daemon, so the relay's upstream answers, in Google's words.
    """
    upstream, port = start_upstream(folder / "upstream")
    own = Contender("upstream", lambda *_: (upstream, port), is_proxy=False)
    own.running, own.target = upstream, Target(port)
    daemon = Contender(version.name, partial(_start, version))
    try:
        await asyncio.to_thread(daemon.run, folder, port)
        daemon.target = Target(daemon.target.port, gemini_model=MODEL)
        measures = await relay.small_answers(daemon)
        measures |= await relay.streams(_STREAMS)(daemon)
        theirs, ours = await relay.first_content(own), await relay.first_content(daemon)
    finally:
        daemon.stop()
        upstream.stop()
    together, by_upstream = ours["together_p50_ms"], theirs["together_p50_ms"]
    assert together is not None
    assert by_upstream is not None
    return {
        "answer_ms": measures["streamed_answer_ms"],
        "chunk_us": measures["chunk_us"],
        "at_once_p50_ms": together - by_upstream,
    }


def _start(version: Version, folder: Path, upstream: int) -> tuple[Running, int]:
    port = free_port()
    environ = gemproxy_environment(folder) | {"PYTHONPATH": str(version.root)}
    google = f"http://127.0.0.1:{upstream}"
    running = start_gemproxy(
        folder,
        environ,
        port=port,
        stream_port="off",
        google_gemini_base_url=google,
        **version.options,
    )
    return running, port


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
