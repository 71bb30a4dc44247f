"""A cgroup with a memory limit, of version 1 or 2, for a process under test."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

_ROOTS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
_numbers = itertools.count(1)
_TRIES = 250


class NoCgroups(Exception):
    """No cgroup can be made here: that needs the rights of root, and writable cgroups."""


@frozen
class MemoryCgroup:
    """
    @ivar folder: the directory of the cgroup.
    """

    folder: Path

    @classmethod
    def make(cls, limit: int) -> MemoryCgroup:
        """
        @param limit: bytes of memory for all processes in it together, with no swap beyond.
        @raise NoCgroups: it cannot be made.
        """
        for root in _ROOTS:
            folder = root / f"gemproxy-trial-{os.getpid()}-{next(_numbers)}"
            with suppress(OSError):
                folder.mkdir()
                group = cls(folder)
                if group._limit(limit):
                    return group
                folder.rmdir()
        raise NoCgroups

    def _limit(self, limit: int) -> bool:
        names = ("memory.max", "memory.limit_in_bytes")
        for name in filter(lambda name: (self.folder / name).exists(), names):
            (self.folder / name).write_text(str(limit))
            for swap in ("memory.swap.max", "memory.swappiness"):
                with suppress(OSError):
                    (self.folder / swap).write_text("0")
            return True
        return False

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one in the cgroup."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.folder / "cgroup.procs"), *command]

    def kills(self) -> int:
        """How many of its processes the kernel has killed for their memory."""
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError):
                for line in (self.folder / name).read_text().splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        return int(value)
        return 0

    def remove(self) -> None:
        """Remove it; its processes must have been ended. The kernel counts them a while longer."""
        for _ in range(_TRIES):
            try:
                return self.folder.rmdir()
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{self.folder} cannot be removed")
