"""
Who of several processes is to accept the next connection: not the one that has more than others.

The kernel gives a connection to whichever process asks first, be it the same one again and again.
So they know of each other how many connections each has, in memory that they share.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

from gemproxy.processes.place import Place

FILE = "connections"
"""The file of L{Counts}, in the folder of the processes."""

# Of a number of connections.
_BYTES = 4
_NOBODY = 2**32 - 1
# By so much, as a part of what it has, another process may have more.
_SLACK = 4


class Counts:
    """
    The numbers of connections of all processes: a file that each maps into its memory.

    A number is a hint, and may be late.
    """

    def __init__(self, path: Path) -> None:
        """@raise OSError: there is no such file."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._counts = memoryview(mmap.mmap(descriptor, 0)).cast("I")
        finally:
            os.close(descriptor)

    @classmethod
    def made(cls, path: Path, count: int) -> Counts:
        """
        Those of processes of which none is there yet.

        @raise OSError: the file cannot be made.
        """
        path.write_bytes(_NOBODY.to_bytes(_BYTES, sys.byteorder) * count)
        return cls(path)

    def set(self, number: int, connections: int) -> None:
        """@param number: of a process, from 1 on."""
        self._counts[number - 1] = connections

    def forget(self, number: int) -> None:
        """There is no such process: nobody waits for it."""
        self.set(number, _NOBODY)

    def is_enough(self, connections: int) -> bool:
        """Whether another process should have the next connection before one that has so many."""
        least = min(self._counts)
        return connections > least + least // _SLACK


def balance_of(place: Place, connections: Callable[[], int]) -> Callable[[], bool]:
    """
    Returns what says whether the next connection is better left to another process.

    @param place: that of this process.
    @param connections: how many it has.
    """
    if place.folder is None:
        return lambda: False
    try:
        counts = Counts(place.folder / FILE)
    except OSError:
        # Whoever has removed the folder of a daemon that runs.
        return lambda: False

    def is_for_others() -> bool:
        counts.set(place.number, number := connections())
        return counts.is_enough(number)

    return is_for_others
