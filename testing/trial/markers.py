"""Texts that show whose they are, wherever they turn up."""

from __future__ import annotations

import random
import re

STOP_TAG = "<!--ST0P_PROXY_END-->"
_MARKER = re.compile(r"mk[0-9]+x[0-9a-f]{8}")


def new_marker(number: int, randomness: random.Random) -> str:
    return f"mk{number}x{randomness.getrandbits(32):08x}"


def marker_in(text: str) -> str | None:
    found = _MARKER.search(text)
    return None if found is None else found[0]


def pieces_for(marker: str) -> list[str]:
    """The one right answer to a request, as an upstream streams it."""
    randomness = random.Random(marker)
    padding = "x" * (5000 if randomness.random() < 0.03 else 0)
    pieces = [f"{marker}.{index}{padding} " for index in range(randomness.randint(1, 25))]
    if randomness.random() < 0.1:
        pieces.insert(randomness.randint(0, len(pieces)), STOP_TAG)
    return pieces


def expected(marker: str, stops_at_tags: bool) -> str:
    """What a client is to see of it."""
    text = "".join(pieces_for(marker))
    return text.partition(STOP_TAG)[0] if stops_at_tags else text
