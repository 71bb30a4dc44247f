"""When to try again: growing delays with jitter, within what is allowed."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from gemproxy.gemini.translate.errors import AttemptFailure

_JITTER = 0.25
_CEILING = 60.0


@frozen
class RetryPolicy:
    """
    @ivar retries: tries after the first.
    @ivar base: seconds before the first retry; doubles with each, up to a minute.
    @ivar patience: the longest wait that the API may ask for, in seconds; beyond it the client
        is told instead.
    @ivar random: a number from 0 up to 1, for the jitter.
    """

    retries: int
    base: float
    patience: float
    random: Callable[[], float]

    def delay(self, failure: AttemptFailure, retried: int) -> float | None:
        """
        Seconds until the next try; None if there is none.

        @param retried: how many retries there were before.
        """
        if not failure.retryable or retried >= self.retries:
            return None
        if failure.delay is not None and failure.delay > self.patience:
            return None
        growing = min(self.base * 2.0**retried, max(_CEILING, self.base))
        # Jitter only ever lengthens: less than what the API asked for would be refused again.
        return max(growing, failure.delay or 0.0) * (1.0 + _JITTER * self.random())
