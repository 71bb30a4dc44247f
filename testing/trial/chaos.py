"""
Mixed traffic on both ports, while everything around it goes wrong.

A daemon in a process of its own, with the real Gemini CLI, is asked by many clients at once.
Workers are killed and stopped, the wall clock is set, Google and New-API answer errors, hang, cut,
trickle, are down and come back, clients leave at random, others send many requests at once and read
slowly or nothing, and garbage comes in between. Each request has a marker that its answer must
consist of. At the end every request must have been answered rightly or with a clear error, and
nothing may be left of any of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from testing.trial.bodies import BOMBS
from testing.trial.client import request, send
from testing.trial.course import Course, Loop, census_lines
from testing.trial.daemon import Census, Margins
from testing.trial.fuzz import mutated
from testing.trial.orders import CLEAR_STATUSES, Figures, Order, Verdict
from testing.trial.pipeliner import Reading, pipeline

SETTINGS = {
    "TIMEOUT": 3,
    "HEARTBEAT_INTERVAL": 1,
    "JSON_HEARTBEAT_DELAY": 2,
    "MAX_RETRIES": 3,
    "RETRY_DELAY": 0.1,
    "GEMINI_WORKERS": 2,
    "GEMINI_SESSIONS": 8,
    "GEMINI_QUEUE": 50,
    "LOG_KEEP": 20,
    "MAX_BODY": "1MB",
    "DRAIN": 10,
}
_REST = re.compile(rb"rests for ([0-9]+) s")
KINDS = {"gemini": 4, "other": 6, "passed": 1}
# Longer than any request may take: all its tries, each of which may wait for a worker to start, and
# then be silent as long as that is allowed.
STUCK = 90.0
# Allocators do not give everything back.
MARGINS = Margins(memory=24 * 1024 * 1024)
_BADNESS = 0.3
# Bytes of each, within MAX_BODY, and those that are refused at this size.
_BOMB = 900_000
_BOMBS = (
    "arrays",
    "levels",
    "messages of a letter",
    "no JSON",
    "objects",
)
_PROMPT = 2.0
_HOUR = 3600.0


class Chaos:
    """One run; both times in seconds."""

    def __init__(self, reactor: Any, folder: Path, seed: int, clients: int) -> None:
        self.course = Course(reactor, folder, seed, SETTINGS, MARGINS)
        self._reactor = reactor
        self._daemon = self.course.daemon
        self._weather = self.course.weather
        self._randomness = self.course.randomness
        self._clients = clients
        self._over = False

    async def run(self, seconds: float) -> tuple[Census, Census]:
        """Returns what there was before and after."""
        await self._daemon.until_ready()
        # Good weather first: what is made once and kept is not a leak.
        await self._traffic(min(10.0, seconds / 4), badness=0.0)
        before = await self.course.calm()
        self.course.figures = Figures()
        await self._traffic(seconds, _BADNESS)
        after = await self.course.calm(before)
        await self._serve_again()
        return before, after

    async def _traffic(self, seconds: float, badness: float) -> None:
        self._weather.badness = badness
        self._over = False
        loops: list[Loop] = [self._ask] * self._clients + [self._ask_health]
        if badness:
            loops += [
                self._send_garbage,
                self._drop_a_bomb,
                *[partial(self._pipeline, reading) for reading in Reading],
                self._trickle,
                self._hurt_a_worker,
                self._remove_the_run_directory,
                self._close_an_upstream,
                self._set_the_clock,
            ]
        running = [Deferred.fromCoroutine(self._loop(loop)) for loop in loops]
        await deferLater(self._reactor, seconds)
        self._over = True
        await gatherResults(running)

    async def _loop(self, action: Loop) -> None:
        while not self._over:
            await action()

    async def _serve_again(self) -> None:
        self._weather.badness = 0.0
        for kind in KINDS:
            order = self.course.order({kind: 1})
            outcome = await self.course.ask(order, STUCK)
            while outcome.status == 503 and (rest := _REST.search(outcome.body)):
                # An upstream that could not be reached rests for a while.
                await deferLater(self._reactor, float(rest[1]) + 0.5)
                order = self.course.order({kind: 1})
                outcome = await self.course.ask(order, STUCK)
            if outcome.status != 200:
                self.course.wrong.append(f"not served afterwards: {order} {outcome}")

    # What the clients do:

    def _order(self) -> Order:
        order = self.course.order(KINDS)
        if self._weather.badness:
            order.slow = self._randomness.random() < 0.05
            match self._randomness.randrange(12):
                case 0:
                    order.leave_at = self._randomness.random() * 0.3
                case 1:
                    order.leave_after = self._randomness.randrange(2000)
        return order

    async def _ask(self) -> None:
        await self.course.ask(self._order(), STUCK)

    async def _ask_health(self) -> None:
        outcome = await send(self._reactor, self._daemon.port, request("GET", "/health"))
        # Workers are killed faster than they last, and it is right to say so.
        is_told = outcome.status == 200 or b'"failing"' in outcome.body
        fine = outcome.whole and is_told and outcome.seconds < _PROMPT
        verdict = Verdict("answered", None if fine else f"{outcome!r}")
        self.course.figures.count("health", verdict, outcome, "health")
        await deferLater(self._reactor, 0.2)

    async def _send_garbage(self) -> None:
        body = json.dumps(self._order().body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        samples = [
            request("GET", "/health"),
            request("POST", "/v1/chat/completions", self._order().body),
            request("POST", "/v1/embeddings", {"input": "x" * 1000}),
            f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body,
            f"{head}Content-Length: 100000000\r\n\r\n".encode() + b"x" * 1000,
        ]
        port = self._randomness.choice((self._daemon.port, self._daemon.stream_port))
        stay = self._randomness.random() * 0.5
        await send(self._reactor, port, mutated(self._randomness, samples), leave_at=stay)
        self._weather.faults["garbage on a port"] += 1
        await deferLater(self._reactor, 0.02)

    async def _pipeline(self, reading: Reading) -> None:
        await self._sleep(self._randomness.uniform(0.2, 1.0))
        if self._over:
            return
        self._weather.faults[f"a pipeliner that {reading.value}"] += 1
        number, seconds = (20_000, 3.0) if reading is Reading.NEVER else (200, STUCK)
        port = self._randomness.choice((self._daemon.port, self._daemon.stream_port))
        wrong = await pipeline(self._reactor, port, number, reading, seconds)
        if wrong is not None:
            self.course.wrong.append(f"a pipeliner that {reading.value}: {wrong}")

    async def _trickle(self) -> None:
        """A first line that never ends."""
        self._weather.faults["a first line without an end"] += 1
        stay = self._randomness.uniform(0.2, 2.0)
        await send(self._reactor, self._daemon.port, b"GET /heal", leave_at=stay)

    async def _drop_a_bomb(self) -> None:
        await self._sleep(self._randomness.uniform(0.5, 2.0))
        if self._over:
            return
        bomb = self._randomness.choice([bomb for bomb in BOMBS if bomb.name in _BOMBS])
        port, model = self._randomness.choice(
            ((self._daemon.port, "gemini-2.5-flash"), (self._daemon.stream_port, "gpt-x"))
        )
        content = bomb.make(_BOMB, model)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        sent = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        outcome = await send(self._reactor, port, sent, limit=STUCK)
        self._weather.faults["bombs of JSON"] += 1
        if not outcome.whole or outcome.status not in (400, *CLEAR_STATUSES):
            self.course.wrong.append(f"{bomb.name}: {outcome!r}")

    # What goes wrong around them:

    async def _hurt_a_worker(self) -> None:
        await self._sleep(self._randomness.uniform(2.0, 8.0))
        workers = self._daemon.workers()
        if not workers or self._over:
            return
        pid = self._randomness.choice(workers)
        with suppress(ProcessLookupError):
            chance = self._randomness.random()
            if chance < 0.6:
                self._weather.faults["worker killed"] += 1
                # After the first, which the kernel uses too, there are fewer for a while.
                os.kill(pid, signal.SIGKILL if chance < 0.1 else signal.SIGSEGV)
            elif chance < 0.8:
                self._weather.faults["worker stopped for good"] += 1
                os.kill(pid, signal.SIGSTOP)
            else:
                self._weather.faults["worker stopped for a while"] += 1
                os.kill(pid, signal.SIGSTOP)
                await self._sleep(1.0)
                os.kill(pid, signal.SIGCONT)

    async def _remove_the_run_directory(self) -> None:
        await self._sleep(self._randomness.uniform(5.0, 15.0))
        if self._over:
            return
        self._weather.faults["run directory removed"] += 1
        for directory in self._daemon.runs.glob("*"):
            shutil.rmtree(directory, ignore_errors=True)

    async def _close_an_upstream(self) -> None:
        await self._sleep(self._randomness.uniform(4.0, 8.0))
        if self._over:
            return
        upstream: Any = self._randomness.choice((self.course.google.port, self.course.new_api))
        self._weather.faults["upstream down for a while"] += 1
        await upstream.close()
        await self._sleep(self._randomness.uniform(0.2, 1.0))
        upstream.open()

    async def _set_the_clock(self) -> None:
        await self._sleep(self._randomness.uniform(1.0, 6.0))
        self._weather.faults["wall clock set"] += 1
        self._daemon.clock.set(self._randomness.choice((-_HOUR, 0.0, _HOUR)))

    async def _sleep(self, seconds: float) -> None:
        end = self._reactor.seconds() + seconds
        while not self._over and self._reactor.seconds() < end:
            await deferLater(self._reactor, 0.05)


def _report(course: Course, before: Census, after: Census) -> Sequence[str]:
    faults = course.weather.faults
    return [
        f"faults: {faults.total()}",
        *(f"  {kind}: {count}" for kind, count in sorted(faults.items())),
        *census_lines(before, after),
        *course.figures.lines(),
        f"left or broken: {len(course.wrong)}",
        *(f"  {wrong}" for wrong in course.wrong),
    ]


async def trial(reactor: Any, folder: Path, seconds: float, seed: int, clients: int) -> list[str]:
    """One run with its report; returns what was wrong."""
    chaos = Chaos(reactor, folder, seed, clients)
    course = chaos.course
    try:
        before, after = await chaos.run(seconds)
        await course.stop(before, after)
    finally:
        course.daemon.kill()
    print("\n".join(_report(course, before, after)), flush=True)
    return course.figures.wrong + course.wrong
