"""The order in which requests begin that come at once."""

from __future__ import annotations

from functools import partial

import pytest
from twisted.internet.task import Clock

from gemproxy.web.throttle import AdmissionThrottle


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(1)
    return clock


@pytest.fixture
def throttle(clock: Clock) -> AdmissionThrottle:
    return AdmissionThrottle(clock)


def test_a_burst_begins_a_few_at_a_time_in_its_order(
    clock: Clock, throttle: AdmissionThrottle
) -> None:
    seen: list[str] = []

    def begin(number: int) -> None:
        seen.append(f"begin {number}")
        clock.callLater(0, seen.append, f"answer {number}")

    for number in range(20):
        throttle.spread(partial(begin, number))
    assert seen == [f"begin {number}" for number in range(8)]
    clock.advance(0)
    assert seen.index("answer 7") < seen.index("begin 8")
    assert [event for event in seen if "begin" in event] == [f"begin {n}" for n in range(20)]
    assert clock.getDelayedCalls() == []


def test_waiting_requests_are_not_overtaken(clock: Clock, throttle: AdmissionThrottle) -> None:
    begun: list[int] = []
    for number in range(10):
        throttle.spread(partial(begun.append, number))
    # However late that is.
    clock.rightNow += 1
    throttle.spread(partial(begun.append, 10))
    clock.advance(0)
    assert begun == list(range(11))


def test_requests_at_an_ordinary_pace_do_not_wait(
    clock: Clock, throttle: AdmissionThrottle
) -> None:
    begun: list[int] = []
    for number in range(50):
        throttle.spread(partial(begun.append, number))
        clock.advance(0.001)
        assert begun == list(range(number + 1))


def test_what_takes_long_has_a_turn_of_its_own(clock: Clock, throttle: AdmissionThrottle) -> None:
    seen: list[str] = []

    def begin(number: int) -> None:
        seen.append(f"begin {number}")
        if number >= 8:
            clock.rightNow += 0.01
        clock.callLater(0, seen.append, f"between {number}")

    for number in range(11):
        throttle.spread(partial(begin, number))
    clock.advance(0)
    assert seen.index("between 8") < seen.index("begin 9")
    assert seen.index("between 9") < seen.index("begin 10")


def test_one_that_fails_keeps_no_other_waiting(clock: Clock, throttle: AdmissionThrottle) -> None:
    begun: list[int] = []

    def begin(number: int) -> None:
        begun.append(number)
        if number == 8:
            raise ValueError

    for number in range(11):
        throttle.spread(partial(begin, number))
    with pytest.raises(ValueError, match=""):
        clock.advance(0)
    clock.advance(0)
    assert begun == [*range(11)]


def test_what_had_its_turn_begins_at_once(clock: Clock, throttle: AdmissionThrottle) -> None:
    begun: list[str] = []
    for number in range(8):
        throttle.spread(partial(begun.append, f"{number}"))
    assert not throttle.is_busy

    def parse() -> None:
        assert not throttle.is_busy
        throttle.spread(partial(begun.append, "parsed"))

    throttle.spread(parse)
    throttle.spread(partial(begun.append, "behind it"))
    assert throttle.is_busy
    clock.advance(0)
    assert begun[8:] == ["parsed", "behind it"]
    assert not throttle.is_busy


def test_no_request_begins_late_in_a_turn(clock: Clock) -> None:
    """However few there are, and however far apart they begin."""
    began = [clock.seconds()]
    throttle = AdmissionThrottle(clock, lambda: clock.seconds() - began[0])
    seen: list[str] = []

    def begin(number: int) -> None:
        seen.append(f"begin {number}")
        clock.rightNow += 0.002
        clock.callLater(0, seen.append, f"between {number}")

    for number in range(5):
        throttle.spread(partial(begin, number))
    assert seen == ["begin 0", "begin 1", "begin 2"]
    began[0] = clock.seconds()
    clock.advance(0)
    assert seen.index("between 2") < seen.index("begin 3")
    clock.advance(0)
    assert "begin 4" in seen
