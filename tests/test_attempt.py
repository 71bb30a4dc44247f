"""What becomes of a request whose worker has died."""

from __future__ import annotations

from typing import Any

import pytest

from gemproxy.gemini.attempt import Choice
from gemproxy.gemini.cli.worker import Death, WorkerDied
from gemproxy.gemini.cli_attempts import failure_of_death

NOTHING: Any = None


def choice() -> Choice:
    return Choice("m", NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


@pytest.mark.parametrize(
    ("death", "again"), [(Death.ENDED, True), (Death.KILLED, True), (Death.CRASHED, False)]
)
def test_who_may_have_been_the_death_of_a_worker_gets_no_other(death: Death, again: bool):
    failure = failure_of_death(choice(), WorkerDied("why", death))
    assert failure.retryable == again
    assert failure.error.status == 502
    assert failure.error.final != again


def test_two_deaths_are_no_chance():
    unlucky = choice()
    assert failure_of_death(unlucky, WorkerDied("why", Death.KILLED)).retryable
    assert failure_of_death(unlucky, WorkerDied("why")).retryable
    assert not failure_of_death(unlucky, WorkerDied("why", Death.KILLED)).retryable
