"""Several pieces of work side by side, as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from twisted.internet.defer import Deferred, FirstError, gatherResults

_T = TypeVar("_T")


async def gather_or_cancel(works: Sequence[Deferred[_T]]) -> list[_T]:
    """
    The results of all works. Should one fail, the others are cancelled; so are all of them if the
    waiting is.

    @raise Exception: what the first one to fail failed with.
    """
    try:
        return cast("list[_T]", await gatherResults(works, consumeErrors=True))
    except FirstError as first:
        raise cast("Exception", first.subFailure.value) from None
    finally:
        for work in works:
            work.cancel()
