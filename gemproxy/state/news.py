"""What daemons tell each other: what rests, what was learnt, and who is to try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

# Called with a name, with what is told of it, and with the seconds for which that holds still. What
# is told is None if what was told before is over.
Heard = Callable[[str, Any, float], None]


@frozen(eq=False)
class Claim:
    """
    The right to be the only one of all daemons that does something.

    @ivar release: leaves it to others. It passes by itself if this daemon dies.
    """

    release: Callable[[], None]


class News(Protocol):
    """
    Tells the other daemons, and hears of them. What is told is any value of JSON with nothing
    secret in it.
    """

    def tell(self, topic: str, name: str, value: Any, seconds: float) -> None:
        """
        Have the others know something for a time, in place of what was told of that name before.
        Nobody waits for it.
        """

    def over(self, topic: str, name: str) -> None:
        """What was told of a name holds no longer."""

    def follow(self, topic: str, heard: Heard) -> None:
        """@param heard: called with what others tell; what it does not understand it ignores."""

    def claim(self, topic: str, name: str) -> Deferred[Claim | None]:
        """
        Claim the right to try something of which others were told. Whoever gets it has heard before
        what came of the last try.

        @return: None if another daemon has it.
        """


class NoNews:
    """That of a daemon alone."""

    def tell(self, topic: str, name: str, value: Any, seconds: float) -> None:
        """Nobody else is there."""

    def over(self, topic: str, name: str) -> None:
        """Nobody else is there."""

    def follow(self, topic: str, heard: Heard) -> None:
        """There will be none."""

    def claim(self, topic: str, name: str) -> Deferred[Claim | None]:
        return succeed(_UNCONTESTED)


_UNCONTESTED = Claim(lambda: None)
NO_NEWS = NoNews()


@frozen
class Subject:
    """One thing of which news tell, such as an upstream."""

    news: News
    topic: str
    name: str

    def tell(self, value: Any, seconds: float) -> None:
        """See L{News.tell}."""
        self.news.tell(self.topic, self.name, value, seconds)

    def over(self) -> None:
        """See L{News.over}."""
        self.news.over(self.topic, self.name)

    def claim(self) -> Deferred[Claim | None]:
        """See L{News.claim}."""
        return self.news.claim(self.topic, self.name)
