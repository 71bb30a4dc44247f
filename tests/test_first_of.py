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
def test_the_first_result_counts_and_the_others_go_on(winner: int):
    _, *each, seen = waiting()
    each[winner].callback("won")
    assert seen == ["won"]
    assert not each[1 - winner].called
    # Nobody is told of an error that comes too late.
    each[1 - winner].errback(KeyError("lost"))
    assert seen == ["won"]


def test_so_does_the_first_error():
    _, _, two, seen = waiting()
    two.errback(KeyError("no"))
    assert seen[0].check(KeyError)


def test_what_has_happened_already_is_first():
    done: Deferred[Any] = Deferred()
    done.callback("done")
    seen: list[Any] = []
    first_of(Deferred(), done).addCallback(seen.append)
    assert seen == ["done"]


def test_the_wait_can_be_cancelled():
    first, one, _, seen = waiting()
    first.cancel()
    assert seen[0].check(CancelledError)
    one.callback("late")
