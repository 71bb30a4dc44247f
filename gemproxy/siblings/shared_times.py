"""Times that all processes of a daemon know, in files."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path


class SharedTimes(MutableMapping[bytes, float]):
    """
    Times by keys, the earliest first: a file for each in a folder. It blocks, for some
    microseconds. What one process has written or removed, all others know at once.
    """

    def __init__(self, folder: Path) -> None:
        """@param folder: is made with the first time."""
        self._folder = folder

    def __getitem__(self, key: bytes) -> float:
        try:
            return float(self._path(key).read_text())
        except (OSError, ValueError):
            raise KeyError(key) from None

    def __setitem__(self, key: bytes, time: float) -> None:
        """@raise OSError: nothing can be written."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._path(key).write_text(repr(time))

    def __delitem__(self, key: bytes) -> None:
        """Another process may have done it already."""
        self._path(key).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[bytes]:
        keys = (bytes.fromhex(path.name) for path in self._folder.glob("*"))
        return iter(sorted(keys, key=lambda key: self.get(key, 0.0)))

    def __len__(self) -> int:
        return len(list(self._folder.glob("*")))

    def _path(self, key: bytes) -> Path:
        return self._folder / key.hex()
