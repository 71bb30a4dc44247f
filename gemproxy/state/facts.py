"""What was learnt of upstreams, by this daemon and others."""

from __future__ import annotations

from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from gemproxy.state.news import NO_NEWS, News
from gemproxy.util.remembered import MEMORY, Memory, Remembered

_TOPIC = "fact"
# Clients choose the names of models.
_MOST = 10_000


@define(eq=False)
class Facts:
    """
    Facts for a time: words or truth values, by what they are about, and the name of a model or so.
    What is new is told to other daemons.
    """

    clock: IReactorTime
    news: News = NO_NEWS
    _known: Remembered[Any] = field(factory=lambda: Remembered(MEMORY, _MOST), init=False)

    def __attrs_post_init__(self) -> None:
        self.news.follow(_TOPIC, self._heard)

    def about(self, subject: str) -> Memory[Any]:
        """@param subject: the digest of an upstream's address, and the like."""
        return _About(self, subject)

    def get(self, name: str, now: float) -> Any:
        return self._known.get(name, now)

    def put(self, name: str, value: Any, now: float) -> None:
        is_news = self._known.get(name, now) != value
        self._known.put(name, value, now)
        if is_news and self._known.get(name, now) == value:
            self.news.tell(_TOPIC, name, value, MEMORY)

    def _heard(self, name: str, told: Any, left: float) -> None:
        if isinstance(told, (str, bool)):
            self._known.put(name, told, self.clock.seconds() + left - MEMORY)


@frozen
class _About:
    """The facts about one subject."""

    facts: Facts
    subject: str

    def get(self, name: str, now: float) -> Any:
        return self.facts.get(f"{self.subject} {name}", now)

    def put(self, name: str, value: Any, now: float) -> None:
        self.facts.put(f"{self.subject} {name}", value, now)
