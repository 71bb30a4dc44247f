"""C{python -m bench}: measures, prints a table, and keeps the results of a whole run."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from bench import (
    accounts,
    console,
    dialects,
    engines,
    gemini,
    processes,
    relay,
    report,
    shared_limits,
    tracing,
    usage,
    watched,
)
from bench.contenders import ROOT, Contender, Unavailable, all_contenders, start_upstream
from bench.load import Target
from bench.numbers import Measures, medians
from testing.processes import Running

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "performance.md"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _machine() -> str:
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{os.cpu_count()} CPUs ({model}), {memory:.0f} GB, {platform.system()} "
        f"{platform.release().partition('-')[0]}, Python {platform.python_version()}; "
        "clients, proxies and upstream share it, on loopback"
    )


def _stop_and_start(contender: Contender, folder: Path, upstream: int) -> None:
    """After a breakdown, for the next load to find it as it was."""
    contender.stop()
    contender.run(folder, upstream)


async def _relay(
    folder: Path, names: list[str], loads: list[str], rounds: int, notes: list[str]
) -> report.Results:
    upstream, port = start_upstream(folder / "upstream")
    direct = Contender("direct", lambda *_: (upstream, port), is_proxy=False)
    direct.running, direct.target = upstream, Target(port)
    contenders = [direct]
    measured: dict[str, dict[str, list[Measures]]] = {}
    try:
        for contender in all_contenders():
            if names and contender.name.lower() not in names:
                continue
            try:
                await asyncio.to_thread(contender.run, folder, port)
            except (Unavailable, RuntimeError) as reason:
                contender.stop()
                notes.append(f"{contender.name} was left out: {reason}")
                continue
            contenders.append(contender)
        await asyncio.sleep(3)
        for load in relay.LOADS:
            if loads and load.name not in loads:
                continue
            # Only a fresh process can tell what it needs.
            for number in range(1 if load.name == "memory" else rounds):
                for contender in contenders:
                    if not load.fits(contender):
                        continue
                    _say(f"{load.name}, round {number + 1}: {contender.name}")
                    try:
                        measures = await load.measure(contender)
                    except Exception as error:
                        notes.append(f"{contender.name} broke down at {load.name}: {error!r:.200}")
                        _say(notes[-1])
                        if contender.is_proxy:
                            await asyncio.to_thread(_stop_and_start, contender, folder, port)
                        continue
                    _say(f"    {_brief(measures)}")
                    kept = measured.setdefault(contender.name, {}).setdefault(load.name, [])
                    kept.append(measures)
    finally:
        for contender in contenders:
            contender.stop()
    return {
        name: {load: medians(kept) for load, kept in by_load.items()}
        for name, by_load in measured.items()
    }


async def _dialects(folder: Path, rounds: int) -> report.Results:
    upstream, upstream_port = start_upstream(folder / "upstream")
    running, port = dialects.start(folder / "dialects", upstream_port)
    measured: dict[str, list[Measures]] = {name: [] for name in dialects.DIALECTS}
    try:
        await asyncio.sleep(3)
        for number in range(rounds):
            for name, kept in measured.items():
                _say(f"dialects, round {number + 1}: {name}")
                kept.append(await dialects.measure(running, port, name))
                _say(f"    {_brief(kept[-1])}")
    finally:
        running.stop()
        upstream.stop()
    return {name: medians(kept) for name, kept in measured.items()}


async def _engines(folder: Path, rounds: int, beside: Path | None) -> report.Results:
    measured: dict[str, list[Measures]] = {}
    for number in range(rounds):
        for version in engines.versions(beside):
            _say(f"engines, round {number + 1}: {version.name}")
            kept = measured.setdefault(version.name, [])
            kept.append(await engines.measure(version, folder / f"{version.name}-{number}"))
            _say(f"    {_brief(kept[-1])}")
    return {name: medians(kept) for name, kept in measured.items()}


async def _console(folder: Path, rounds: int, notes: list[str]) -> report.Results:
    upstream, port = start_upstream(folder / "upstream")
    [ours] = [contender for contender in all_contenders() if contender.name == "gemproxy"]
    measured: list[Measures] = []
    try:
        await asyncio.to_thread(ours.run, folder, port)
        await asyncio.sleep(3)
        for number in range(rounds):
            _say(f"console, round {number + 1}")
            measured.append(await console.measure(ours))
            _say(f"    {_brief(measured[-1])}")
    except Unavailable as reason:
        notes.append(f"The console was left out: {reason}")
    finally:
        ours.stop()
        upstream.stop()
    return {"gemproxy": medians(measured)} if measured else {}


async def _gemini(folder: Path, rounds: int) -> report.Results:
    ours: list[Measures] = []
    theirs: list[Measures] = []
    for number in range(rounds):
        _say(f"gemini, round {number + 1}: gemproxy")
        ours.append(await gemini.measure(folder / f"gemini-{number}"))
        _say(f"    {_brief(ours[-1])}")
        _say(f"gemini, round {number + 1}: one CLI process per request")
        theirs.append(await gemini.measure_processes(folder / f"cli-{number}"))
        _say(f"    {_brief(theirs[-1])}")
    return {"gemproxy": medians(ours), "a CLI process per request": medians(theirs)}


async def _usage(folder: Path, rounds: int) -> report.Results:
    """Daemons that record the usage and that do not, in turn; then a daemon with a million rows."""
    upstream, upstream_port = start_upstream(folder / "upstream")
    daemons = {
        name: usage.start(folder / name.replace(" ", "-"), upstream_port, days)
        for name, days in (("recorded", 90), ("not recorded", 0))
    }
    try:
        compared = await _compared("usage", daemons, rounds)
    finally:
        upstream.stop()
    (folder / "rows").mkdir()
    _say(f"usage: {usage.ROWS:,} rows")
    usage.fill(folder / "rows" / "data")
    running, port = usage.start(folder / "rows", upstream_port, 90)
    try:
        plots = await asyncio.to_thread(usage.ask, port)
    finally:
        running.stop()
    return compared | {"plots": medians([plots])}


async def _compared(
    part: str, daemons: Mapping[str, tuple[Running, int]], rounds: int
) -> report.Results:
    """What answers cost some daemons, in turn. They are ended."""
    try:
        return await _in_rounds(part, rounds, lambda: usage.compare(daemons))
    finally:
        for running, _ in daemons.values():
            running.stop()


async def _in_rounds(
    part: str, rounds: int, measure: Callable[[], Awaitable[Mapping[str, Measures]]]
) -> report.Results:
    """The medians of what each contender needs, who takes turns with the others in each round."""
    measured: dict[str, list[Measures]] = defaultdict(list)
    await asyncio.sleep(3)
    for number in range(rounds):
        _say(f"{part}, round {number + 1}")
        for name, measures in (await measure()).items():
            measured[name].append(measures)
            _say(f"    {name}: {_brief(measures)}")
    return {name: medians(kept) for name, kept in measured.items()}


async def _tracing(folder: Path, rounds: int) -> report.Results:
    """Daemons that send traces and that do not, in turn."""
    upstream, port = start_upstream(folder / "upstream")
    try:
        with tracing.collector() as url:
            daemons = {
                "traced": tracing.start(folder / "traced", port, url),
                "not traced": tracing.start(folder / "not-traced", port, None),
            }
            return await _compared("tracing", daemons, rounds)
    finally:
        upstream.stop()


async def _accounts(folder: Path, rounds: int) -> report.Results:
    """Daemons without keys, with an account, and with one that has limits, in turn."""
    upstream, port = start_upstream(folder / "upstream")
    try:
        with accounts.server(folder / "redis") as found:
            url = None if found is None else found[1]
            daemons = {
                name: accounts.start(
                    folder / name.replace(" ", "-"),
                    port,
                    limits,
                    url if name == accounts.SHARED else None,
                )
                for name, limits in accounts.KINDS.items()
                if url is not None or name != accounts.SHARED
            }
            return await _compared("accounts", daemons, rounds)
    finally:
        upstream.stop()


async def _watched(folder: Path, rounds: int) -> report.Results:
    upstream, upstream_port = start_upstream(folder / "upstream")
    contender = all_contenders()[0]
    try:
        await asyncio.to_thread(contender.run, folder, upstream_port)
        return await _in_rounds("watched", rounds, lambda: watched.measure(contender))
    finally:
        contender.stop()
        upstream.stop()


async def _processes(folder: Path, rounds: int, notes: list[str]) -> report.Results:
    """Daemons with one process and with several, in turn."""

    try:
        with processes.running(folder) as (upstream, daemons):
            for daemon in daemons:
                processes.check(daemon)
            orders = cycle((daemons, daemons[::-1]))
            measured = await _in_rounds(
                "processes",
                rounds * processes.ROUNDS,
                lambda: asyncio.to_thread(processes.measure, next(orders), upstream),
            )
    except Unavailable as reason:
        notes.append(f"Several processes were left out: {reason}")
        return {}
    for daemon in daemons:
        measured[daemon.name]["failed"] = daemon.failed
    [one, *_] = measured.values()
    return {
        "cores": processes.CORES,
        "measured": measured,
        "predicted": {
            daemon.name: processes.predicted(
                one, daemon.processes, measured[daemon.name]["others"] or 0.0
            )
            for daemon in daemons
        },
    }


def _limits(folder: Path, notes: list[str]) -> report.Results:
    """One round: the next one would find the burst used up."""
    try:
        with shared_limits.running(folder) as (replicas, server):
            _say("limits")
            return {"gemproxy": shared_limits.measure(replicas, server)}
    except Unavailable as reason:
        notes.append(f"Shared limits were left out: {reason}")
        return {}


def _brief(measures: Measures) -> str:
    known = ((name, value) for name, value in measures.items() if value is not None)
    return ", ".join(f"{name} {value:.4g}" for name, value in known)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "part",
        nargs="?",
        choices=(
            "all",
            "relay",
            "dialects",
            "usage",
            "accounts",
            "limits",
            "tracing",
            "watched",
            "processes",
            "gemini",
            "engines",
            "console",
        ),
        default="all",
        help="default: all",
    )
    parser.add_argument("--contenders", help="of the relay, comma separated; default: all")
    parser.add_argument("--loads", help=f"of {', '.join(load.name for load in relay.LOADS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--beside", type=Path, help="the folder of another version, for the engines"
    )
    parser.add_argument(
        "--save", action="store_true", help=f"keep what a partial run finds in {RESULTS.name}/ too"
    )
    given = parser.parse_args()
    names = [name.strip().lower() for name in (given.contenders or "").split(",") if name]
    loads = [name.strip() for name in (given.loads or "").split(",") if name]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()

    saved = RESULTS / "last.json"
    notes: list[str] = []
    measured: report.Results = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": _machine(),
        "rounds": given.rounds,
    }
    with tempfile.TemporaryDirectory(prefix="gemproxy-bench-") as temporary:
        folder = Path(temporary)
        if given.part in ("all", "relay"):
            measured["relay"] = asyncio.run(_relay(folder, names, loads, given.rounds, notes))
        if given.part in ("all", "dialects"):
            measured["dialects"] = asyncio.run(_dialects(folder, given.rounds))
        if given.part in ("all", "usage"):
            measured["usage"] = asyncio.run(_usage(folder / "usage", given.rounds))
        if given.part in ("all", "accounts"):
            measured["accounts"] = asyncio.run(_accounts(folder / "accounts", given.rounds))
        if given.part in ("all", "limits"):
            measured["limits"] = _limits(folder / "limits", notes)
        if given.part in ("all", "watched"):
            measured["watched"] = asyncio.run(_watched(folder / "watched", given.rounds))
        if given.part in ("all", "tracing"):
            measured["tracing"] = asyncio.run(_tracing(folder / "tracing", given.rounds))
        if given.part in ("all", "processes"):
            several = _processes(folder / "processes", given.rounds, notes)
            measured["processes"] = asyncio.run(several)
        if given.part in ("all", "gemini"):
            measured["gemini"] = asyncio.run(_gemini(folder, max(1, given.rounds - 1)))
        if given.part in ("all", "engines"):
            engines_measured = _engines(folder, given.rounds, given.beside)
            measured["engines"] = asyncio.run(engines_measured)
        if given.part in ("all", "console"):
            measured["console"] = asyncio.run(_console(folder, given.rounds, notes))
    measured["notes"] = notes
    if given.save or (given.part == "all" and not names and not loads):
        RESULTS.mkdir(exist_ok=True)
        kept = json.loads(saved.read_text()) if saved.exists() and given.part != "all" else {}
        results = kept | measured
        saved.write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "last.md").write_text(report.table(results))
        if measured.get("processes"):
            PAGE.write_text(report.with_processes(PAGE.read_text(), measured))
        (RESULTS / "last.svg").write_text(report.picture(results))
    print(report.table(measured))


if __name__ == "__main__":
    main()
