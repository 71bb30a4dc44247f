"""
How objects pass between the daemon and a child process: pickled, with large byte strings beside
them, so that these are copied as rarely as possible. Pure.

A frame is the number of its pieces, the size of each (unsigned 64-bit integers, big-endian), and
the pieces: the pickle, and the byte strings.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from typing import Any

# Smaller ones are pickled.
_LARGE = 64 * 1024
_NUMBER = struct.Struct(">Q")


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 5)
        self.beside: list[bytes] = []

    def persistent_id(self, value: Any) -> int | None:
        if type(value) is not bytes or len(value) < _LARGE:
            return None
        self.beside.append(value)
        return len(self.beside) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, beside: Sequence[bytes]) -> None:
        super().__init__(file)
        self._beside = beside

    def persistent_load(self, pid: int) -> bytes:
        return self._beside[pid]


def encode(value: Any) -> list[bytes]:
    """The frame of an object, in pieces."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    pieces = [file.getvalue(), *pickler.beside]
    return [_head([len(piece) for piece in pieces]), *pieces]


def _head(sizes: Sequence[int]) -> bytes:
    return b"".join(map(_NUMBER.pack, [len(sizes), *sizes]))


def decode(pieces: Sequence[bytes]) -> Any:
    """@param pieces: those of one frame, without its head. They come from a process of ours."""
    pickled, *beside = pieces
    return _Unpickler(io.BytesIO(pickled), beside).load()


class FrameReader:
    """
    Collects the pieces of one frame as they are received.

    @ivar missing: how many bytes of the current piece are to come; 0 at the end of the frame.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.missing = _NUMBER.size
        self._part = io.BytesIO()
        self._has_count = False
        # Of the pieces that are to come.
        self._sizes: list[int] | None = None

    def feed(self, data: bytes) -> None:
        """@raise ValueError: there is something behind the end of the frame."""
        rest = memoryview(data)
        while rest and self.missing:
            taken, rest = rest[: self.missing], rest[self.missing :]
            self._part.write(taken)
            self.missing -= len(taken)
            if not self.missing:
                part, self._part = self._part.getvalue(), io.BytesIO()
                self.missing = self._size_after(part)
        if rest:
            raise ValueError("more than one frame")

    def _size_after(self, part: bytes) -> int:
        """The size of what comes after a part; 0 at the end of the frame."""
        if self._sizes is not None:
            self.pieces.append(part)
        elif self._has_count:
            self._sizes = [size for (size,) in _NUMBER.iter_unpack(part)]
        else:
            self._has_count = True
            return int(_NUMBER.unpack(part)[0]) * _NUMBER.size
        return self._sizes.pop(0) if self._sizes else 0
