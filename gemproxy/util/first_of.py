"""Waits for whatever happens first."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


def first_of(*waiting: Deferred[Any]) -> Deferred[Any]:
    """
    Fires, or fails, as the first of these does; the others are cancelled then, and so are all of
    them if the wait is cancelled. What becomes of those is of no interest.
    """

    def cancel_all(_: object = None) -> None:
        for each in waiting:
            each.cancel()

    def came(result: Any) -> None:
        if not first.called:
            first.callback(result)
            cancel_all()

    first: Deferred[Any] = Deferred(cancel_all)
    for each in waiting:
        each.addBoth(came)
    return first
