"""What the processes of one daemon have counted, in files, so that it stays when they end."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import field, frozen

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.siblings.metric_sums import Families, families_in, joined

_SUFFIX = ".counts"
_ENDED = "ended.counts"
_LOCK = "ended.lock"
# The last processes whose counts were added up. Whoever reads looks again within milliseconds.
_REMEMBERED = 100


@frozen
class Left:
    """
    What was left by others.

    @ivar by_name: the counts of each process that has a file.
    @ivar ended: those of all processes that have none any more, added up.
    @ivar added_up: the names of these processes, the last ones at the end.
    """

    by_name: Mapping[str, Families] = field(factory=dict)
    ended: Families = ()
    added_up: tuple[str, ...] = ()


class CountsLeft:
    """
    The files of a folder: one of each process, with what it last told, and one for those that have
    ended and were added up. All of it blocks, for a millisecond.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """@param name: that of this process."""
        self._folder = folder
        self._own = folder / f"{name}{_SUFFIX}"

    def leave(self, counts: Families) -> None:
        """
        Write down what this process has counted.

        @raise OSError:
        """
        _write(self._own, [family.as_json() for family in counts])

    def read(self) -> Left:
        """What all others have left. A file that cannot be read is left out."""
        # In this order: what is added up meanwhile is in both, and can be told by its name.
        by_name = {
            path.name.removesuffix(_SUFFIX): families_in(document)
            for path in self._folder.glob(f"*{_SUFFIX}")
            if path.name != _ENDED and path != self._own and (document := _read(path)) is not None
        }
        document = _read(self._folder / _ENDED) or {}
        added_up = tuple(document.get("added_up", ()))
        for name in added_up:
            by_name.pop(name, None)
        return Left(by_name, families_in(document.get("counts", ())), added_up)

    def add_up(self, running: set[str]) -> None:
        """
        Make one file of those of processes that have ended, for the daemon may have had thousands.

        @param running: the names of processes that have not ended.
        @raise OSError:
        """
        with open(self._folder / _LOCK, "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Another process is at it.
                return
            self._add_up(running)

    def _add_up(self, running: set[str]) -> None:
        left = self.read()
        ended = sorted(left.by_name.keys() - running)
        if not ended:
            return
        counts = joined([left.ended, *(left.by_name[name] for name in ended)])
        names = [*left.added_up, *ended][-_REMEMBERED:]
        document = {"added_up": names, "counts": [family.as_json() for family in counts]}
        _write(self._folder / _ENDED, document)
        for name in ended:
            (self._folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)


def _read(path: Path) -> Any:
    """None if it is not there, or is none of these files."""
    with suppress(OSError, ValueError):
        return loads(path.read_bytes())
    return None


def _write(path: Path, document: object) -> None:
    """Whoever reads finds the file as it was, or as it is then."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(dumps(document))
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
