"""Processes: starting and ending them, and what they cost, as Linux accounts for it."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define

_TICK = os.sysconf("SC_CLK_TCK")
# As /proc/net/tcp has it.
_ESTABLISHED = "01"


# Connections out are made from above; what is bound to one of these is not taken by chance.
_ports = itertools.cycle(random.sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A port that nobody listens at, another one each time."""
    return next(filter(_is_free, _ports))


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


@define
class Cost:
    """@ivar cpu: seconds, user and system."""

    cpu: float
    memory: int


@define(eq=False)
class Running:
    """A process of ours; its output goes into a file."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        folder: Path,
        environ: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> Running:
        """
        @param folder: to run in.
        @param log: the file for the output, which is in the folder if none is named.
        """
        folder.mkdir(parents=True, exist_ok=True)
        log = log or folder / "output.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    def until_listening(self, port: int, seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.process.args!r} does not run: {self.last_words()}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.05)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cost(self) -> Cost:
        return cost(self.pid)

    def forget_peak(self) -> None:
        """Let the peak of memory begin anew."""
        with suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Bytes of memory at most since the start, or since L{forget_peak}."""
        return _status(self.pid, "VmHWM")


def cost(pid: int) -> Cost:
    """Of one process, without its children."""
    return Cost(_cpu(pid), _status(pid, "VmRSS"))


def proportional_memory(pid: int) -> int:
    """Resident memory, of which pages shared with others count by share."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(
        int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")
    )


def cost_of_children(pid: int) -> Cost:
    """Of all descendants of a process, those that have ended among them."""
    total = Cost(sum(_times(pid)[2:]) / _TICK, 0)
    for child in children(pid):
        own, below = cost(child), cost_of_children(child)
        total.cpu += own.cpu + below.cpu
        total.memory += own.memory + below.memory
    return total


def children(pid: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                found.append(int(process.name))
    return found


def _cpu(pid: int) -> float:
    """User and system time: to the nanosecond where the system keeps it, else in ticks."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            nanoseconds += int(task.read_text().split()[0])
    user, system = _times(pid)[:2]
    # What threads spent that have ended is in the ticks alone.
    return max(nanoseconds / 1e9, (user + system) / _TICK - 0.05)


def _times(pid: int) -> list[int]:
    """utime, stime, cutime and cstime, in ticks."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return [0, 0, 0, 0]
    return [int(value) for value in fields[11:15]]


def _status(pid: int, name: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def processes_at_home_in(root: Path) -> list[int]:
    """The processes whose HOME is below a directory, as that of every CLI worker is."""
    home = b"HOME=" + os.fsencode(root) + b"/"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(variable.startswith(home) for variable in variables):
            found.append(int(process.name))
    return found


def is_helper(pid: int) -> bool:
    """Whether a process is one that a daemon has for large requests."""
    try:
        return b"gemproxy.offload" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def accepted(pid: int, port: int) -> int:
    """How many connections a process has of those to a port of this machine."""
    sockets = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        state, inode = fields[3], fields[9]
        if fields[1].endswith(f":{port:04X}") and state == _ESTABLISHED:
            sockets.add(f"socket:[{inode}]")
    return len(sockets.intersection(_files(pid)))


def _files(pid: int) -> Iterator[str]:
    """What a process has open, by the names that Linux has for them."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            yield str(descriptor.readlink())


def busy_seconds() -> float:
    """Seconds of CPU that all processes of the machine have taken together since it started."""
    user, nice, system, _, _, interrupts, soft = map(
        int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    )
    return (user + nice + system + interrupts + soft) / _TICK
