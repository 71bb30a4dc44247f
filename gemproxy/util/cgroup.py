"""
The limits that a container or a service manager sets for this process, read from its cgroups; and
what the machine has.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst,
Documentation/scheduler/sched-bwc.rst, and proc_pid_mountinfo(5) and cgroups(7) of man-pages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from attrs import frozen

# A cgroup of version 1 without a memory limit shows the largest number of whole pages.
_UNLIMITED = 1 << 60

_Number = TypeVar("_Number", int, float)


@frozen
class CgroupLimits:
    """
    @ivar memory: bytes for this process and those it starts, with others in the cgroup; None if
        there is no limit.
    @ivar cores: the share of CPU time in cores, such as 1.5; None if there is no limit.
    """

    memory: int | None = None
    cores: float | None = None


def cgroup_limits(root: Path = Path("/")) -> CgroupLimits:
    """
    The lowest limits of this process's cgroups, versions 1 and 2, and of all above them. What
    cannot be read sets no limit.

    @param root: the directory that contains C{proc} and the file systems of the cgroups.
    """
    folders = list(_folders(root))
    return CgroupLimits(
        _lowest(_memory_limits(folder) for folder in folders),
        _lowest(_core_limits(folder) for folder in folders),
    )


def usable_cores() -> int:
    """The CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_memory(root: Path = Path("/")) -> int | None:
    """The bytes of memory that the machine has; None if the system does not say."""
    # proc_meminfo(5)
    match = re.search(r"^MemTotal:\s*([0-9]+) kB$", _text(root / "proc/meminfo"), re.M)
    return int(match[1]) * 1024 if match else None


def memory_limit(root: Path = Path("/")) -> int | None:
    """The bytes that this process and others may take at most; None if nothing says so."""
    known = (cgroup_limits(root).memory, machine_memory(root))
    return min((limit for limit in known if limit is not None), default=None)


def _lowest(limits: Iterator[Iterator[_Number]]) -> _Number | None:
    return min((limit for some in limits for limit in some), default=None)


def _memory_limits(folder: Path) -> Iterator[int]:
    # Above memory.high, processes are made to wait until they hardly run.
    for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
        limit = _number(_text(folder / name))
        if limit is not None and 0 < limit < _UNLIMITED:
            yield limit


def _core_limits(folder: Path) -> Iterator[float]:
    numbers = _text(folder / "cpu.max").split()
    numbers = numbers or [
        _text(folder / "cpu.cfs_quota_us"),
        _text(folder / "cpu.cfs_period_us"),
    ]
    if len(numbers) == 2:
        quota, period = map(_number, numbers)
        if quota and period and quota > 0:
            yield quota / period


def _folders(root: Path) -> Iterator[Path]:
    """The directories of this process's cgroups and of all above them, as far as they are seen."""
    paths = dict(_paths(_text(root / "proc/self/cgroup")))
    for controllers, inside, mount in _mounts(_text(root / "proc/self/mountinfo")):
        top = root / mount.lstrip("/")
        for controller in controllers:
            yield from _upwards(top, _below(inside, paths.get(controller, "/")))


def _paths(text: str) -> Iterator[tuple[str, str]]:
    """Controllers and the cgroups of a process; the controller of version 2 is called ""."""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            yield controller, path


def _mounts(text: str) -> Iterator[tuple[set[str], str, str]]:
    """Of each file system of cgroups: its controllers, the cgroup at its top, its mount point."""
    for line in text.splitlines():
        mount, _, rest = line.partition(" - ")
        place, system = mount.split(), rest.split()
        if len(place) < 5 or len(system) < 3:
            continue
        if system[0] == "cgroup2":
            yield {""}, _unescaped(place[3]), _unescaped(place[4])
        elif system[0] == "cgroup":
            controllers = {"memory", "cpu"} & set(system[2].split(","))
            yield controllers, _unescaped(place[3]), _unescaped(place[4])


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _below(inside: str, path: str) -> tuple[str, ...]:
    """
    A cgroup's path below the top of a file system. Containers see a part of the host's: where the
    cgroup is not below its top, the top is the closest that is seen.
    """
    top, names = Path(inside).parts, Path(path).parts
    is_seen = names[: len(top)] == top and ".." not in names
    return names[len(top) :] if is_seen else ()


def _upwards(top: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for count in range(len(names), -1, -1):
        yield top.joinpath(*names[:count])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """The whole number that a text is; None if it is anything else, such as C{max}."""
    try:
        return int(text)
    except ValueError:
        return None
