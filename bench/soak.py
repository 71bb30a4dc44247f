"""
C{python -m bench.soak}: many requests, one after the other and side by side, and what they leave.

A daemon in a process of its own relays 20,000 requests, and has 20,000 answered by Gemini, through
the real CLI or not. Every answer must be the right one, though workers are retired and replaced
meanwhile, and memory and descriptors must not grow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from testing.trial.course import Course, census_lines
from testing.trial.daemon import Census, Margins

SETTINGS = {
    "TIMEOUT": 600,
    "HEARTBEAT_INTERVAL": 15,
    "LOG_KEEP": 20,
    "MAX_RETRIES": 0,
    "GEMINI_WORKERS": 2,
    "DRAIN": 10,
}
# What the allocator takes until some tens of thousands of requests are over; then it is flat.
MARGINS = Margins(memory=12 * 1024 * 1024)
RELAY = {"other": 9, "passed": 1}
CLI = {"gemini": 1}
_STEPS = 10
_STUCK = 60.0


class Soak:
    """@ivar workers: all that there have been."""

    def __init__(self, reactor: Any, folder: Path, clients: int, engine: str) -> None:
        settings = SETTINGS | {"GEMINI_ENGINE": engine}
        self.course = Course(reactor, folder, 1, settings, MARGINS)
        self.workers: set[int] = set()
        self._clients = clients
        self._left = 0

    async def run(self, relayed: int, answered: int) -> tuple[Census, Census]:
        """Returns what there was after the first tenth of each, and after all."""
        await self.course.daemon.until_ready()
        await self._ask(relayed // _STEPS, RELAY)
        await self._ask(answered // _STEPS, CLI)
        before = await self.course.calm()
        for _ in range(1, _STEPS):
            await self._ask(relayed // _STEPS, RELAY)
            _say("relayed", await self.course.calm())
        for _ in range(1, _STEPS):
            await self._ask(answered // _STEPS, CLI)
            _say("answered", await self.course.calm())
        return before, await self.course.calm(before)

    async def _ask(self, count: int, kinds: Mapping[str, int]) -> None:
        self._left = count
        await gatherResults(
            [Deferred.fromCoroutine(self._client(kinds)) for _ in range(self._clients)]
        )

    async def _client(self, kinds: Mapping[str, int]) -> None:
        while self._left > 0:
            self._left -= 1
            order = self.course.order(kinds)
            outcome = await self.course.ask(order, _STUCK)
            if outcome.status != 200 or b'"error"' in outcome.raw:
                self.course.wrong.append(f"not answered: {order} {bytes(outcome.raw[-300:])!r}")
            if self._left % 20 == 0:
                self.workers.update(self.course.daemon.workers())


def _say(what: str, census: Census) -> None:
    print(
        f"{what}: {census.memory / 2**20:.1f} MiB, {census.descriptors} descriptors,"
        f" {census.workers} workers with {census.worker_memory / 2**20:.0f} MiB",
        flush=True,
    )


async def trial(
    reactor: Any, folder: Path, relayed: int, answered: int, clients: int, engine: str = "cli"
) -> list[str]:
    """One run with its report; returns what was wrong."""
    soak = Soak(reactor, folder, clients, engine)
    course = soak.course
    try:
        before, after = await soak.run(relayed, answered)
        await course.stop(before, after)
    finally:
        course.daemon.kill()
    report = [
        *census_lines(before, after),
        f"workers that there have been: {len(soak.workers)}",
        *course.figures.lines(),
        f"left or broken: {len(course.wrong)}",
        *(f"  {wrong}" for wrong in course.wrong[:20]),
    ]
    print("\n".join(report), flush=True)
    return course.figures.wrong + course.wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--relayed", type=int, default=20_000, help="default: 20,000")
    parser.add_argument("--answered", type=int, default=20_000, help="by Gemini; default: 20,000")
    parser.add_argument("--engine", choices=("cli", "direct"), default="cli", help="default: cli")
    parser.add_argument("--clients", type=int, default=8, help="default: 8")
    given = parser.parse_args()

    async def run(reactor: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="gemproxy-soak-") as folder:
            numbers = given.relayed, given.answered, given.clients
            if await trial(reactor, Path(folder), *numbers, given.engine):
                sys.exit(1)

    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
