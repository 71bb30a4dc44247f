"""Waits for several works at once."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, FirstError, ensureDeferred, gatherResults

_T = TypeVar("_T")


async def gather_or_cancel(
    works: Iterable[Coroutine[Deferred[Any], Any, _T] | Deferred[_T]],
) -> list[_T]:
    """
    Have all works done side by side, and wait for their results. If one fails, the others are
    cancelled. If the wait is cancelled, all of them are.

    @raise Exception: the error of the first work that failed.
    """
    given = list(works)
    if len(given) == 1:
        return [await given[0]]
    begun = [*map(ensureDeferred, given)]
    try:
        return cast("list[_T]", await gatherResults(begun, consumeErrors=True))
    except FirstError as first:
        raise cast("Exception", first.subFailure.value) from None
    finally:
        # The last one first: what waits for its turn shall not get the turn of one that ends.
        for work in reversed(begun):
            work.cancel()
