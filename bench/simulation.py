"""
What one machine does with several processes of gemproxy, played through event by event.

C{python -m bench processes} prints its predictions beside what it measures.

The machine has some cores, and processes that each do one thing after the other. While more of them
are busy than there are cores, they share the cores evenly. A daemon works in turns, as its reactor
does: a turn takes all parts of answers that have come, and some of the new requests.

It knows nothing of caches and memory bandwidth, which processes share; of garbage collection; of
connections that are made; of networks; and of a turn that takes more at once, and so takes less for
each. Where these matter it is wrong, and shows by how much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from statistics import median

from attrs import define, field, frozen

AT_ONCE = 8
"""The new requests of one turn, as in L{gemproxy.web.throttle}."""

# The part of a daemon's work for an answer that comes before the upstream is asked. It makes little
# difference: a turn of a burst works on as many answers as requests.
_BEFORE = 0.5
_EPSILON = 1e-12


@frozen
class Costs:
    """
    Seconds of CPU for an answer.

    @ivar daemon: from the request to its end.
    @ivar client: of the load's process, half of it for the request.
    @ivar upstream: of the upstream's process.
    """

    daemon: float
    client: float
    upstream: float


@define(eq=False)
class Job:
    """
    @ivar left: seconds of CPU.
    @ivar then: called when it is done.
    """

    left: float
    then: Callable[[], None]


@define(eq=False)
class Process:
    """Does one job after the other, in the order in which they came."""

    waiting: deque[Job] = field(factory=deque)
    job: Job | None = None

    def do(self, seconds: float, then: Callable[[], None] = lambda: None) -> None:
        self.waiting.append(Job(seconds, then))

    def begin(self) -> bool:
        """Whether it is busy, with another job if the last is done."""
        if self.job is None:
            self.job = self._next()
        return self.job is not None

    def _next(self) -> Job | None:
        return self.waiting.popleft() if self.waiting else None


@define(eq=False)
class Daemon(Process):
    """Takes in turns what has come of answers, and L{AT_ONCE} new requests at most."""

    requests: deque[Job] = field(factory=deque)
    _turn: deque[Job] = field(factory=deque)

    def ask(self, seconds: float, then: Callable[[], None]) -> None:
        self.requests.append(Job(seconds, then))

    def _next(self) -> Job | None:
        if not self._turn:
            self._turn.extend(self.waiting)
            self.waiting.clear()
            for _ in range(min(AT_ONCE, len(self.requests))):
                self._turn.append(self.requests.popleft())
        return self._turn.popleft() if self._turn else None


@define(eq=False)
class Machine:
    """
    @ivar cores: what is left of one by others counts for its part.
    @ivar now: seconds since the begin.
    """

    cores: float
    processes: Sequence[Process]
    now: float = 0.0

    def run(self, end: float = float("inf")) -> None:
        """Until nothing is left to do, or this time."""
        while busy := [process for process in self.processes if process.begin()]:
            rate = min(1.0, self.cores / len(busy))
            done = min(process.job.left for process in busy if process.job is not None)
            self.now += done / rate
            if self.now >= end:
                return
            for process in busy:
                job = process.job
                assert job is not None
                job.left -= done
                if job.left <= _EPSILON:
                    process.job = None
                    job.then()


@define(eq=False)
class Play:
    """
    Clients in one process and an upstream in another, which share the machine with the daemons.

    @ivar firsts: when each answer's first content had come to its client.
    @ivar answers: how many came whole.
    """

    cores: float
    processes: int
    costs: Costs
    client: Process = field(factory=Process)
    upstream: Process = field(factory=Process)
    firsts: list[float] = field(factory=list)
    answers: int = 0
    daemons: list[Daemon] = field(init=False)
    machine: Machine = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.daemons = [Daemon() for _ in range(self.processes)]
        self.machine = Machine(self.cores, [self.client, self.upstream, *self.daemons])

    def shared_out(self, connections: int) -> Iterable[Daemon]:
        """Who serves each of them: no process has more than another."""
        return islice(cycle(self.daemons), connections)

    def ask(self, daemon: Daemon, after: Callable[[], None] = lambda: None) -> None:
        """
        One request of a client.

        @param after: called when the answer has come.
        """
        costs = self.costs

        def sent() -> None:
            daemon.ask(costs.daemon * _BEFORE, asked)

        def asked() -> None:
            self.upstream.do(costs.upstream, replied)

        def replied() -> None:
            daemon.do(costs.daemon * (1 - _BEFORE), answered)

        def answered() -> None:
            self.client.do(costs.client / 2, received)

        def received() -> None:
            self.firsts.append(self.machine.now)
            self.answers += 1
            after()

        self.client.do(costs.client / 2, sent)


def throughput(
    cores: float, processes: int, costs: Costs, connections: int = 64, answers: int = 2000
) -> float:
    """Answers a second, with connections that each ask again as soon as they are answered."""
    play = Play(cores, processes, costs)

    def again(daemon: Daemon) -> None:
        if play.answers < answers:
            play.ask(daemon, lambda: again(daemon))

    for daemon in play.shared_out(connections):
        again(daemon)
    play.machine.run()
    return play.answers / play.machine.now


def at_once(cores: float, processes: int, costs: Costs, clients: int = 200) -> float:
    """Seconds until half of some clients that ask at the same moment have content."""
    play = Play(cores, processes, costs)
    for daemon in play.shared_out(clients):
        play.ask(daemon)
    play.machine.run()
    return median(play.firsts)
