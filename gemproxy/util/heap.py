"""Gives memory back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

from attrs import define
from twisted.internet.interfaces import IReactorTime

# Seconds for which more may come, and be gone.
_DELAY = 5.0


def give_back() -> None:
    """
    Return what is free in the heap, which the allocator keeps for the next time. Other C libraries
    than glibc have no such function, malloc_trim(3).
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@define(eq=False)
class HeapTrimmer:
    """Gives memory back when something large has come and gone, but not for each of it."""

    _clock: IReactorTime
    _is_due: bool = False

    def soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._clock.callLater(_DELAY, self._trim)

    def _trim(self) -> None:
        self._is_due = False
        give_back()
