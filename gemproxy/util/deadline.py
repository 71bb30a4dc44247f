"""A time limit for a block of code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.interfaces import IReactorTime


@contextmanager
def deadline(
    reactor: IReactorTime, delay: float, function: Callable[..., object], *args: Any
) -> Iterator[None]:
    """
    Call a function if the body of the C{with} statement does not end in time. The body continues.

    @param delay: the time limit in seconds.
    """
    call = reactor.callLater(delay, function, *args)
    try:
        yield
    finally:
        if call.active():
            call.cancel()
