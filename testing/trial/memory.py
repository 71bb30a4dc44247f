"""Many clients of a daemon whose container has little memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall

from testing.memory_cgroup import MemoryCgroup
from testing.trial.client import request, send
from testing.trial.course import Course
from testing.trial.daemon import Margins

SIZES = (384, 512, 768, 1024, 1536, 2048)
_MIB = 1024 * 1024
_STUCK = 300.0
_MARGINS = Margins(memory=64 * _MIB)
_SETTINGS = {"TIMEOUT": 600, "HEARTBEAT_INTERVAL": 15, "LOG_KEEP": 20, "DRAIN": 10}


@frozen
class Size:
    """
    @ivar megabytes: the memory limit of the daemon and its workers together, in MiB.
    @ivar workers: GEMINI_WORKERS; None for what the daemon chooses.
    @ivar requests: of all clients together.
    """

    megabytes: int
    workers: int | None
    clients: int
    requests: int


class Crowd:
    """
    The clients, and what there was while they asked.

    @ivar answered: how many requests were.
    @ivar workers: how many there were, from look to look.
    @ivar memory: bytes of the daemon and its workers at most.
    @ivar health: the statuses of /health.
    """

    def __init__(self, course: Course, size: Size) -> None:
        self.answered = 0
        self.workers: list[int] = []
        self.memory = 0
        self.health: Counter[int] = Counter()
        self._course = course
        self._size = size
        self._left = size.requests

    async def ask(self) -> float:
        """Returns how many seconds it took."""
        clock = self._course.reactor
        looks = LoopingCall(lambda: Deferred.fromCoroutine(self._look()))
        looking = looks.start(0.5)
        began = clock.seconds()
        clients = [Deferred.fromCoroutine(self._client()) for _ in range(self._size.clients)]
        await gatherResults(clients)
        seconds = float(clock.seconds() - began)
        looks.stop()
        await looking
        return seconds

    async def _client(self) -> None:
        while self._left > 0:
            self._left -= 1
            outcome = await self._course.ask(self._course.order({"gemini": 1}), _STUCK)
            self.answered += outcome.status == 200 and b'"error"' not in outcome.raw

    async def _look(self) -> None:
        daemon = self._course.daemon
        census = await daemon.census(0)
        self.workers.append(census.workers)
        self.memory = max(self.memory, census.memory + census.worker_memory)
        asked = await send(self._course.reactor, daemon.port, request("GET", "/health"))
        self.health[asked.status] += 1


async def trial(reactor: Any, folder: Path, size: Size) -> list[str]:
    """
    One run with its report; returns what was wrong.

    @raise NoCgroups: see L{MemoryCgroup.make}.
    """
    group = MemoryCgroup.make(size.megabytes * _MIB)
    settings = _SETTINGS | ({} if size.workers is None else {"GEMINI_WORKERS": size.workers})
    course = Course(reactor, folder, 1, settings, _MARGINS, group)
    crowd = Crowd(course, size)
    try:
        await course.daemon.until_ready()
        before = await course.calm()
        seconds = await crowd.ask()
        await course.stop(before, await course.calm(before))
        kills = group.kills()
    finally:
        course.daemon.kill()
        group.remove()
    wrong = course.figures.wrong + course.wrong
    if crowd.answered < size.requests:
        wrong.append(f"{size.requests - crowd.answered} requests were not answered")
    if set(crowd.health) != {200}:
        wrong.append(f"health: {dict(crowd.health)}")
    lines = [
        f"{size.megabytes} MiB, GEMINI_WORKERS {size.workers or 'auto'}, {size.clients} clients:",
        f"  answered: {crowd.answered} of {size.requests} in {seconds:.0f} s",
        f"  workers: {max(crowd.workers)} at most, {crowd.workers[-1]} in the end",
        f"  memory of all at most: {crowd.memory / _MIB:.0f} MiB",
        f"  killed by the kernel: {kills}",
        *(f"  wrong: {text[:300]}" for text in wrong[:20]),
    ]
    print("\n".join(lines), flush=True)
    # Where too many workers are wanted, some die, and that is no fault.
    return wrong + ([f"{kills} processes were killed"] if kills and size.workers is None else [])
