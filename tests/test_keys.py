"""Several API keys: who gets which, which ones rest, and how they come back."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from gemproxy.chat.errors import ChatError
from gemproxy.gemini.api.keys import LONGEST_REST, RATE_REST, REST, KeyLease, KeyRing
from gemproxy.gemini.translate.errors import AttemptFailure, api_failure, transient
from testing.google import refusals
from tests.support import at_once

MODEL = "gemini-x"


def failure_of(refusal: refusals.Refusal) -> AttemptFailure:
    return api_failure(refusal.status, refusal.body)


DAILY = failure_of(refusals.day_quota())
MINUTE = failure_of(refusals.minute_quota(None))
BAD_KEY = failure_of(refusals.wrong_key())
NO_MODEL = failure_of(refusals.unknown_model(MODEL, "v1beta", "generateContent"))
BUSY = failure_of(refusals.error(503))


class Ring(KeyRing):
    """A key ring, its clock, and words for what is done with it."""

    def __init__(self, *names: str) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.date = 1_750_000_000.0
        super().__init__(self.clock, names, wall_clock=lambda: self.date)

    def take(self, model: str = MODEL) -> KeyLease:
        """Acquire a key, for which a ring of one daemon does not wait."""
        return at_once(self.acquire(model))

    def fail(self, failure: AttemptFailure, model: str = MODEL) -> tuple[str, bool]:
        """Which key was used for a request that failed, and whether to try another at once."""
        lease = self.take(model)
        return lease.key, self.release(lease, failure)

    def succeed(self, model: str = MODEL) -> str:
        lease = self.take(model)
        assert self.release(lease, None) is False
        return lease.key

    def advance(self, seconds: float, by_date: float) -> None:
        """@param by_date: the seconds for which the wall clock takes this."""
        self.clock.advance(seconds)
        self.date += by_date

    def refusal(self, model: str = MODEL) -> ChatError:
        with pytest.raises(ChatError) as caught:
            self.take(model)
        return caught.value


def test_requests_are_spread_evenly() -> None:
    ring = Ring("a", "b", "c")
    assert Counter(ring.take(MODEL).key for _ in range(30)) == {"a": 10, "b": 10, "c": 10}


def test_a_rest_does_not_grow_if_the_clock_is_set_back() -> None:
    ring = Ring("a")
    ring.fail(DAILY)
    ring.advance(REST, by_date=-3600)
    assert ring.succeed() == "a"


def test_a_rest_passes_while_the_machine_sleeps() -> None:
    ring = Ring("a")
    ring.fail(DAILY)
    ring.advance(0, by_date=REST - 2)
    assert ring.refusal().retry_after == 2
    ring.advance(0, by_date=2)
    assert ring.succeed() == "a"


def test_one_key_serves_all() -> None:
    ring = Ring("a")
    assert {ring.take(model).key for model in ("x", "y", "x", "y")} == {"a"}


def test_a_key_does_not_show() -> None:
    assert "s3cret" not in repr(Ring("s3cret").take(MODEL))


def test_a_key_whose_quota_is_out_rests_and_another_steps_in_at_once() -> None:
    ring = Ring("a", "b")
    assert ring.fail(DAILY) == ("a", True)
    assert [ring.succeed() for _ in range(3)] == ["b"] * 3
    assert ring.exhausted() == {}


def test_a_model_that_one_key_may_not_use_is_another_s() -> None:
    ring = Ring("a", "b")
    assert ring.fail(NO_MODEL) == ("a", True)
    assert [ring.succeed() for _ in range(2)] == ["b"] * 2
    assert ring.succeed("gemini-other") == "a"
    # No key has it.
    assert ring.fail(NO_MODEL) == ("b", False)
    assert ring.exhausted() == {}


def test_a_key_without_the_model_does_not_hide_why_the_other_rests() -> None:
    ring = Ring("a", "b")
    assert ring.fail(NO_MODEL) == ("a", True)
    ring.clock.advance(10)
    assert ring.fail(DAILY) == ("b", False)
    assert ring.refusal().code == "insufficient_quota"
    ring.clock.advance(REST - 10)
    assert ring.fail(NO_MODEL) == ("a", True)
    assert ring.refusal().code == "insufficient_quota"


def test_quotas_are_counted_by_model() -> None:
    ring = Ring("a")
    ring.fail(DAILY, "gemini-pro")
    assert ring.succeed("gemini-flash") == "a"
    assert list(ring.exhausted()) == ["gemini-pro"]


def test_when_all_are_out_requests_fail_at_once_with_what_is_known() -> None:
    ring = Ring("a", "b")
    assert ring.fail(DAILY) == ("a", True)
    ring.clock.advance(10)
    assert ring.fail(DAILY) == ("b", False)
    error = ring.refusal()
    assert (error.status, error.code, error.final) == (429, "insufficient_quota", True)
    assert error.message == DAILY.error.message
    assert error.retry_after == REST - 10
    assert ring.exhausted() == {MODEL: REST - 10}


def test_one_request_probes_after_the_rest() -> None:
    ring = Ring("a")
    ring.fail(DAILY)
    ring.clock.advance(REST - 0.1)
    assert ring.refusal().retry_after == 1
    ring.clock.advance(0.1)
    probe = ring.take(MODEL)
    assert probe.is_probe
    # The others are told the same as before, until it is known.
    assert ring.refusal().code == "insufficient_quota"
    assert ring.exhausted() == {MODEL: 1}
    ring.release(probe, None)
    assert not ring.take(MODEL).is_probe
    assert ring.exhausted() == {}


def test_a_rest_is_the_longer_the_more_probes_fail() -> None:
    ring = Ring("a")
    ring.fail(DAILY)
    rest, rests = REST, []
    for _ in range(8):
        ring.clock.advance(rest)
        ring.fail(DAILY)
        rest = ring.exhausted()[MODEL]
        rests.append(rest)
    assert rests[:3] == [2 * REST, 4 * REST, 8 * REST]
    assert rests[-1] == LONGEST_REST
    # What comes after a good one is a new beginning.
    ring.clock.advance(rest)
    ring.succeed()
    ring.fail(DAILY)
    assert ring.exhausted() == {MODEL: REST}


@pytest.mark.parametrize(("said", "rest"), [(45.0, 45.0), (0.0, 1.0), (200000.0, 86400.0)])
def test_a_key_rests_as_long_as_google_says_within_reason(said: float, rest: float) -> None:
    ring = Ring("a")
    ring.fail(failure_of(refusals.day_quota(said)))
    assert ring.refusal().retry_after == rest


def test_a_probe_that_is_dropped_leaves_the_probing_to_the_next() -> None:
    ring = Ring("a")
    ring.fail(DAILY)
    ring.clock.advance(REST)
    ring.abandon(ring.take(MODEL))
    assert ring.take(MODEL).is_probe


def test_a_probe_that_fails_for_another_reason_leaves_the_probing_to_the_next() -> None:
    ring = Ring("a")
    ring.fail(DAILY)
    ring.clock.advance(REST)
    assert ring.fail(BUSY) == ("a", False)
    assert ring.take(MODEL).is_probe


def test_a_request_from_before_a_rest_may_end_it_but_not_its_probing() -> None:
    ring = Ring("a")
    early, late = ring.take(MODEL), ring.take(MODEL)
    ring.release(early, DAILY)
    ring.abandon(late)
    assert ring.refusal().code == "insufficient_quota"
    ring.clock.advance(REST)
    ring.take(MODEL)
    ring.abandon(late)
    assert ring.refusal().code == "insufficient_quota"


def test_a_bad_key_rests_where_there_is_another() -> None:
    ring = Ring("a", "b")
    assert ring.fail(BAD_KEY) == ("a", True)
    assert [ring.succeed() for _ in range(2)] == ["b", "b"]


def test_a_sole_bad_key_is_tried_each_time() -> None:
    ring = Ring("a")
    assert ring.fail(BAD_KEY) == ("a", False)
    assert ring.fail(BAD_KEY) == ("a", False)


def test_a_rate_limit_is_a_short_rest_where_there_is_another_key() -> None:
    ring = Ring("a", "b")
    assert ring.fail(MINUTE) == ("a", True)
    assert [ring.succeed() for _ in range(2)] == ["b", "b"]
    ring.clock.advance(RATE_REST)
    assert {ring.take(MODEL).key for _ in range(2)} == {"a", "b"}


def test_a_rate_limit_of_the_last_key_is_for_the_retries_to_wait_for() -> None:
    ring = Ring("a", "b")
    ring.fail(MINUTE)
    assert ring.fail(MINUTE) == ("b", False)
    assert ring.succeed() == "b"


@pytest.mark.parametrize("failure", [BUSY, transient("Lost."), failure_of(refusals.error(400))])
def test_what_is_not_the_key_s_fault_does_not_rest_it(failure: AttemptFailure) -> None:
    ring = Ring("a", "b")
    assert ring.fail(failure) == ("a", False)
    assert Counter(ring.take(MODEL).key for _ in range(4)) == {"a": 2, "b": 2}


def test_models_that_clients_make_up_do_not_pile_up() -> None:
    ring = Ring("a")
    ring._rests_limit = 10
    for number in range(50):
        ring.fail(DAILY, f"gemini-{number}")
        ring.clock.advance(0.1)
    assert len(ring._rests) == 10
    # The last ones are kept: they rest the longest from now on.
    assert "gemini-49" in ring.exhausted()


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "good", "daily", "minute", "bad", "busy", "drop", "wait"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(_STEPS, st.integers(1, 3))
def test_no_order_of_things_loses_a_key(steps: list[tuple[str, int]], count: int) -> None:
    ring = Ring(*"abc"[:count])
    out: list[KeyLease] = []
    ends = {"good": None, "daily": DAILY, "minute": MINUTE, "bad": BAD_KEY, "busy": BUSY}
    for step, number in steps:
        if step == "take":
            try:
                out.append(ring.take(MODEL))
            except ChatError as error:
                assert error.retry_after is not None
                assert 1 <= error.retry_after <= LONGEST_REST
        elif step == "wait":
            ring.clock.advance(number * 20.0)
        elif out:
            lease = out.pop(number % len(out))
            if step == "drop":
                ring.abandon(lease)
            else:
                ring.release(lease, ends[step])
        # One probe at a time for each key.
        probes = Counter(lease.key for lease in out if lease.is_probe)
        assert all(probes[key] <= 1 for key in "abc") or any(s == "good" for s, _ in steps)
    for lease in out:
        ring.abandon(lease)
    ring.clock.advance(LONGEST_REST)
    used = {ring.succeed() for _ in range(count)}
    assert used == set("abc"[:count])
