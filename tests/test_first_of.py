"""Waiting for whatever happens first."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from gemproxy.util.first_of import first_of


def waiting() -> tuple[Deferred[Any], Deferred[Any], Deferred[Any], list[Any]]:
    one, two, seen = Deferred[Any](), Deferred[Any](), list[Any]()
    first = first_of(one, two)
    first.addBoth(seen.append)
    return first, one, two, seen


@pytest.mark.parametrize("winner", [0, 1])
def test_the_first_result_counts_and_the_other_is_cancelled(winner: int):
    _, *each, seen = waiting()
    each[winner].callback("won")
    assert seen == ["won"]
    # It was cancelled, so this comes to nothing.
    each[1 - winner].callback("lost")
    assert seen == ["won"]


def test_so_does_the_first_error():
    _, one, two, seen = waiting()
    two.errback(KeyError("no"))
    assert seen[0].check(KeyError)
    assert one.called


def test_what_has_happened_already_is_first():
    done: Deferred[Any] = Deferred()
    done.callback("done")
    other: Deferred[Any] = Deferred()
    seen: list[Any] = []
    first_of(other, done).addCallback(seen.append)
    assert seen == ["done"]
    assert other.called


def test_whoever_cancels_it_cancels_all():
    first, one, two, seen = waiting()
    first.cancel()
    assert seen[0].check(CancelledError)
    assert one.called
    assert two.called
