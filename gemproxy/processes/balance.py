"""
Who of several processes is to accept the next connection: not the one that has more than others.

The kernel gives a connection to whichever process asks first, be it the same one again and again.
So they know of each other how many connections each has, in memory that they share.
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress
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


class Balance:
    """Whether a process is to accept connections."""

    def __init__(self, place: Place) -> None:
        """@param place: that of this process."""
        self._number = place.number
        self._connections = 0
        self._counts: Counts | None = None
        # Whoever has removed the folder of a daemon that runs has ended the balance as well.
        with suppress(OSError):
            self._counts = None if place.folder is None else Counts(place.folder / FILE)

    def tell(self, connections: int) -> None:
        """@param connections: how many this process has from now on."""
        self._connections = connections
        if self._counts is not None:
            self._counts.set(self._number, connections)

    def is_for_others(self) -> bool:
        """Whether the next connection is better left to another process."""
        return self._counts is not None and self._counts.is_enough(self._connections)

    def leave(self) -> None:
        """This process accepts no more; another one may have its number."""
        self._counts = None
