"""Keeps the memory of this process to itself: there are keys and conversations in it."""

from __future__ import annotations

import ctypes
import resource
import sys

# linux/prctl.h
_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """
    Leave no core file when the process crashes. On Linux no other process of the same user may
    attach to it or read its memory, environment and descriptors any more. Programs that it runs are
    not concerned.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    if sys.platform == "linux":
        # A core file is written even without a limit if it goes to a pipe (core(5)).
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
