"""What is to be done if something takes too long."""

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
    Call a function if the body of the C{with} statement is not over in time; it goes on then.

    @param delay: seconds.
    """
    call = reactor.callLater(delay, function, *args)
    try:
        yield
    finally:
        if call.active():
            call.cancel()
