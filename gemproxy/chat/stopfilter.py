"""Ends an answer at a stop tag, whichever backend it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gemproxy.chat.sse import Event
from gemproxy.chat.stoptags import StopTagScanner, patterns

# What a chunk may hold besides content without being worth sending for it.
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class StopTagFilter:
    """
    Passes the chunks of one answer on, up to the tag in each choice.

    @ivar ended: every choice has come to its end, and a tag ended at least one of them: nothing
        that may follow is of interest.
    """

    __slots__ = ("_alert", "_choices", "_filters", "_frame", "_patterns", "_stopped", "_tags")

    def __init__(self, tags: Sequence[str], choices: int) -> None:
        """@param choices: how many the client asked for."""
        self._tags = tags
        self._choices = choices
        self._filters: dict[int, _ChoiceFilter] = {}
        self._frame: dict[str, Any] = {}
        self._patterns = patterns(tuple(tags))
        self._alert = False
        self._stopped = False

    @property
    def ended(self) -> bool:
        if not self._stopped:
            return False
        ended = [known for known in self._filters.values() if known.finished or known.stopped]
        return len(ended) >= self._choices

    @property
    def frame(self) -> dict[str, Any]:
        """What all chunks of this answer have in common: id, created, model and so on."""
        return self._frame

    def feed(self, event: Event) -> list[Event]:
        """What may go out now, instead of an event."""
        if not self._tags or self._is_harmless(event):
            return [event]
        try:
            chunk = event.json()
        except ValueError:
            return [event]
        choices = chunk.get("choices") if isinstance(chunk, dict) else None
        if not isinstance(choices, list) or not choices:
            return [event]
        out: list[Event] = []
        kept = []
        changed = False
        for choice in choices:
            if not isinstance(choice, dict):
                kept.append(choice)
                continue
            index = choice.get("index")
            if not isinstance(index, int):
                index = 0
            known = self._filters.get(index)
            if known is not None and known.stopped:
                changed = True
                continue
            replaced = self._filter_choice(index, choice)
            changed = changed or replaced is not choice
            if replaced is not None:
                kept.append(replaced)
        if not self._frame:
            self._frame = {
                key: value for key, value in chunk.items() if key not in ("choices", "usage")
            }
        self._alert = any(known.held or known.stopped for known in self._filters.values())
        if not changed:
            return [event]
        if kept or chunk.get("usage"):
            out.append(Event.of(chunk | {"choices": kept}, event.name))
        return out

    def _is_harmless(self, event: Event) -> bool:
        """Whether an event need not be looked into: most have nothing that a tag begins with."""
        # Of several choices, it has to be known which have come to their end.
        return (
            self._choices == 1
            and bool(self._frame)
            and not self._alert
            and not self._patterns.could_begin(event.data)
        )

    def flush(self) -> list[Event]:
        """What was held back, now that the answer is over without a finish reason."""
        events = []
        for index, choice_filter in self._filters.items():
            choice = None if choice_filter.stopped else choice_filter.flush()
            if choice is not None:
                events.append(Event.of(self._frame | {"choices": [{"index": index} | choice]}))
        return events

    def _filter_choice(self, index: int, choice: dict[str, Any]) -> dict[str, Any] | None:
        choice_filter = self._filters.get(index)
        if choice_filter is None:
            choice_filter = self._filters[index] = _ChoiceFilter(self._tags)
        passed = choice_filter.feed(choice)
        if choice_filter.stopped:
            self._stopped = True
        elif choice.get("finish_reason") is not None:
            choice_filter.finished = True
        return passed


class _ChoiceFilter:
    """
    The pieces of one choice, and what is held back of them: text, and what is told of it.

    @ivar finished: whether it has come to its end by itself.
    """

    __slots__ = ("_logprobs", "_scanner", "finished")

    def __init__(self, tags: Sequence[str]) -> None:
        self.finished = False
        self._scanner = StopTagScanner(tags)
        self._logprobs = _Logprobs()

    @property
    def held(self) -> bool:
        return self._scanner.held

    @property
    def stopped(self) -> bool:
        return self._scanner.stopped

    def feed(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """The choice as it may go out: itself if it may as it is, None if there is nothing."""
        # A few upstreams have the message itself in the only event of their stream.
        part = "delta" if isinstance(choice.get("delta"), dict) else "message"
        delta = choice.get(part)
        content = delta.get("content") if isinstance(delta, dict) else None
        text = content if isinstance(content, str) else ""
        finish_reason = choice.get("finish_reason")
        passed = self._scanner.feed(text) if text else ""
        if finish_reason is not None:
            passed += self._scanner.flush()
        logprobs = self._logprobs.feed(choice.get("logprobs"), passed, self._scanner)
        if self.stopped:
            finish_reason = "stop"
        elif passed == text and logprobs == choice.get("logprobs"):
            return choice
        elif not (passed or logprobs or finish_reason) and _is_content_only(choice, delta or {}):
            return None
        replaced = choice | {"finish_reason": finish_reason, "logprobs": logprobs}
        return replaced | {part: {**(delta or {}), "content": passed}}

    def flush(self) -> dict[str, Any] | None:
        """What is left when nothing more comes; None if that is nothing."""
        text = self._scanner.flush()
        logprobs = self._logprobs.feed(None, text, self._scanner)
        if not (text or logprobs or self.stopped):
            return None
        finish_reason = "stop" if self.stopped else None
        return {"delta": {"content": text}, "logprobs": logprobs, "finish_reason": finish_reason}


class _Logprobs:
    """
    Holds back what would tell the text that is held back, token by token.

    @ivar _tokens: those that have not gone out.
    @ivar _ahead: how many characters of their text have.
    """

    __slots__ = ("_ahead", "_tokens")

    def __init__(self) -> None:
        self._tokens: Sequence[Any] = ()
        self._ahead = 0

    def feed(self, logprobs: Any, passed: str, scanner: StopTagScanner) -> Any:
        """
        What may go out with a piece of text.

        @param logprobs: what came with the piece.
        @param scanner: which has seen the piece.
        """
        tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
        if not isinstance(tokens, list):
            tokens = []
        if not (tokens or self._tokens):
            return None if scanner.held or scanner.stopped else logprobs
        self._tokens = [*self._tokens, *tokens]
        self._ahead += len(passed)
        count = len(self._tokens)
        if scanner.held or scanner.stopped:
            count = self._count_passed()
        else:
            self._ahead = 0
        out, self._tokens = self._tokens[:count], self._tokens[count:]
        if out == tokens:
            return logprobs
        others = logprobs if isinstance(logprobs, dict) else {}
        return others | {"content": out} if out else None

    def _count_passed(self) -> int:
        for number, token in enumerate(self._tokens):
            text = token.get("token") if isinstance(token, dict) else None
            if not isinstance(text, str) or len(text) > self._ahead:
                return number
            self._ahead -= len(text)
        return len(self._tokens)


def _is_content_only(choice: dict[str, Any], delta: dict[str, Any]) -> bool:
    return all(value in _EMPTY for key, value in delta.items() if key != "content") and all(
        value in _EMPTY
        for key, value in choice.items()
        if key not in ("index", "delta", "message", "logprobs")
    )
