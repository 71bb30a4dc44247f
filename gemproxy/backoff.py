"""Retry delays: exponential backoff with jitter, within limits."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from gemproxy.backend import Commitment

_JITTER = 0.25
_CEILING = 60.0
# The share of the time before the status is committed in which retries may begin. The rest is for
# the retry itself: an error that it ends with must still find the status open.
_SHARE = 2 / 3


@frozen
class RetryPolicy:
    """
    @ivar retries: the maximum number of retries.
    @ivar base: seconds before the first retry; doubles with each further retry, up to a minute.
    @ivar patience: the maximum delay in seconds that the other side may request; if it requests a
        longer one, there is no retry.
    @ivar random: returns a number from 0 to 1, for the jitter.
    """

    retries: int
    base: float
    patience: float
    random: Callable[[], float]

    def delay(
        self,
        is_retryable: bool,
        requested: float | None,
        retried: int,
        commitment: Commitment | None = None,
    ) -> float | None:
        """
        Seconds until the next attempt; None if there is none.

        @param is_retryable: whether a retry may succeed.
        @param requested: the delay that the other side requests, in seconds; None if it does not.
        @param retried: the number of retries made so far.
        @param commitment: when the client's status is committed; None if that does not matter.
        """
        if not is_retryable or retried >= self.retries:
            return None
        if requested is not None and requested > self.patience:
            return None
        growing = min(self.base * 2.0**retried, max(_CEILING, self.base))
        # Jitter only lengthens the delay: a retry before the requested delay would fail again.
        delay = max(growing, requested or 0.0) * (1.0 + _JITTER * self.random())
        if commitment is not None and commitment.elapsed + delay >= commitment.after * _SHARE:
            return None
        return delay
