"""Retry delays: exponential backoff with jitter, within limits."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from gemproxy.gemini.translate.errors import AttemptFailure

_JITTER = 0.25
_CEILING = 60.0


@frozen
class RetryPolicy:
    """
    @ivar retries: the maximum number of retries.
    @ivar base: seconds before the first retry; doubles with each further retry, up to a minute.
    @ivar patience: the maximum delay in seconds that the API may request; if it requests a longer
        one, there is no retry.
    @ivar random: returns a number from 0 to 1, for the jitter.
    """

    retries: int
    base: float
    patience: float
    random: Callable[[], float]

    def delay(self, failure: AttemptFailure, retried: int) -> float | None:
        """
        Seconds until the next attempt; None if there is none.

        @param retried: the number of retries made so far.
        """
        if not failure.retryable or retried >= self.retries:
            return None
        if failure.delay is not None and failure.delay > self.patience:
            return None
        growing = min(self.base * 2.0**retried, max(_CEILING, self.base))
        # Jitter only lengthens the delay: a retry before the requested delay would fail again.
        return max(growing, failure.delay or 0.0) * (1.0 + _JITTER * self.random())
