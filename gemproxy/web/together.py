"""Several requests that are answered as one, such as those of a list of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from gemproxy.backend import Answer, Backend, PassingAnswer
from gemproxy.chat.chunks import Usage, index_of
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.chat.shapes import objects_in
from gemproxy.chat.sse import Event


@frozen
class Together:
    """
    A backend that asks another one for several answers, one after the other. Their choices are
    numbered through, and their token counts are added.
    """

    backend: Backend
    chats: Sequence[ChatRequest]

    def models(self, headers: Headers) -> Deferred[list[dict[str, Any]]]:
        return self.backend.models(headers)

    def complete(self, request: ChatRequest, answer: Answer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._complete(answer))

    async def _complete(self, answer: Answer) -> None:
        total = _Total()
        first = 0
        for chat in self.chats:
            await self.backend.complete(chat, _Part(answer, first, total))
            first += chat.choices
            total.next()
        if total.frame:
            usage = total.counts.as_json()
            answer.events([Event.of(total.frame | {"choices": [], "usage": usage})])


class _Total:
    """
    The token counts of all answers.

    @ivar counts: those of C{usage}.
    @ivar frame: the fields of a chunk that has C{usage}; empty if there was none.
    """

    def __init__(self) -> None:
        self.counts = Usage(0, 0)
        self.frame: dict[str, Any] = {}
        self._before = Usage(0, 0)
        self._current = Usage(0, 0)

    def count(self, usage: Usage) -> Usage:
        """@param usage: that of the current answer so far. Returns that of all."""
        self._current = usage
        return self._before + usage

    def next(self) -> None:
        """Another answer begins."""
        self._before, self._current = self._before + self._current, Usage(0, 0)

    def add(self, chunk: dict[str, Any]) -> None:
        """@param chunk: one that has C{usage}."""
        self.frame = {key: value for key, value in chunk.items() if key != "usage"}
        self.counts += Usage.of_json(chunk["usage"])


class _Part(PassingAnswer):
    """Takes one of the answers."""

    def __init__(self, answer: Answer, first: int, total: _Total) -> None:
        """@param first: the number of its first choice."""
        super().__init__(answer)
        self._first = first
        self._total = total

    def events(self, events: Sequence[Event]) -> None:
        self._answer.events(
            [moved for event in events if (moved := self._moved(event)) is not None]
        )

    def _moved(self, event: Event) -> Event | None:
        try:
            chunk = event.exact_json()
        except ValueError:
            return event
        if not isinstance(chunk, dict):
            return event
        choices = objects_in(chunk.get("choices"))
        if isinstance(chunk.get("usage"), dict):
            self._total.add(chunk)
            if not choices:
                return None
            chunk = {key: value for key, value in chunk.items() if key != "usage"}
        moved = [
            choice | {"index": (index_of(choice.get("index")) or 0) + self._first}
            for choice in choices
        ]
        return Event.of(chunk | {"choices": moved}, event.name) if moved else event

    def document(self, document: dict[str, Any], events: Sequence[Event]) -> None:
        self.events(events)

    def take_back(self, choice: int) -> bool:
        return self._answer.take_back(choice + self._first)

    def stop_at(self, sequences: Sequence[str]) -> None:
        if not self._first:
            self._answer.stop_at(sequences)

    def counted(self, usage: Usage) -> None:
        self._answer.counted(self._total.count(usage))

    def ignored(self, parameters: Sequence[str]) -> None:
        if not self._first:
            self._answer.ignored(parameters)

    def passed_on(self, headers: Headers, upstream_request: str | None) -> None:
        if not self._first:
            self._answer.passed_on(headers, upstream_request)
