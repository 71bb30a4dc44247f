"""
The program of a child process: calls functions, one after the other, until its input ends.

A call comes as a frame of a function and its arguments, and goes as one of whether it returned, and
of what it returned or raised.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from gemproxy.offload.frames import FrameReader, decode, encode
from gemproxy.util.core_dumps import forbid_core_dumps

# Others go first where there is too little CPU time or memory for all.
_NICENESS = 5
_FIRST_TO_GO = "800"


def main() -> None:
    # Ctrl-C is for the daemon, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    # After that file, which is root's from then on. There are keys and conversations here, too.
    forbid_core_dumps()
    # What a process does is short, and hardly any of its garbage is in cycles.
    gc.disable()
    with suppress(BrokenPipeError):
        _serve(sys.stdin.buffer, sys.stdout.buffer)


def _serve(calls: IO[bytes], results: IO[bytes]) -> None:
    while (frame := _read(calls)) is not None:
        outcome = _call(frame)
        del frame
        results.writelines(outcome)
        results.flush()
        del outcome
        gc.collect()


def _call(frame: list[bytes]) -> list[bytes]:
    try:
        function, *args = decode(frame)
        return encode((True, function(*args)))
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> list[bytes]:
    try:
        return encode((False, error))
    except Exception:
        return encode((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _read(calls: IO[bytes]) -> list[bytes] | None:
    """The pieces of the next frame; None at the end of the input."""
    reader = FrameReader()
    while reader.missing:
        data: Any = calls.read(reader.missing)
        if not data:
            return None
        reader.feed(data)
    return reader.pieces


if __name__ == "__main__":
    main()
