"""Assembles the chunks of a stream into a completion."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from gemproxy.chat.answer_limits import AnswerLimits, AnswerMeter
from gemproxy.chat.chunks import index_of
from gemproxy.chat.deltas import (
    CHOICE,
    COMPLETION,
    MESSAGE,
    add,
    number_of_calls,
    settled,
    text_of,
)
from gemproxy.chat.jsontext import read

_Object = dict[str, Any]

_OMITTED_IF_NULL = ("id", "created", "model", "usage")
_OMITTED_IF_EMPTY = ("tool_calls", "function_call")
_APART = frozenset({"delta", "message", "index", "finish_reason"})


@define(eq=False)
class _Choice:
    """
    @ivar size: bytes of its chunks.
    @ivar parts: see L{AnswerLimits}.
    """

    _index: int
    _limits: AnswerLimits
    size: int = field(init=False, default=0)
    parts: int = field(init=False, default=0)
    finish_reason: str | None = field(init=False, default=None)
    _fields: _Object = field(init=False, factory=dict)
    _message: _Object = field(init=False)

    @_message.default
    def _empty_message(self) -> _Object:
        return {"role": "assistant", "content": None}

    def add(self, choice: _Object) -> None:
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict):
            if "tool_calls" in delta:
                self._add_calls(delta)
            else:
                add(self._message, delta, MESSAGE)
        if isinstance(message, dict) and not _says_something(delta):
            self._replace(message)
        add(self._fields, choice, CHOICE, apart=_APART)

    def _add_calls(self, delta: _Object) -> None:
        """@raise ChatError: 502, there are too many calls."""
        calls = delta.get("tool_calls")
        # They take long to add.
        self._limits.check_calls(len(calls) if isinstance(calls, list) else 0)
        add(self._message, delta, MESSAGE)
        self._limits.check_calls(number_of_calls(self._message))

    def _replace(self, message: _Object) -> None:
        """Take a whole message, which some upstreams send in the end, or instead of a stream."""
        for key, value in message.items():
            if value:
                self._message[key] = None
        self._add_calls(message)

    def text(self) -> str:
        return text_of(self._message["content"])

    def settled(self) -> _Object:
        message = {
            key: value
            for key, value in settled(self._message).items()
            if value or key not in _OMITTED_IF_EMPTY
        }
        choice = {"index": self._index, "message": message, **settled(self._fields)}
        return choice | {"finish_reason": self.finish_reason}


def _says_something(delta: Any) -> bool:
    return isinstance(delta, dict) and any(delta[key] for key in delta if key != "role")


@define(eq=False)
class CompletionCollector:
    """Assembles the chunks of one response into a C{chat.completion} object, within limits."""

    _limits: AnswerLimits = AnswerLimits()
    _meter: AnswerMeter = field(init=False)
    _fields: _Object = field(init=False)
    _choices: dict[int, _Choice] = field(init=False, factory=dict)

    @_meter.default
    def _new_meter(self) -> AnswerMeter:
        return AnswerMeter(self._limits)

    @_fields.default
    def _no_fields(self) -> _Object:
        # Sets the usual order of the fields.
        return dict.fromkeys(("id", "object", "created", "model", "choices"))

    def add(self, data: bytes) -> None:
        """
        @param data: the JSON of one chat.completion.chunk.

        @raise ValueError: it is not a JSON object.
        @raise ChatError: see L{add_parsed}.
        """
        self.add_parsed(read(data, exactly=True), data)

    def add_parsed(self, chunk: Any, data: bytes) -> None:
        """
        @param chunk: a chat.completion.chunk; it is not modified.
        @param data: its JSON, by which it counts.

        @raise ValueError: it is not a JSON object.
        @raise ChatError: 502, the answer becomes larger than allowed. The chunk is not added.
        """
        if not isinstance(chunk, dict):
            raise ValueError("a chunk must be a JSON object")
        size, parts = self._meter.add(data)
        known = self._fields
        # Most fields are the same in every chunk.
        changed = {
            key: value
            for key, value in chunk.items()
            if key != "choices" and (key not in known or known[key] != value)
        }
        if changed:
            add(known, changed, COMPLETION)
        choices = chunk.get("choices")
        if isinstance(choices, list):
            self._add_choices(choices, size, parts)

    def _add_choices(self, choices: list[Any], size: int, parts: int) -> None:
        """@param size: of their chunk, which counts for the first of them; likewise C{parts}."""
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            index = index_of(choice.get("index")) or 0
            known = self._choices.get(index)
            if known is None:
                known = self._choices[index] = _Choice(index, self._limits)
            known.size += size
            known.parts += parts
            size = parts = 0
            known.add(choice)

    def discard(self, index: int) -> None:
        """Forget what has been received of a choice."""
        discarded = self._choices.pop(index, None)
        if discarded is not None:
            self._meter.take_back(discarded.size, discarded.parts)

    def completion(self) -> dict[str, Any]:
        """The equivalent non-streaming response."""
        fields = self._fields | {
            "object": "chat.completion",
            "choices": [choice.settled() for _, choice in sorted(self._choices.items())],
        }
        return {
            key: value
            for key, value in fields.items()
            if value is not None or key not in _OMITTED_IF_NULL
        }

    @property
    def finished(self) -> bool:
        """Whether there is at least one choice and every choice has a finish_reason."""
        return bool(self._choices) and all(
            choice.finish_reason for choice in self._choices.values()
        )

    @property
    def usage(self) -> dict[str, Any] | None:
        usage = self._fields.get("usage")
        return usage if isinstance(usage, dict) else None

    @property
    def text(self) -> str:
        """The content of choice 0 received so far."""
        choice = self._choices.get(0)
        return "" if choice is None else choice.text()
