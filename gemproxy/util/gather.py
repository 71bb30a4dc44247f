"""Waits for several Deferreds at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from twisted.internet.defer import Deferred, FirstError, gatherResults

_T = TypeVar("_T")


async def gather_or_cancel(works: Sequence[Deferred[_T]]) -> list[_T]:
    """
    Wait for the results of all works. If one fails, the others are cancelled. If the wait is
    cancelled, all of them are.

    @raise Exception: the error of the first work that failed.
    """
    try:
        return cast("list[_T]", await gatherResults(works, consumeErrors=True))
    except FirstError as first:
        raise cast("Exception", first.subFailure.value) from None
    finally:
        # The last one first: what waits for its turn shall not get the turn of one that ends.
        for work in reversed(works):
            work.cancel()
