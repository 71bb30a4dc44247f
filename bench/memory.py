"""
C{python -m bench.memory}: what a daemon serves with little memory.

A daemon with the real Gemini CLI runs in a cgroup with a memory limit, and many clients ask it at
once. The report says how many workers there were, how many requests were answered, and how many
processes the kernel killed. It needs the rights of root.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from testing.memory_cgroup import NoCgroups
from testing.trial.memory import SIZES, Size, trial


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", help="default: several", default=SIZES)
    parser.add_argument("--workers", type=int, help="GEMINI_WORKERS; default: auto")
    parser.add_argument("--clients", type=int, default=80, help="default: 80")
    parser.add_argument("--requests", type=int, default=240, help="default: 240")
    given = parser.parse_args()

    async def run(reactor: Any) -> None:
        wrong: list[str] = []
        for megabytes in given.megabytes:
            size = Size(megabytes, given.workers, given.clients, given.requests)
            with tempfile.TemporaryDirectory(prefix="gemproxy-memory-") as folder:
                try:
                    wrong += await trial(reactor, Path(folder), size)
                except NoCgroups:
                    sys.exit("No cgroup with a memory limit can be made here: that needs root.")
        sys.exit(bool(wrong))

    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
