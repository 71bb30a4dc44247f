"""
How many of something there may be in a minute, by the generic cell rate algorithm (ITU-T I.371).

It is a bucket that is full at first, and fills up again in a minute. What is taken may be more than
there is, because nobody knows the tokens of an answer before its end: then it takes longer until
there is something again. Pure.
"""

from __future__ import annotations

from attrs import define

_MINUTE = 60.0


@define
class Rate:
    """
    @ivar limit: the most in a minute, and at once.
    @ivar full_at: when all will be there again, on the clock of C{now}, in seconds.
    """

    limit: int
    full_at: float = 0.0

    def left(self, now: float) -> int:
        """What may be taken now, which is never less than 0."""
        return max(0, int(self._left(now)))

    def wait(self, now: float) -> float:
        """Seconds until there is at least one; 0 if there is."""
        return max(0.0, (1.0 - self._left(now)) * _MINUTE / self.limit)

    def take(self, now: float, number: int = 1) -> None:
        self.full_at = max(self.full_at, now) + number * _MINUTE / self.limit

    def reset(self, now: float) -> float:
        """Seconds until all is there."""
        return max(0.0, self.full_at - now)

    def _left(self, now: float) -> float:
        left = self.limit - self.reset(now) * self.limit / _MINUTE
        # What was taken comes back in fractions of a second that are not exact.
        return left + 1e-6
