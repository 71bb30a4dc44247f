"""The files of the journal: numbered pairs in a folder, of which the last ones are kept."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

_NUMBERED = re.compile(r"(\d{6}|[1-9]\d{6,})_(?:input\.json|output\.txt)")
# The prefix of the names of incomplete files.
_PART = ".gemproxy-part-"
# Another daemon holds the lock for as long as a pair of files takes.
_LOCK_TIME, _LOCK_PAUSE = 5.0, 0.02
# After a listing there is none for so many times the seconds that it took, if it can be helped.
_PAUSE_OF_LISTING = 100


def paths_of(folder: Path, number: int) -> tuple[Path, Path]:
    """The files of a request and its answer."""
    request, answer = _names_of(number)
    return folder / request, folder / answer


def _names_of(number: int) -> tuple[str, str]:
    return f"{number:06d}_input.json", f"{number:06d}_output.txt"


def numbers_in(folder: Path) -> list[int]:
    """
    The numbers of the answers that there are, the newest first.

    @raise OSError: the folder cannot be read.
    """
    answers = (name for name in os.listdir(folder) if name.endswith("_output.txt"))
    matches = map(_NUMBERED.fullmatch, answers)
    return sorted((int(match[1]) for match in matches if match), reverse=True)


class JournalFolder:
    """
    Writes pairs of files and removes old ones. It blocks, and is used by one thread at a time.

    Several daemons may share a folder: they write one after the other, and their numbers are one
    sequence. What else is in the folder stays as it is, whatever its name.
    """

    def __init__(self, path: Path, keep: int) -> None:
        """@param keep: the number of pairs to keep; the least one of all daemons applies."""
        self._path = path
        # In front of names, as texts: paths take a sixth of the thread's time.
        self._within = os.path.join(path, "")
        part = f"{self._within}{_PART}{secrets.token_hex(8)}-"
        self._parts = (part + str(number) for number in count())
        self._keep = keep
        # In ascending order.
        self._numbers: deque[int] = deque()
        self._last = 0
        # Listing takes long if many are kept. What others have written is looked for when this, the
        # time of the folder's last change, is another one.
        self._changed: int | None = None
        self._next_listing = 0.0

    def try_out(self) -> None:
        """
        Create the folder, unless it is there, and a file in it that is removed again.

        @raise OSError: nothing can be written there.
        """
        os.close(self._opened())
        with self._part(b""):
            pass

    def write(self, request: bytes, answer: bytes) -> OSError | None:
        """
        Write a pair, both files or none, and remove the pair that is too many by now. Each file
        appears complete.

        @return: why a pair cannot be removed; None if nothing is in the way.
        @raise OSError: the pair cannot be written, and nothing is left of the attempt.
        """
        with self._locked() as descriptor:
            if os.fstat(descriptor).st_mtime_ns != self._changed:
                self._catch_up()
            number = self._last + 1
            if any(map(os.path.lexists, self._paths(number))):
                # Clocks of file systems are coarse.
                self._list()
                number = self._last + 1
            self._write_pair(self._paths(number), request, answer)
            self._last = number
            self._numbers.append(number)
            problem = self._remove_old()
            self._changed = os.fstat(descriptor).st_mtime_ns
        return problem

    def _write_pair(self, paths: tuple[str, str], request: bytes, answer: bytes) -> None:
        with self._part(request) as first, self._part(answer) as second:
            os.replace(first, paths[0])
            try:
                os.replace(second, paths[1])
            except BaseException:
                _unlink(paths[0])
                raise

    def _remove_old(self) -> OSError | None:
        problem: OSError | None = None
        while self._numbers and self._numbers[0] <= self._last - self._keep:
            for path in self._paths(self._numbers.popleft()):
                try:
                    _unlink(path)
                except OSError as error:
                    # It is left alone until the folder is listed again.
                    problem = problem or error
        return problem

    def _paths(self, number: int) -> tuple[str, str]:
        request, answer = _names_of(number)
        return self._within + request, self._within + answer

    def _catch_up(self) -> None:
        """Learn what others have written: as a rule what follows the last one, which is there."""
        if time.monotonic() >= self._next_listing or not self._is_there(self._last):
            self._list()
        while self._is_there(self._last + 1):
            self._last += 1
            self._numbers.append(self._last)

    def _is_there(self, number: int) -> bool:
        return os.path.lexists(self._paths(number)[1])

    def _list(self) -> None:
        """Learn what is in the folder, and remove what a crash has left half-written."""
        began = time.monotonic()
        numbers: set[int] = set()
        with os.scandir(self._path) as entries:
            for entry in entries:
                if match := _NUMBERED.fullmatch(entry.name):
                    self._last = max(self._last, int(match[1]))
                    if entry.is_file(follow_symlinks=False):
                        numbers.add(int(match[1]))
                elif entry.name.startswith(_PART):
                    # Nobody writes one now: the folder is locked. It may be a folder itself.
                    with suppress(OSError):
                        os.unlink(entry.path)
        self._numbers = deque(sorted(numbers))
        now = time.monotonic()
        self._next_listing = now + _PAUSE_OF_LISTING * (now - began)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """
        Keep other daemons from writing; gives the folder's descriptor.

        @raise OSError: another process keeps us from it.
        """
        descriptor = self._opened()
        try:
            end = time.monotonic() + _LOCK_TIME
            while not _try_lock(descriptor):
                if time.monotonic() > end:
                    raise OSError(errno.EWOULDBLOCK, "Another process has locked the folder")
                time.sleep(_LOCK_PAUSE)
            yield descriptor
        finally:
            os.close(descriptor)

    def _opened(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            return os.open(self._path, flags)
        except FileNotFoundError:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._path, flags)

    @contextmanager
    def _part(self, content: bytes) -> Iterator[str]:
        """A file with an unfinished name, which is removed unless it is given another one."""
        name = next(self._parts)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            yield name
        finally:
            with suppress(OSError):
                os.unlink(name)


def _unlink(path: str) -> None:
    """Remove a file, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems have no locks: then there is one daemon for a folder.
        return True
    return True
