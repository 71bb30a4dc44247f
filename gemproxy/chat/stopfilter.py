"""
Ends a response at a stop tag, for all backends: chunks or a whole document, of chat completions
(C{choices[].delta} or C{.message}) or of completions (C{choices[].text}).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gemproxy.chat.chunks import index_of
from gemproxy.chat.sse import Event
from gemproxy.chat.stoptags import StopTagScanner, patterns

# Values that do not make a chunk without content worth sending.
_EMPTY: tuple[Any, ...] = (None, "", [], {})
# No key of a token's own.
_COLUMNS = "\0columns"


class StopTagFilter:
    """
    Passes on the chunks of one response, up to the first tag in each choice.

    @ivar ended: whether every choice has ended, at least one of them at a tag. All further chunks
        can be ignored.
    """

    __slots__ = (
        "_alert",
        "_choices",
        "_filters",
        "_frame",
        "_named",
        "_patterns",
        "_stopped",
        "_tags",
    )

    def __init__(self, tags: Sequence[str], choices: int) -> None:
        """@param choices: the number of choices requested by the client."""
        self._tags = tuple(tags)
        self._named: frozenset[str] = frozenset()
        self._choices = choices
        self._filters: dict[int, _ChoiceFilter] = {}
        self._frame: dict[str, Any] = {}
        self._patterns = patterns(self._tags)
        self._alert = False
        self._stopped = False

    def add_tags(self, tags: Sequence[str], named: bool = False) -> None:
        """
        Must be called before the first event.

        @param named: whether a choice that one of them ends names it, as C{stop_reason}; vLLM's
            field.
        """
        if named:
            self._named |= frozenset(tags)
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

    def passes(self, events: Iterable[Event]) -> bool:
        """
        Whether L{feed} need not see these events: most contain no start of a tag, which is certain
        without parsing them.
        """
        if not self._tags:
            return True
        # With several choices, every event is parsed to find out which choices have ended.
        if self._choices != 1 or not self._frame or self._alert:
            return False
        for event in events:  # noqa: SIM110 - a generator takes longer than the look
            if self._patterns.could_begin(event.data):
                return False
        return True

    def feed(self, event: Event) -> list[Event]:
        """Filter an event; returns the events to send instead."""
        if self.passes((event,)):
            return [event]
        try:
            chunk = event.exact_json()
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
            index = index_of(choice.get("index")) or 0
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

    def flush(self) -> list[Event]:
        """The text held back, once the response has ended without a finish reason."""
        events = []
        for index, choice_filter in self._filters.items():
            choice = None if choice_filter.stopped else choice_filter.flush()
            if choice is not None:
                choice = {"index": index} | self._with_reason(choice, choice_filter)
                events.append(Event.of(self._frame | {"choices": [choice]}))
        return events

    def _filter_choice(self, index: int, choice: dict[str, Any]) -> dict[str, Any] | None:
        choice_filter = self._filters.get(index)
        if choice_filter is None:
            choice_filter = self._filters[index] = _ChoiceFilter(self._tags)
        passed = choice_filter.feed(choice)
        if choice_filter.stopped:
            self._stopped = True
        elif choice.get("finish_reason"):
            choice_filter.finished = True
        return None if passed is None else self._with_reason(passed, choice_filter)

    def _with_reason(self, choice: dict[str, Any], choice_filter: _ChoiceFilter) -> dict[str, Any]:
        tag = choice_filter.found
        return choice | {"stop_reason": tag} if tag in self._named else choice


class _ChoiceFilter:
    """
    Filters one choice. Holds back text that may become a tag, and its logprobs.

    @ivar finished: whether the choice has ended with a finish reason.
    @ivar _place: where the last text was: in the C{delta}, the C{message}, or the choice itself.
    @ivar _in_parts: whether the last content was a list of parts.
    """

    __slots__ = ("_in_parts", "_logprobs", "_place", "_scanner", "_tags", "finished")

    def __init__(self, tags: Sequence[str]) -> None:
        self.finished = False
        self._tags = tags
        self._scanner = StopTagScanner(tags)
        self._logprobs = _Logprobs()
        self._place = ""
        self._in_parts = False

    @property
    def held(self) -> bool:
        return self._scanner.held

    @property
    def stopped(self) -> bool:
        return self._scanner.stopped

    @property
    def found(self) -> str | None:
        """The tag that ended the choice; None if none did."""
        return self._scanner.found

    def feed(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """The choice to send: the same object if it is unchanged, None if nothing is to be sent."""
        if self._is_harmless(choice):
            self._place, self._in_parts = "delta", False
            return choice
        place = _place_of(choice)
        before = self._before_message() if place == "message" else ""
        if self.stopped:
            return _without_message(choice) | _in_place("delta", {}, before, "stop")
        self._place = place
        fields = choice.get(place) if place else choice
        if not isinstance(fields, dict):
            fields = {}
        content = fields.get("content" if place else "text")
        if not content or not isinstance(content, str | list):
            content = ""
        passed: str | list[Any] = self._scanned(content) if content else ""
        finish_reason = choice.get("finish_reason")
        if finish_reason or place == "message":
            passed = self._with_text(passed, self._scanner.flush())
        logprobs = self._logprobs.feed(choice.get("logprobs"), _length(passed), self._scanner)
        if self.stopped:
            finish_reason = "stop"
        elif passed == content and logprobs == choice.get("logprobs"):
            return _with_delta(choice, before)
        elif not (passed or logprobs or finish_reason) and _is_content_only(choice, place, fields):
            return None
        replaced = choice | {"logprobs": logprobs} | _in_place(place, fields, passed, finish_reason)
        return _with_delta(replaced, before)

    def flush(self) -> dict[str, Any] | None:
        """The text held back at the end of the response, as a choice; None if there is none."""
        text = self._scanner.flush()
        logprobs = self._logprobs.feed(None, len(text), self._scanner)
        if not (text or logprobs or self.stopped):
            return None
        finish_reason = "stop" if self.stopped else None
        passed = self._with_text("", text)
        return {"logprobs": logprobs} | _in_place(self._place, {}, passed, finish_reason)

    def _is_harmless(self, choice: dict[str, Any]) -> bool:
        """Whether this is a plain delta in which no tag begins, as most are."""
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        if not isinstance(text, str) or not text or self._logprobs.held:
            return False
        return self._scanner.passes(text)

    def _before_message(self) -> Any:
        """What was held back before a whole message, in which the text begins anew."""
        if not self._place:
            return ""
        before = self._with_text("", self._scanner.flush())
        if not self.stopped:
            self._scanner = StopTagScanner(self._tags)
            self._logprobs = _Logprobs()
        return before

    def _scanned(self, content: str | list[Any]) -> str | list[Any]:
        """What may be sent of a content; the same if all of it may."""
        self._in_parts = isinstance(content, list)
        if isinstance(content, str):
            return self._scanner.feed(content)
        passed: list[Any] = []
        for part in content:
            is_object = isinstance(part, dict)
            text = part.get("text") if is_object else part
            if not isinstance(text, str):
                # Something else ends the text before it.
                _add_text(passed, self._scanner.flush())
                if self.stopped:
                    break
                passed.append(part)
                continue
            certain = self._scanner.feed(text)
            if certain or not text:
                passed.append(part | {"text": certain} if is_object else certain)
            if self.stopped:
                break
        return passed

    def _with_text(self, content: str | list[Any], text: str) -> str | list[Any]:
        """A content with more text at its end."""
        if not text:
            return content
        if isinstance(content, str) and not (self._in_parts and not content):
            return content + text
        parts = [*content]
        _add_text(parts, text)
        return parts


def _add_text(parts: list[Any], text: str) -> None:
    """Add text at the end of a list of parts, which are not modified."""
    last = parts[-1] if parts else None
    if isinstance(last, dict) and last.get("type") == "text":
        parts[-1] = last | {"text": str(last.get("text", "")) + text}
    elif text:
        parts.append({"type": "text", "text": text})


def _place_of(choice: dict[str, Any]) -> str:
    """Where the text of a choice is; empty if it is in the choice itself."""
    delta, message = choice.get("delta"), choice.get("message")
    # Some upstreams send a single event with the whole message, or one more in the end.
    if isinstance(message, dict) and not (isinstance(delta, dict) and delta.get("content")):
        return "message"
    is_text = "delta" not in choice and isinstance(choice.get("text"), str)
    return "" if is_text else "delta"


def _with_delta(choice: dict[str, Any], content: Any) -> dict[str, Any]:
    """The choice with a content in its delta, if there is one."""
    delta = choice.get("delta")
    fields = delta if isinstance(delta, dict) else {}
    return choice | {"delta": fields | {"content": content}} if content else choice


def _without_message(choice: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choice.items() if key != "message"}


def _in_place(
    place: str, fields: dict[str, Any], content: Any, finish_reason: Any
) -> dict[str, Any]:
    if not place:
        return {"text": content, "finish_reason": finish_reason}
    return {place: fields | {"content": content}, "finish_reason": finish_reason}


def _length(content: str | list[Any]) -> int:
    if isinstance(content, str):
        return len(content)
    texts = (part.get("text") if isinstance(part, dict) else part for part in content)
    return sum(len(text) for text in texts if isinstance(text, str))


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

    @property
    def held(self) -> bool:
        return bool(self._tokens)

    def feed(self, logprobs: Any, passed: int, scanner: StopTagScanner) -> Any:
        """
        The logprobs to send with a piece of text.

        @param logprobs: the logprobs received with the piece.
        @param passed: the number of its characters that are sent.
        @param scanner: the scanner that has processed the piece.
        """
        tokens = _tokens_of(logprobs)
        if not (tokens or self._tokens):
            return None if scanner.held or scanner.stopped else logprobs
        self._tokens = [*self._tokens, *tokens]
        self._ahead += passed
        count = len(self._tokens)
        if scanner.held or scanner.stopped:
            count = self._count_passed()
        else:
            self._ahead = 0
        out, self._tokens = self._tokens[:count], self._tokens[count:]
        if out == tokens:
            return logprobs
        others = logprobs if isinstance(logprobs, dict) else {}
        return others | _as_logprobs(out) if out else None

    def _count_passed(self) -> int:
        for number, token in enumerate(self._tokens):
            text = token.get("token") if isinstance(token, dict) else None
            if not isinstance(text, str) or len(text) > self._ahead:
                return number
            self._ahead -= len(text)
        return len(self._tokens)


def _tokens_of(logprobs: Any) -> list[Any]:
    """
    One value for each token. The logprobs of completions are lists of equal length instead, of
    tokens, of their logprobs and so on.
    """
    if not isinstance(logprobs, dict):
        return []
    tokens, texts = logprobs.get("content"), logprobs.get("tokens")
    if isinstance(tokens, list):
        return tokens
    if not isinstance(texts, list):
        return []
    columns = {
        key: column
        for key, column in logprobs.items()
        if isinstance(column, list) and len(column) == len(texts)
    }
    return [
        {"token": text, _COLUMNS: {key: column[number] for key, column in columns.items()}}
        for number, text in enumerate(texts)
    ]


def _as_logprobs(tokens: Sequence[Any]) -> dict[str, Any]:
    first = tokens[0]
    if not (isinstance(first, dict) and _COLUMNS in first):
        return {"content": tokens}
    return {key: [token[_COLUMNS].get(key) for token in tokens] for key in first[_COLUMNS]}


def _is_content_only(choice: dict[str, Any], place: str, fields: dict[str, Any]) -> bool:
    if place and any(value not in _EMPTY for key, value in fields.items() if key != "content"):
        return False
    return all(
        value in _EMPTY
        for key, value in choice.items()
        if key not in ("index", "delta", "message", "logprobs", "text")
    )
