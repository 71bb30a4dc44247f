"""Bytes that are hardly requests."""

from __future__ import annotations

import random
from collections.abc import Sequence

_PLACES = [b"\r\n", b"\0", b"\r\n\r\n", b"\xff", b": "]


def mutated(randomness: random.Random, samples: Sequence[bytes]) -> bytes:
    """One sample, or several in a row, with a few bytes lost, added or changed."""
    data = bytearray(b"".join(randomness.choices(samples, k=randomness.choice((1, 1, 1, 2, 3)))))
    for _ in range(randomness.choice((0, 1, 1, 2, 5))):
        place = randomness.randrange(len(data) + 1)
        match randomness.randrange(5):
            case 0:
                data[place : place + 1] = randomness.randbytes(1)
            case 1:
                data[place:place] = randomness.randbytes(randomness.randrange(20))
            case 2:
                del data[place : place + randomness.randrange(1, 30)]
            case 3:
                data[place:place] = randomness.choice(_PLACES)
            case 4:
                data[place:place] = data[: randomness.randrange(60)]
    return bytes(data)
