"""The rest of an upstream that fails again and again."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.errors import ChatError, overloaded

FAILURES = 5
SHORTEST, LONGEST = 5.0, 300.0


@define
class Rest:
    """
    Counts failures in a row. After FAILURES of them the upstream rests, and one request tries it
    then; each further failure doubles the rest.

    @ivar name: that of the upstream.
    """

    clock: IReactorTime
    name: str
    _failures: int = field(init=False, default=0)
    _until: float = field(init=False, default=0.0)
    _seconds: float = field(init=False, default=0.0)
    _last: str = field(init=False, default="")
    _is_probed: bool = field(init=False, default=False)

    def left(self) -> float:
        """Seconds until the upstream is tried again; 0 if it does not rest."""
        if not self._seconds:
            return 0.0
        left = self._until - self.clock.seconds()
        return max(left, 1.0 if self._is_probed else 0.0, 0.0)

    @property
    def last_error(self) -> str | None:
        """Why it has not answered; None if it has since."""
        return self._last if self._failures else None

    def check(self) -> None:
        """
        To be called before each request.

        @raise ChatError: 503, the upstream rests.
        """
        left = self.left()
        if left > 0:
            raise overloaded(
                f"The upstream '{self.name}' has failed {self._failures} times in a row and rests"
                f" for {left:.0f} s. Its last error: {self._last}",
                max(1.0, left),
            )
        self._is_probed = bool(self._seconds)

    def succeeded(self) -> None:
        self._failures, self._seconds, self._is_probed = 0, 0.0, False

    def abandoned(self) -> None:
        """A request has ended without telling anything."""
        self._is_probed = False

    def failed(self, error: ChatError) -> None:
        self._failures += 1
        self._last = error.message[:300]
        self._is_probed = False
        if self._failures >= FAILURES:
            self._seconds = min(2 * self._seconds, LONGEST) if self._seconds else SHORTEST
            self._until = self.clock.seconds() + self._seconds
