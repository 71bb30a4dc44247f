"""Waits for whatever happens first."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


def first_of(*waiting: Deferred[Any]) -> Deferred[Any]:
    """
    Fires, or fails, as the first of these does, and may be cancelled. The others go on, and what
    becomes of them is of no interest.
    """
    first: Deferred[Any] = Deferred()

    def came(result: Any) -> None:
        if not first.called:
            first.callback(result)

    for each in waiting:
        each.addBoth(came)
    return first
