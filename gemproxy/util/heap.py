"""Gives memory back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """
    Return what is free in the heap, which the allocator keeps for the next time. Other C libraries
    than glibc have no such function, malloc_trim(3).
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
