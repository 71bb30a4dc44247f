"""Ends an answer at a stop tag, whichever backend it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.sse import Event
from gemproxy.chat.stoptags import StopTagScanner

# What a chunk may hold besides content without being worth sending for it.
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class StopTagFilter:
    """
    Passes the chunks of one answer on, up to the tag in each choice.

    @ivar ended: every choice has come to its end, and a tag ended at least one of them: nothing
        that may follow is of interest.
    """

    def __init__(self, tags: Sequence[str], choices: int) -> None:
        """@param choices: how many the client asked for."""
        self._tags = tags
        self._choices = choices
        self._scanners: dict[int, StopTagScanner] = {}
        self._finished: set[int] = set()
        self._stopped: set[int] = set()
        self._frame: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        return bool(self._stopped) and len(self._finished | self._stopped) >= self._choices

    @property
    def frame(self) -> dict[str, Any]:
        """What all chunks of this answer have in common: id, created, model and so on."""
        return self._frame

    def feed(self, event: Event) -> list[Event]:
        """What may go out now, instead of an event."""
        if not self._tags:
            return [event]
        try:
            chunk = loads(event.data)
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
            index = choice.get("index") or 0
            if index in self._stopped:
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
        if not changed:
            return [event]
        if kept or chunk.get("usage"):
            out.append(Event(dumps(chunk | {"choices": kept}), event.name))
        return out

    def flush(self) -> list[Event]:
        """What was held back, now that the answer is over without a finish reason."""
        events = []
        for index, scanner in self._scanners.items():
            if index not in self._stopped and (text := scanner.flush()):
                choice = {"index": index, "delta": {"content": text}, "finish_reason": None}
                events.append(Event(dumps(self._frame | {"choices": [choice]})))
        return events

    def _filter_choice(self, index: int, choice: dict[str, Any]) -> dict[str, Any] | None:
        """The choice as it may go out: itself if it may as it is, None if there is nothing."""
        scanner = self._scanners.get(index)
        if scanner is None:
            scanner = self._scanners[index] = StopTagScanner(self._tags)
        delta = choice.get("delta")
        content = delta.get("content") if isinstance(delta, dict) else None
        finish_reason = choice.get("finish_reason")
        passed = scanner.feed(content) if isinstance(content, str) else ""
        if scanner.stopped:
            self._stopped.add(index)
            return _with_content(choice, passed) | {"finish_reason": "stop"}
        if finish_reason is not None:
            self._finished.add(index)
            passed += scanner.flush()
        if passed == (content or ""):
            return choice
        if not passed and finish_reason is None and _is_content_only(choice, delta or {}):
            return None
        return _with_content(choice, passed)


def _with_content(choice: dict[str, Any], content: str) -> dict[str, Any]:
    replaced = choice | {"delta": {**(choice.get("delta") or {}), "content": content}}
    # They would tell the text of a tag, token by token.
    replaced.pop("logprobs", None)
    return replaced


def _is_content_only(choice: dict[str, Any], delta: dict[str, Any]) -> bool:
    return all(value in _EMPTY for key, value in delta.items() if key != "content") and all(
        value in _EMPTY for key, value in choice.items() if key not in ("index", "delta")
    )
