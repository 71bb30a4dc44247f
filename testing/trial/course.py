"""The course of a trial: a daemon between its two upstreams, asked until it is enough."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import asdict
from twisted.internet.task import deferLater

from testing.memory_cgroup import MemoryCgroup
from testing.trial.client import Outcome, send
from testing.trial.daemon import Census, Daemon, Margins, leaks
from testing.trial.orders import Figures, Order, Times, judge
from testing.trial.upstreams import Google, NewApi, Weather

_CALM = 25.0

Loop = Callable[[], Awaitable[None]]


class Course:
    """
    @ivar wrong: what should not be, apart from the answers to requests.
    """

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        seed: int,
        settings: Mapping[str, Any],
        margins: Margins,
        group: MemoryCgroup | None = None,
    ) -> None:
        """@param group: see L{Daemon}."""
        self.reactor = reactor
        self.randomness = random.Random(seed)
        self.figures = Figures()
        self.wrong: list[str] = []
        self.weather = Weather(self.randomness, badness=0.0)
        self.google = Google(reactor, self.weather)
        self.new_api = NewApi(reactor, self.weather)
        self._margins = margins
        self._keep = int(settings["LOG_KEEP"])
        self._times = Times(settings["TIMEOUT"], settings["HEARTBEAT_INTERVAL"])
        self._number = 0
        upstreams = {
            "GOOGLE_GEMINI_BASE_URL": self.google.port.url,
            "UPSTREAM_URL": self.new_api.url,
        }
        self.daemon = Daemon(reactor, folder, {**settings, **upstreams}, group)
        reactor.addSystemEventTrigger("before", "shutdown", self.daemon.kill)

    def order(self, kinds: Mapping[str, int]) -> Order:
        self._number += 1
        return Order.draw(self._number, kinds, self.randomness)

    async def ask(self, order: Order, limit: float) -> Outcome:
        """
        Have an order answered, and judge the answer.

        @param limit: seconds after which it is stuck.
        """
        outcome = await send(
            self.reactor,
            self.daemon.port if order.to_gemini_port else self.daemon.stream_port,
            order.request(),
            leave_after=order.leave_after,
            leave_at=order.leave_at,
            slow=order.slow,
            limit=limit,
        )
        self.figures.count(order.kind, judge(order, outcome, self._times), outcome, repr(order))
        return outcome

    async def calm(self, before: Census | None = None) -> Census:
        """Wait for all that is under way to end; what does not is in the census."""
        end = self.reactor.seconds() + _CALM
        while True:
            upstream = self.google.connections() + self.new_api.connections()
            census = await self.daemon.census(upstream)
            if not leaks(before, census, self._margins) or self.reactor.seconds() > end:
                return census
            await deferLater(self.reactor, 0.5)

    async def stop(self, before: Census, after: Census) -> None:
        """End everything, and see what is left of it."""
        self.wrong += leaks(before, after, self._margins)
        self.wrong += await self.daemon.stop()
        self.wrong += self.daemon.complaints()
        kept = len(list(self.daemon.journal.glob("*")))
        # A request and its answer each.
        if kept > 2 * self._keep:
            self.wrong.append(f"{kept} files in the journal")
        await self.google.port.close()
        await self.google.standin.stop()
        self.wrong += await self.new_api.stop()


def census_lines(before: Census, after: Census) -> list[str]:
    lines = ["before and after:"]
    for name, had in asdict(before).items():
        has = getattr(after, name)
        shown = [f"{v / 2**20:.1f} MiB" if "memory" in name else str(v) for v in (had, has)]
        lines.append(f"  {name}: {shown[0]}, {shown[1]}")
    return lines
