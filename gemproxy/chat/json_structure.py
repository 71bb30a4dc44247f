"""The structure of JSON text, found without parsing it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

DEEPEST = 200
"""Levels at most, whatever the settings: low enough for all functions that call themselves."""

# Pieces are small, so that nobody waits long for a thread that looks at one.
_PIECE = 1 << 18
_FEW = 1000
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
_STEPS = [0] * 256
_STEPS[ord("[")] = _STEPS[ord("{")] = 1
_STEPS[ord("]")] = _STEPS[ord("}")] = -1


def is_deeper(text: bytes, levels: int) -> bool:
    """Whether arrays and objects of a JSON text are in each other on more levels than these."""
    if openers(text) <= levels:
        return False
    return any(level > levels for _, level in levels_of(text, levels))


def levels_of(text: bytes, enough: int) -> Iterator[tuple[bytes, int]]:
    """
    Pieces of the structure, and the deepest level in each.

    @param enough: where no level can be deeper than this, it is not worked out: the one at the
        beginning of the piece is given.
    """
    level = 0
    for structure in _structure(text):
        opened = openers(structure)
        deepest = level
        if level + opened > enough:
            deepest = max(accumulate(map(_STEPS.__getitem__, structure), initial=level))
        yield structure, deepest
        level += 2 * opened - len(structure) + structure.count(b",")


def _structure(text: bytes) -> Iterator[bytes]:
    """Brackets, braces and commas outside of texts, piece by piece."""
    start, within = 0, False
    while start < len(text):
        piece = text[start : start + _PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            # A backslash and what it escapes stay together.
            piece = text[start : start + _PIECE + 1]
        start += len(piece)
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = piece.split(b'"')
        yield b"".join(pieces[within::2]).translate(None, _NOT_STRUCTURE)
        within ^= len(pieces) % 2 == 0


def openers(text: bytes | bytearray) -> int:
    """How many arrays and objects begin, those in texts included."""
    if len(text) < _PIECE:
        return text.count(b"[") + text.count(b"{")
    return _count(text, b"[") + _count(text, b"{")


def _count(text: bytes | bytearray, byte: bytes) -> int:
    places = few_places(text, byte)
    return text.count(byte) if places is None else len(places)


def few_places(text: bytes | bytearray, byte: bytes) -> list[int] | None:
    """
    Where a byte is that is rare: None if there are more than a thousand. In a picture's text of
    megabytes, this takes a tenth of the time of C{text.count}.
    """
    places: list[int] = []
    place = text.find(byte)
    while place >= 0:
        if len(places) == _FEW:
            return None
        places.append(place)
        place = text.find(byte, place + 1)
    return places
