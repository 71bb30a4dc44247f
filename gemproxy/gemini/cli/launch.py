"""
Runs a command in its own process group, and ends it with the parent process. Where memory does not
suffice, the kernel takes it rather than the parent.

A program, not a module to import: C{python -I launch.py COMMAND [ARG ...]}. Twisted's
spawnProcess cannot do this in the child between fork and exec.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# proc_pid_oom_score_adj(5): by half of all memory that is allowed.
_OOM_SCORE_ADJ = "500"


def main(command: list[str]) -> None:
    parent = os.getppid()
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("The parent process has already ended.")
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as adjustment:
            adjustment.write(_OOM_SCORE_ADJ)
    os.execv(command[0], command)  # noqa: S606 - as the daemon names it


if __name__ == "__main__":
    main(sys.argv[1:])
