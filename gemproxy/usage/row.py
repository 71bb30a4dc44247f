"""A row for each request that ended: who asked whom for what, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import log2
from typing import NamedTuple

from gemproxy.chat.chunks import Usage

OTHER = "(other)"
"""Stands for the names of models beyond those that are told apart."""

CLIENT_GONE = 499
"""
The status of a request whose client did not wait for the answer, which is nobody's error. It is the
one that nginx logs for this, and is never sent.
"""

NAME_LENGTH = 200
"""Characters of the name of a model."""

_WORD_LENGTH = 40
# Tokens of a request. What an upstream says goes into sums of 64 bits.
_MOST_TOKENS = 10**9

SHORTEST = 0.001
STEPS = 3
BUCKETS = 60
"""
Times are counted in buckets for their percentiles: the first one is for less than SHORTEST seconds,
each further one ends at 2^(1/STEPS) times the end of the one before, and the last one has no end.
"""


class Row(NamedTuple):
    """
    A request that ended. There are no texts in it.

    @ivar time: that of the request, in seconds since the epoch.
    @ivar account: the name of that which asked; empty for none.
    @ivar model: the name under which whoever answered knows it; empty if there is none.
    @ivar upstream: who answered: the name of an upstream, or C{gemini}; empty for nobody.
    @ivar input: tokens of the prompt, of which C{cached} were cached; None if they are not known.
    @ivar output: tokens that were generated, of which C{reasoning} were thoughts.
    @ivar first_token: seconds until the first piece of the answer; None if there was none.
    @ivar bucket: the one of L{first_token}.
    @ivar duration: seconds until the end.
    @ivar cost: None if the price or the tokens are not known.
    """

    time: float
    account: str
    model: str
    upstream: str
    status: int
    finish: str | None
    input: int | None
    cached: int | None
    output: int | None
    reasoning: int | None
    first_token: float | None
    bucket: int | None
    duration: float
    retries: int
    cost: float | None
    id: str

    @property
    def is_error(self) -> bool:
        return self.status >= 400 and self.status != CLIENT_GONE


class Names:
    """
    The names of models that are told apart: clients make up names, and each takes room for good.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, str] = {}

    def known(self, name: str) -> str:
        """A name as it is recorded."""
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= self._limit:
                return OTHER
            found = self._known[name] = shown(name, NAME_LENGTH)
        return found


def shown(name: str, length: int = _WORD_LENGTH) -> str:
    """A name that can be kept and shown anywhere: in one line, and not too long."""
    short = name[:length]
    if short.isprintable():
        return short
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in short)


def within_bounds(usage: Usage) -> Usage:
    """Token counts of which none is absurd, whatever an upstream says."""
    if 0 <= usage.reasoning <= usage.completion <= _MOST_TOKENS and (
        0 <= usage.cached <= usage.prompt <= _MOST_TOKENS
    ):
        return usage
    numbers = (usage.prompt, usage.completion, usage.reasoning, usage.cached)
    prompt, completion, reasoning, cached = (max(0, min(n, _MOST_TOKENS)) for n in numbers)
    return Usage(prompt, completion, min(reasoning, completion), min(cached, prompt))


def bucket_of(seconds: float | None) -> int | None:
    """The bucket of a time."""
    if seconds is None:
        return None
    if seconds < SHORTEST:
        return 0
    return min(BUCKETS - 1, 1 + int(STEPS * log2(seconds / SHORTEST)))


def percentile(counts: Iterable[int], share: float) -> float | None:
    """
    The time that so many of all times do not exceed, in seconds; None if there are none. It is the
    middle of a bucket, and so right to within an eighth.

    @param counts: the number of times in each bucket.
    @param share: from 0 to 1.
    """
    counts = list(counts)
    needed = share * sum(counts)
    if not needed:
        return None
    so_far = 0
    for bucket, count in enumerate(counts):
        so_far += count
        if so_far >= needed:
            return round(float(SHORTEST * 2 ** ((bucket - 0.5) / STEPS)), 5)
    raise AssertionError("the shares of all buckets are not all")
