"""Ends a response at a stop tag, for all backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gemproxy.chat.sse import Event
from gemproxy.chat.stoptags import StopTagScanner, patterns

# Values that do not make a chunk without content worth sending.
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class StopTagFilter:
    """
    Passes on the chunks of one response, up to the first tag in each choice.

    @ivar ended: whether every choice has ended, at least one of them at a tag. All further chunks
        can be ignored.
    """

    __slots__ = ("_alert", "_choices", "_filters", "_frame", "_patterns", "_stopped", "_tags")

    def __init__(self, tags: Sequence[str], choices: int) -> None:
        """@param choices: the number of choices requested by the client."""
        self._tags = tuple(tags)
        self._choices = choices
        self._filters: dict[int, _ChoiceFilter] = {}
        self._frame: dict[str, Any] = {}
        self._patterns = patterns(self._tags)
        self._alert = False
        self._stopped = False

    def add_tags(self, tags: Sequence[str]) -> None:
        """Must be called before the first event."""
        self._tags = (*self._tags, *tags)
        self._patterns = patterns(self._tags)

    def discard(self, index: int) -> bool:
        """
        Forget a choice, which begins again. Returns whether that is possible: a choice that has
        ended at a tag is complete.
        """
        known = self._filters.get(index)
        if known is not None and known.stopped:
            return False
        self._filters.pop(index, None)
        return True

    @property
    def ended(self) -> bool:
        if not self._stopped:
            return False
        ended = [known for known in self._filters.values() if known.finished or known.stopped]
        return len(ended) >= self._choices

    @property
    def frame(self) -> dict[str, Any]:
        """The fields common to all chunks of this response: id, created, model and so on."""
        return self._frame

    def feed(self, event: Event) -> list[Event]:
        """Filter an event; returns the events to send instead."""
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
        """Whether an event can be passed on without parsing: most contain no start of a tag."""
        # With several choices, every event is parsed to find out which choices have ended.
        return (
            self._choices == 1
            and bool(self._frame)
            and not self._alert
            and not self._patterns.could_begin(event.data)
        )

    def flush(self) -> list[Event]:
        """The text held back, once the response has ended without a finish reason."""
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
    Filters one choice. Holds back text that may become a tag, and its logprobs.

    @ivar finished: whether the choice has ended with a finish reason.
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
        """The choice to send: the same object if it is unchanged, None if nothing is to be sent."""
        # Some upstreams send a single event with the whole message.
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
        """The text held back at the end of the response, as a choice; None if there is none."""
        text = self._scanner.flush()
        logprobs = self._logprobs.feed(None, text, self._scanner)
        if not (text or logprobs or self.stopped):
            return None
        finish_reason = "stop" if self.stopped else None
        return {"delta": {"content": text}, "logprobs": logprobs, "finish_reason": finish_reason}


class _Logprobs:
    """
    Holds back the logprobs of the text that is held back.

    @ivar _tokens: the tokens not yet sent.
    @ivar _ahead: the number of characters of their text that were sent.
    """

    __slots__ = ("_ahead", "_tokens")

    def __init__(self) -> None:
        self._tokens: Sequence[Any] = ()
        self._ahead = 0

    def feed(self, logprobs: Any, passed: str, scanner: StopTagScanner) -> Any:
        """
        The logprobs to send with a piece of text.

        @param logprobs: the logprobs received with the piece.
        @param scanner: the scanner that has processed the piece.
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
