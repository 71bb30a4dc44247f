"""The daemon on trial: a process of its own, and all that can be counted of it from outside."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import asdict, define, frozen
from twisted.internet.task import deferLater

from testing.memory_cgroup import MemoryCgroup
from testing.processes import children, cost, free_port, is_helper, processes_at_home_in
from testing.trial.client import request, send
from testing.wall_clock import WallClock

ROOT = Path(__file__).parent.parent.parent
CLI = ROOT / "node_modules" / ".bin" / "gemini"


@define
class Census:
    """
    What a daemon has, at one moment.

    @ivar memory: resident bytes.
    @ivar descriptors: open files, but for those of the workers' pipes, and of connections that
        workers and upstreams keep for the next request.
    @ivar timers: but for those of the workers' connections.
    @ivar has_cli: whether it runs the CLI.
    @ivar files: of sessions and error reports in the workers' homes.
    """

    memory: int
    descriptors: int
    workers: int
    worker_memory: int
    homes: int
    files: int
    zombies: int
    under_way: int
    leases: int
    queued: int
    connections: int
    timers: int
    has_cli: bool = True


@frozen
class Margins:
    """How much more there may be of what is kept for good reasons; memory in bytes."""

    memory: int
    descriptors: int = 2
    timers: int = 3


def leaks(before: Census | None, after: Census, margins: Margins) -> list[str]:
    """What a daemon still has with nothing to do, or has more of than before."""
    names = ("under_way", "leases", "queued", "connections", "files", "zombies")
    found = [f"{name}: {value}" for name in names if (value := getattr(after, name))]
    if after.homes != after.workers:
        found.append(f"homes: {after.homes} of {after.workers} workers")
    if after.has_cli and not after.workers:
        found.append("no worker")
    if before is not None:
        for name, margin in asdict(margins).items():
            had, has = getattr(before, name), getattr(after, name)
            if has > had + margin:
                found.append(f"{name}: {has}, before {had}")
    return found


class Daemon:
    """
    A running gemproxy.

    @ivar clock: its wall clock.
    """

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        environ: Mapping[str, Any],
        group: MemoryCgroup | None = None,
    ) -> None:
        """@param group: the cgroup that it runs in; None for that of the trial."""
        self.port, self.stream_port = free_port(), free_port()
        self.log = folder / "log"
        self.journal = folder / "journal"
        self.runs = folder / "gemproxy"
        self.clock = WallClock(folder / "wall-clock")
        self._reactor = reactor
        settings = {
            "PATH": f"{CLI.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XDG_RUNTIME_DIR": str(folder),
            "GEMINI_API_KEY": "the-key",
            "PORT": str(self.port),
            "STREAM_PORT": str(self.stream_port),
            "LOG_DIR": str(self.journal),
        } | {name: str(value) for name, value in environ.items()}
        command = [*self.clock.twistd, "-n", "--pidfile=", "gemproxy"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command if group is None else group.command(command),
                cwd=folder,
                env=settings,
                stdout=output,
                stderr=output,
            )

    async def until_ready(self, seconds: float = 60.0) -> None:
        end = self._reactor.seconds() + seconds
        while self._reactor.seconds() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon does not run: {self.log.read_text()[-2000:]}")
            outcome = await send(self._reactor, self.port, request("GET", "/ready"))
            if outcome.whole and outcome.status == 200:
                return
            await deferLater(self._reactor, 0.1)
        raise RuntimeError("the daemon does not get ready")

    def workers(self) -> list[int]:
        return [pid for pid in children(self.process.pid) if not is_helper(pid)]

    async def metrics(self) -> dict[str, float]:
        """The values without labels."""
        outcome = await send(self._reactor, self.port, request("GET", "/metrics"))
        values = {}
        for line in outcome.body.decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name and not name.startswith("#"):
                values[name.removeprefix("gemproxy_")] = float(value)
        return values

    def _files(self, pattern: str) -> int:
        return sum(path.is_file() for path in self.runs.glob(pattern))

    async def census(self, upstream_connections: int) -> Census:
        metrics = await self.metrics()
        workers = self.workers()
        states = [_state(pid) for pid in workers]
        alive = [pid for pid, state in zip(workers, states, strict=True) if state not in "ZX"]
        descriptors = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        kept = sum(map(_sockets, alive))
        return Census(
            memory=cost(self.process.pid).memory,
            descriptors=descriptors - 3 * len(alive) - upstream_connections - kept,
            workers=len(alive),
            worker_memory=sum(cost(pid).memory for pid in alive),
            homes=len(list(self.runs.glob("*/worker-*"))),
            files=self._files("*/*/.gemini/tmp/*/chats/*") + self._files("*/*/tmp/*"),
            zombies=states.count("Z"),
            # The question itself does not count.
            under_way=int(metrics["requests_under_way"]) - 1,
            connections=int(metrics["connections"]) - 1,
            leases=int(metrics.get("leases", 0)),
            queued=int(metrics.get("queued_requests", 0)),
            timers=int(metrics["timers"]) - kept,
            has_cli="leases" in metrics,
        )

    def complaints(self) -> list[str]:
        """What is in the log that should never be, whatever happens around a daemon."""
        text = self.log.read_text(errors="replace")
        return [
            line[:300]
            for line in text.splitlines()
            if any(word in line for word in ("Traceback", "Unhandled", "#critical"))
        ]

    async def stop(self) -> list[str]:
        """End it; returns what was left behind."""
        self.process.send_signal(signal.SIGTERM)
        for _ in range(400):
            if self.process.poll() is not None:
                break
            await deferLater(self._reactor, 0.1)
        else:
            self.kill()
            return ["it did not end"]
        left = [str(path) for path in self.runs.glob("*")]
        return left + [f"process {pid}" for pid in processes_at_home_in(self.runs)]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _sockets(pid: int) -> int:
    """How many a process has; a worker's are its connections to the gateway."""
    count = 0
    # It may have ended by now, or closed one.
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                count += os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith("socket:")
    return count


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"
