"""
Lets a daemon's wall clock be set while it runs, as an administrator or NTP does.

C{python -m testing.wall_clock FILE ARGUMENTS...} is C{twistd ARGUMENTS...} with the clock that
L{WallClock} sets by means of the file.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

_SECONDS = struct.Struct("d")


class WallClock:
    """
    The wall clock of a process.

    @ivar twistd: the command that is C{twistd} with this clock.
    """

    def __init__(self, file: Path) -> None:
        file.write_bytes(_SECONDS.pack(0.0))
        self._file = file
        self.twistd = [sys.executable, "-m", "testing.wall_clock", str(file)]

    def set(self, ahead: float) -> None:
        """@param ahead: of the machine's, in seconds; negative for behind."""
        # Not anew: the file is mapped into the memory of the process.
        with self._file.open("r+b") as file:
            file.write(_SECONDS.pack(ahead))


def _replace_wall_clock(file: Path) -> None:
    with file.open("rb") as opened:
        memory = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    true_time = time.time
    time.time = lambda: true_time() + _SECONDS.unpack_from(memory)[0]


def main() -> None:
    file = Path(sys.argv.pop(1))
    # Before Twisted is imported, which keeps the function for itself.
    _replace_wall_clock(file)
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
