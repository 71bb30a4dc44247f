"""Times that all processes of a daemon know, in files."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path


class SharedTimes(MutableMapping[bytes, float]):
    """
    Times by keys, the earliest first: a file for each in a folder. It blocks, for some
    microseconds. What one process has written or removed, all others know at once. What cannot be
    written, this one knows alone.
    """

    def __init__(self, folder: Path) -> None:
        """@param folder: is made with the first time."""
        self._folder = folder
        self._unwritten: dict[bytes, float] = {}

    def __getitem__(self, key: bytes) -> float:
        with suppress(OSError, ValueError):
            return float(self._path(key).read_text())
        return self._unwritten[key]

    def __setitem__(self, key: bytes, time: float) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._path(key).write_text(repr(time))
        except OSError:
            self._unwritten[key] = time

    def __delitem__(self, key: bytes) -> None:
        """Another process may have done it already."""
        self._unwritten.pop(key, None)
        with suppress(OSError):
            self._path(key).unlink()

    def __iter__(self) -> Iterator[bytes]:
        written = (bytes.fromhex(path.name) for path in self._folder.glob("*"))
        return iter(sorted({*written, *self._unwritten}, key=lambda key: self.get(key, 0.0)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _path(self, key: bytes) -> Path:
        return self._folder / key.hex()
