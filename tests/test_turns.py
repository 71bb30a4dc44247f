"""The turns of the reactor: how long they take, and what ran in one that took too long."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from attrs import define
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.pollreactor import PollReactor
from twisted.internet.task import deferLater
from twisted.logger import eventAsText, globalLogPublisher
from twisted.python.failure import Failure

from gemproxy.http.reactor_turns import TurnService
from gemproxy.util.turns import BOUNDS, Turns, Watchdog, where
from tests.support import until


@define
class Hand:
    """A clock that is set by hand."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def told() -> list[tuple[float, str]]:
    return []


@pytest.fixture
def turns(clock: Hand, told: list[Any]) -> Turns:
    return Turns(lambda *args: told.append(args), clock, slow=0.25)


def take(turns: Turns, clock: Hand, seconds: float) -> None:
    """A turn of so many seconds, after a wait."""
    turns.begin()
    clock.now += seconds
    turns.end()
    clock.now += 1000


def test_turns_are_counted_by_their_length(turns: Turns, clock: Hand) -> None:
    for seconds in (0.0005, 0.0005, 0.002, 0.3, 60.0):
        take(turns, clock, seconds)
    counts = dict(zip([*BOUNDS, None], turns.counts, strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {
        0.001: 2,
        0.0025: 1,
        0.5: 1,
        None: 1,
    }
    assert turns.total == pytest.approx(60.303)
    assert turns.longest == pytest.approx(60.0)


def test_a_turn_that_has_not_begun_does_not_end(turns: Turns) -> None:
    turns.end()
    assert sum(turns.counts) == 0


def test_slow_turns_are_told_of(turns: Turns, clock: Hand, told: list[Any]) -> None:
    for seconds in (0.2, 0.25, 0.1, 3.0):
        take(turns, clock, seconds)
    assert [(round(seconds, 3), place) for seconds, place in told] == [(0.25, ""), (3.0, "")]


def here() -> FrameType:
    return sys._getframe()


def no_frame() -> None:
    raise AssertionError("nobody should look")


def test_a_slow_turn_is_looked_at_once(turns: Turns, clock: Hand, told: list[Any]) -> None:
    watchdog = Watchdog(turns)
    assert watchdog.look(no_frame) == 0.25
    turns.begin()
    clock.now += 0.1
    # When it could be slow.
    assert watchdog.look(no_frame) == pytest.approx(0.15)
    clock.now += 0.16
    assert watchdog.look(here) == 0.25
    clock.now += 0.3
    assert watchdog.look(no_frame) == 0.25
    turns.end()
    ((seconds, place),) = told
    assert seconds == pytest.approx(0.56)
    assert place.startswith("tests.test_turns.here:")
    # The next one is another.
    turns.begin()
    clock.now += 0.3
    turns.end()
    assert told[-1][1] == ""


def test_where_a_frame_is_tells_who_called_but_not_how() -> None:
    def mainLoop() -> str:
        return between(lambda: where(here()))

    def between(called: Callable[[], str]) -> str:
        from twisted.python.context import call

        return call({}, called)

    names = [name.partition(":")[0].rpartition(".")[2] for name in mainLoop().split(" < ")]
    assert names == ["here", "<lambda>", "between"]


def test_where_a_frame_is_stays_short() -> None:
    def deep(levels: int) -> str:
        return where(here()) if not levels else deep(levels - 1)

    assert deep(100).count(" < ") < 20


def watchdogs() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gemproxy-watchdog"]


def stuck(seconds: float) -> None:
    time.sleep(seconds)


@ensureDeferred
async def test_a_reactor_that_is_stuck_is_told_of(told: list[Any]) -> None:
    turns = Turns(lambda *args: told.append(args), slow=0.05)
    before, threads = reactor._poller, watchdogs()
    service = TurnService(reactor, turns)
    service.startService()
    try:
        await deferLater(reactor, 0, stuck, 0.3)
        await until(lambda: told, "it is told of")
    finally:
        service.stopService()
    assert reactor._poller is before
    assert watchdogs() == threads
    seconds, place = max(told)
    assert seconds >= 0.3
    assert turns.longest == seconds
    assert place.startswith("tests.test_turns.stuck:")


class Reader(FileDescriptor):
    """One end of a pair of sockets, at whose other end something has come."""

    def __init__(self, reactor: Any, read: Callable[[], object]) -> None:
        super().__init__(reactor)
        self.lost: list[Failure] = []
        self._ends = socket.socketpair()
        self.fileno = self._ends[0].fileno
        self.doRead = read
        self._ends[1].send(b"x")
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self.lost.append(reason)
        for end in self._ends:
            end.close()
        if reason.check(ConnectionDone):
            raise ValueError("it goes badly")


@pytest.mark.parametrize("kind", [EPollReactor, PollReactor])
def test_each_event_goes_to_whom_it_is_for(kind: type[Any], turns: Turns) -> None:
    reactor, logged, happened = kind(), list[Any](), list[str]()
    service = TurnService(reactor, turns)
    service.startService()
    globalLogPublisher.addObserver(logged.append)
    try:
        one = Reader(reactor, lambda: happened.append("one") or other.stopReading())
        other = Reader(reactor, lambda: happened.append("other") or one.stopReading())
        reactor.iterate()
        assert len(happened) == 1, "who is not read any more got an event"
        failing = Reader(reactor, lambda: 1 / 0)
        ending = Reader(reactor, lambda: ConnectionDone())
        last = Reader(reactor, lambda: happened.append("last") or last.stopReading())
        reactor.iterate(1)
        reactor.removeAll()
    finally:
        globalLogPublisher.removeObserver(logged.append)
        service.stopService()
    assert "last" in happened
    assert [reason.type for reason in failing.lost] == [ZeroDivisionError]
    assert [reason.type for reason in ending.lost] == [ConnectionDone]
    told = [eventAsText(event, includeTimestamp=False, includeSystem=False) for event in logged]
    assert any("ZeroDivisionError" in text for text in told)
    assert any("an event was not processed" in text and "it goes badly" in text for text in told)


@ensureDeferred
async def test_who_has_taken_the_place_since_stays_there(turns: Turns) -> None:
    before = reactor._poller
    inner, outer = TurnService(reactor, turns), TurnService(reactor, turns)
    inner.startService()
    outer.startService()
    inner.stopService()
    await deferLater(reactor, 0)
    assert reactor._poller is not before
    outer.stopService()
    reactor._poller = before


def test_a_reactor_without_a_poller_is_left_alone(turns: Turns) -> None:
    import asyncio

    service = TurnService(AsyncioSelectorReactor(asyncio.new_event_loop()), turns)
    assert not service.can_measure
    service.startService()
    service.stopService()
