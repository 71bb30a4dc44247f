"""
What one machine serves with 1, 2 and 4 processes (PROCESSES): C{python -m bench processes}.

Such daemons are asked in turn, for seconds each, by a load that takes next to nothing. What it does
take is measured too, and a simulation says from what one process takes what is to be expected of
several.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from attrs import define

from bench import light_load, simulation
from bench.answers import Spec
from bench.contenders import gemproxy_environment, start_gemproxy
from bench.light_load import GEMINI_MODEL, Load
from bench.load import Received
from bench.numbers import Measures
from testing.processes import (
    Running,
    accepted,
    busy_seconds,
    children,
    cost_of_children,
    free_port,
    proportional_memory,
)

COUNTS = (1, 2, 4)
CORES = len(os.sched_getaffinity(0))
LOADS = {
    "document": Load("small", stream=False),
    "streamed": Load("small"),
    "gemini": Load("gemini", model=GEMINI_MODEL),
    "chunks": Load("long", connections=16, chunks=200, worth=200),
}
_BURST = Load("burst", chunks=3)
_HELD = Load("held", chunks=400)
# Seconds of a turn. A machine whose cores others use as well is half as fast again from one second
# to the next: short turns, and many, in both orders.
_TURN = 1
ROUNDS = 3
_CLIENTS = 200
_BURSTS = 3
# Seconds between two clients that come one by one.
_APART = 0.004
# The last piece of text of an answer, whatever its shape.
_LAST = "#{:06d} the quick"


@define(eq=False)
class Daemon:
    """
    @ivar processes: how many serve.
    @ivar root: the process that was started; it serves itself, or is the parent of those that do.
    @ivar failed: how many answers were wrong, or did not come.
    """

    processes: int
    root: Running
    port: int
    serving: Sequence[int] = ()
    failed: int = 0

    @property
    def name(self) -> str:
        return "1 process" if self.processes == 1 else f"{self.processes} processes"

    def cpu(self) -> float:
        """Seconds, of all its processes."""
        return self.root.cost().cpu + cost_of_children(self.root.pid).cpu

    def memory(self) -> int:
        """Bytes; what processes share is counted once."""
        return sum(map(proportional_memory, {self.root.pid, *self.serving}))

    def connections(self) -> list[int]:
        """How many each process serves."""
        return [accepted(pid, self.port) for pid in self.serving]

    def until_all_serve(self, seconds: float = 60.0) -> None:
        """@raise RuntimeError: they do not."""
        self.root.until_listening(self.port)
        end = time.monotonic() + seconds
        while True:
            self.serving = [self.root.pid] if self.processes == 1 else children(self.root.pid)
            if len(self.serving) == self.processes:
                with _connected(self.port, 50 * self.processes):
                    time.sleep(0.3)
                    if all(self.connections()):
                        return
            if time.monotonic() > end:
                raise RuntimeError(f"not all of its processes serve: {self.root.last_words()}")
            time.sleep(0.2)


def start(folder: Path, upstream: int, processes: int) -> Daemon:
    """
    A daemon with the engine that needs no CLI, whose processes would be measured with it.

    @param upstream: the port of what answers as OpenAI and as Google.
    """
    port = free_port()
    running = start_gemproxy(
        folder,
        gemproxy_environment(folder),
        processes=processes,
        port="off",
        stream_port=port,
        gemini_engine="direct",
        google_gemini_base_url=f"http://127.0.0.1:{upstream}",
        upstream_url=f"http://127.0.0.1:{upstream}",
    )
    return Daemon(processes, running, port)


@contextmanager
def running(folder: Path, counts: Sequence[int] = COUNTS) -> Iterator[tuple[Running, list[Daemon]]]:
    """
    The upstream, and a daemon for each number of processes, all of which serve.

    @raise Unavailable: wrk or nginx is not installed.
    @raise RuntimeError: a daemon does not serve.
    """
    light_load.found("wrk")
    upstream, port = light_load.start_nginx(folder / "nginx", [*LOADS.values(), _BURST, _HELD])
    started: list[Running] = [upstream]
    try:
        daemons = []
        for count in counts:
            daemons.append(start(folder / str(count), port, count))
            started.append(daemons[-1].root)
        for daemon in daemons:
            daemon.until_all_serve()
        yield upstream, daemons
    finally:
        for process in started:
            process.stop()


def check(daemon: Daemon) -> None:
    """A second of each load, whose answers are looked at. That warms up, too."""
    for load in LOADS.values():
        last = _LAST.format(load.chunks - 1)
        daemon.failed += light_load.run(load, daemon.port, 1, last).failed


def measure(daemons: Sequence[Daemon], upstream: Running) -> dict[str, Measures]:
    """One round, load by load, since the machine is never the same for long."""
    measured: dict[str, Measures] = {daemon.name: {} for daemon in daemons}
    others = dict.fromkeys(measured, 0.0)
    took = dict.fromkeys(measured, 0.0)
    for step in _STEPS:
        for daemon in daemons:
            began, before = time.monotonic(), _of_others(daemon, upstream)
            measured[daemon.name] |= step(daemon, upstream)
            others[daemon.name] += _of_others(daemon, upstream) - before
            took[daemon.name] += time.monotonic() - began
    for daemon in daemons:
        measured[daemon.name] |= {
            "processes": daemon.processes,
            "load_ms": _sum(measured[daemon.name], "streamed_client_ms", "streamed_upstream_ms"),
            "memory_mb": daemon.memory() / 1e6,
            "others": max(0.0, others[daemon.name] / took[daemon.name]),
        }
    return measured


def _sum(measures: Measures, *names: str) -> float:
    return sum(measures[name] or 0.0 for name in names)


def _of_others(daemon: Daemon, upstream: Running) -> float:
    """Seconds of CPU that other programs have taken."""
    ours = daemon.cpu() + upstream.cost().cpu + light_load.client_cpu() + time.process_time()
    return busy_seconds() - ours


def _asked(name: str, daemon: Daemon, upstream: Running) -> Measures:
    """What comes of one of the L{LOADS}."""
    load = LOADS[name]
    before = daemon.cpu(), upstream.cost().cpu
    answered = light_load.run(load, daemon.port, _TURN)
    after = daemon.cpu(), upstream.cost().cpu
    daemon.failed += answered.failed
    answers = max(1, answered.answers)
    return {
        f"{name}_s": answers * load.worth / answered.seconds,
        f"{name}_ms": (after[0] - before[0]) / answers * 1000,
        f"{name}_client_ms": answered.client_cpu / answers * 1000,
        f"{name}_upstream_ms": (after[1] - before[1]) / answers * 1000,
    }


def _at_once(daemon: Daemon, upstream: Running) -> Measures:
    """Clients that ask at the same moment, each on a connection that it has just opened."""
    request = _BURST.request(daemon.port)
    spec = Spec(_BURST.chunks)
    firsts: list[float] = []
    taken: list[float] = []
    before = daemon.cpu(), time.process_time(), upstream.cost().cpu
    for _ in range(_BURSTS):
        with _connected(daemon.port, _CLIENTS) as clients:
            time.sleep(0.2)
            taken.append(_uneven(daemon.connections()))
            answers = _ask(clients, request)
        for answer in answers:
            answer.check(spec, True)
            assert answer.first is not None
            firsts.append(answer.first - answer.asked)
    after = daemon.cpu(), time.process_time(), upstream.cost().cpu
    each = [(now - then) / len(firsts) * 1000 for now, then in zip(after, before, strict=True)]
    return {
        "at_once_ms": median(firsts) * 1000,
        "uneven_at_once": median(taken),
        "burst_ms": each[0],
        "burst_client_ms": each[1],
        "burst_upstream_ms": each[2],
    }


def _ask(clients: Sequence[socket.socket], request: bytes) -> list[Received]:
    """Send the request of each, and note when what comes."""
    answers = []
    with selectors.EpollSelector() as selector:
        for client in clients:
            answers.append(Received(time.monotonic(), b"#000000"))
            selector.register(client, selectors.EVENT_READ, answers[-1])
            client.send(request)
        while selector.get_map():
            for key, _ in selector.select():
                answer, data = key.data, os.read(key.fd, 65536)
                now = time.monotonic()
                answer.arrivals.append((now, data))
                if answer.first is None and answer.marker in data:
                    answer.first = now
                if not data or data.endswith(b"0\r\n\r\n"):
                    selector.unregister(key.fd)
    return answers


@contextmanager
def _connected(port: int, count: int, apart: float = 0.0) -> Iterator[list[socket.socket]]:
    """@param apart: seconds between two of them, each of which then begins a long stream."""
    clients: list[socket.socket] = []
    try:
        for _ in range(count):
            clients.append(socket.create_connection(("127.0.0.1", port)))
            if apart:
                clients[-1].send(_HELD.request(port))
                time.sleep(apart)
        yield clients
    finally:
        for client in clients:
            client.close()


def _uneven(taken: Sequence[int]) -> float:
    """How many times the connections of the process with the fewest that with the most has."""
    return max(taken) / max(1, min(taken))


def _one_by_one(daemon: Daemon, _: Running) -> Measures:
    """Clients that come one after the other, and stay."""
    with _connected(daemon.port, _CLIENTS, _APART):
        return {"uneven_one_by_one": _uneven(daemon.connections())}


def _under_load(daemon: Daemon, _: Running) -> Measures:
    """The same while others ask as fast as they are answered."""
    command = light_load.command(LOADS["streamed"], daemon.port, 2 * _TURN)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL):
        time.sleep(0.3)
        with _connected(daemon.port, _CLIENTS, _APART):
            return {"uneven_under_load": _uneven(daemon.connections())}


_STEPS: Sequence[Callable[[Daemon, Running], Measures]] = (
    *(partial(_asked, name) for name in LOADS),
    _at_once,
    _one_by_one,
    _under_load,
)


def predicted(measures: Measures, processes: int, others: float) -> Measures:
    """
    What a simulation expects of so many processes.

    @param measures: of one process: what it takes for an answer, and what the load takes.
    @param others: the cores that other programs took while so many were measured.
    """
    cores = max(CORES - others, 0.1)

    def costs(name: str) -> simulation.Costs:
        parts = (measures[f"{name}{of}_ms"] or 0.0 for of in ("", "_client", "_upstream"))
        return simulation.Costs(*(part / 1000 for part in parts))

    found: Measures = {
        f"{name}_s": load.worth
        * simulation.throughput(cores, processes, costs(name), load.connections)
        for name, load in LOADS.items()
    }
    burst = simulation.at_once(cores, processes, costs("burst"), _CLIENTS)
    return found | {"at_once_ms": burst * 1000}
