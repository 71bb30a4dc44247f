"""When to try again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.backend import Commitment
from gemproxy.backoff import RetryPolicy


def policy(
    retries: int = 100, base: float = 1.0, patience: float = 600.0, luck: float = 0.0
) -> RetryPolicy:
    return RetryPolicy(retries, base, patience, lambda: luck)


def failed(retryable: bool = True, delay: float | None = None) -> tuple[bool, float | None]:
    return retryable, delay


@pytest.mark.parametrize(
    ("base", "delays"),
    [
        (1.0, [1, 2, 4, 8, 16, 32, 60, 60]),
        (0.5, [0.5, 1, 2, 4, 8, 16, 32, 60]),
        (50.0, [50, 60, 60]),
        (100.0, [100, 100, 100]),
        (0.0, [0, 0, 0]),
    ],
)
def test_delays_double_up_to_a_minute_or_the_first(base: float, delays: list[float]):
    assert [policy(base=base).delay(*failed(), n) for n in range(len(delays))] == delays


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_there_are_so_many_tries_and_no_more(retries: int):
    allowed = [policy(retries).delay(*failed(), n) is not None for n in range(8)]
    assert allowed == [True] * retries + [False] * (8 - retries)


def test_what_will_not_succeed_is_not_tried_again():
    assert policy().delay(*failed(retryable=False), 0) is None
    assert policy().delay(*failed(retryable=False, delay=1.0), 0) is None


@pytest.mark.parametrize(
    ("asked", "retried", "delay"),
    [
        (36.0, 0, 36.0),
        (0.5, 0, 1.0),
        (5.0, 3, 8.0),
        (0.0, 0, 1.0),
        (600.0, 0, 600.0),
        (600.1, 0, None),
        (86400.0, 0, None),
    ],
)
def test_the_api_is_left_alone_as_long_as_it_asks_within_reason(
    asked: float, retried: int, delay: float | None
):
    assert policy().delay(*failed(delay=asked), retried) == delay


def test_luck_lengthens_a_delay_by_a_quarter_at_most():
    assert policy(luck=0.5).delay(*failed(), 1) == pytest.approx(2 * 1.125)
    assert policy(luck=0.999).delay(*failed(delay=36.0), 0) == pytest.approx(36 * 1.25, rel=0.001)


@pytest.mark.parametrize(
    ("elapsed", "after", "retried", "delay"),
    [
        # The status is committed after 30 s: retries begin in the first 20 s.
        (0.0, 30.0, 0, 1.0),
        (15.0, 30.0, 2, 4.0),
        (15.5, 30.0, 2, 4.0),
        (16.0, 30.0, 2, None),
        (15.0, 30.0, 4, None),
        (19.5, 30.0, 0, None),
        (29.0, 30.0, 0, None),
        (0.0, 0.05, 0, None),
        (0.0, 1.5, 0, None),
        (0.0, 1.6, 0, 1.0),
    ],
)
def test_no_retry_is_waited_for_that_would_begin_too_late_for_a_status(
    elapsed: float, after: float, retried: int, delay: float | None
):
    assert policy().delay(*failed(), retried, Commitment(after, elapsed)) == delay


def test_jitter_and_the_api_s_own_delay_count_in_full_for_the_status():
    commitment = Commitment(30.0, 0.0)
    assert policy().delay(*failed(delay=19.9), 0, commitment) == 19.9
    assert policy().delay(*failed(delay=20.0), 0, commitment) is None
    assert policy(luck=0.5).delay(*failed(delay=19.9), 0, commitment) is None


def test_all_retries_of_the_defaults_fit_a_client_that_waits_forever_and_four_the_others():
    clock, number = 0.0, 0
    while delay := policy(5).delay(*failed(), number, Commitment(30.0, clock)):
        clock, number = clock + delay, number + 1
    assert (clock, number) == (15.0, 4)
    assert policy(5).delay(*failed(), number) == 16.0


@given(
    st.integers(0, 100),
    st.floats(0, 3600),
    st.floats(0.1, 86400),
    st.floats(0, 1, exclude_max=True),
    st.none() | st.floats(0, 1e9),
    st.integers(0, 100),
    st.none() | st.builds(Commitment, st.floats(0, 3600), st.floats(0, 3600)),
)
def test_a_delay_is_within_bounds(
    retries: int,
    base: float,
    patience: float,
    luck: float,
    asked: float | None,
    retried: int,
    commitment: Commitment | None,
):
    delay = policy(retries, base, patience, luck).delay(*failed(delay=asked), retried, commitment)
    if delay is not None:
        assert retried < retries
        assert max(min(base, 60.0), asked or 0.0) <= delay
        assert delay <= max(60.0, base, patience) * 1.25
        assert commitment is None or commitment.elapsed + delay < commitment.after * 2 / 3
