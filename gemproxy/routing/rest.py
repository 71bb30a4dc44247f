"""The rest of an upstream that fails again and again."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.errors import ChatError, overloaded
from gemproxy.state.news import NO_NEWS, Claim, Subject

TOPIC = "upstream"
FAILURES = 5
SHORTEST, LONGEST = 5.0, 300.0
# Seconds for which an upstream is left alone when another daemon tries it.
_TRIED_ELSEWHERE = 1.0
# Seconds by which a rest is longer when others are told: requests fail together.
_WORTH_TELLING = 1.0


@define
class Rest:
    """
    Counts failures in a row. After FAILURES of them the upstream rests, and one request tries it
    then; each further failure doubles the rest. Daemons with news of each other rest together.

    @ivar name: that of the upstream.
    @ivar subject: as what other daemons know it.
    """

    clock: IReactorTime
    name: str
    subject: Subject = field(factory=lambda: Subject(NO_NEWS, TOPIC, ""))
    _failures: int = field(init=False, default=0)
    _until: float = field(init=False, default=0.0)
    _seconds: float = field(init=False, default=0.0)
    _last: str = field(init=False, default="")
    _is_probed: bool = field(init=False, default=False)
    _probe: Claim | None = field(init=False, default=None)

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

    async def check(self) -> None:
        """
        To be called before each request.

        @raise ChatError: 503, the upstream rests.
        """
        if self._seconds and not self.left():
            await self._claim()
            if self._probe is not None:
                return
        left = self.left()
        if left > 0:
            raise overloaded(
                f"The upstream '{self.name}' has failed {self._failures} times in a row and rests"
                f" for {left:.0f} s. Its last error: {self._last}",
                max(1.0, left),
            )

    async def _claim(self) -> None:
        """Have the probe, unless another daemon has it or has told what came of it."""
        self._is_probed, claim = True, None
        try:
            claim = await self.subject.claim()
        finally:
            self._is_probed = False
        if claim is None:
            self._until = self.clock.seconds() + _TRIED_ELSEWHERE
        elif self._seconds and not self.left():
            self._is_probed, self._probe = True, claim
        else:
            claim.release()

    def succeeded(self) -> None:
        if self._seconds:
            self.subject.over()
        self._failures, self._seconds = 0, 0.0
        self.abandoned()

    def abandoned(self) -> None:
        """A request has ended without telling anything."""
        self._is_probed = False
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.release()

    def failed(self, error: ChatError) -> None:
        self._failures += 1
        self._last = error.message[:300]
        if self._failures >= FAILURES:
            before = self._until
            self._seconds = min(2 * self._seconds, LONGEST) if self._seconds else SHORTEST
            self._until = self.clock.seconds() + self._seconds
            if self._until > before + _WORTH_TELLING:
                told = {"failures": self._failures, "seconds": self._seconds, "error": self._last}
                self.subject.tell(told, self._seconds)
        self.abandoned()

    def heard(self, told: Any, left: float) -> None:
        """
        Another daemon tells of the rest.

        @param told: None if it is over.
        @param left: the seconds until it ends.
        """
        if told is None:
            self._failures, self._seconds = 0, 0.0
            return
        failures, seconds, last = int(told["failures"]), float(told["seconds"]), str(told["error"])
        self._failures, self._seconds, self._last = failures, seconds, last
        self._until = self.clock.seconds() + left
