"""Finds exchanges in the folder of the journal. It blocks, and is used by a thread."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from attrs import field, frozen

from gemproxy.journal_entry import (
    NOTHING_KNOWN,
    answer_in,
    facts_in_input,
    facts_in_output,
    has_left_out,
    request_in,
)
from gemproxy.journal_folder import numbers_in, paths_of

# Seconds for which a search goes on.
PATIENCE = 0.5
# Bytes of a request that is shown, and of a file that is searched.
MOST_SHOWN = 4 * 1024 * 1024
_MOST_SEARCHED = 16 * 1024 * 1024
# Bytes in which the facts of an exchange are.
_HEAD = 16 * 1024
_ERRORS_FROM = 400
# An id is so long, and no number is.
_ID_LENGTH = 16


@frozen
class Wanted:
    """
    What a search is for.

    @ivar words: facts by name, each with what must be in it, in whatever case.
    @ivar is_status: whether an exchange with this status is wanted.
    @ivar text: what must be in the request or the answer, in whatever case; empty for anything.
    """

    words: Mapping[str, str] = field(factory=dict)
    is_status: Callable[[int | None], bool] = lambda _: True
    text: str = ""

    def has_facts(self, facts: Mapping[str, Any]) -> bool:
        return self.is_status(facts["status"]) and all(
            word.lower() in str(facts[name] or "").lower() for name, word in self.words.items()
        )


def status_filter(text: str) -> Callable[[int | None], bool]:
    """
    @param text: a status such as C{503}, a class such as C{5xx}, C{error}, or nothing for any.
    @raise ValueError: it is something else.
    """
    if not text:
        return lambda _: True
    if text == "error":
        return lambda status: status is not None and status >= _ERRORS_FROM
    if len(text) == 3 and text[0].isdecimal() and text[1:] == "xx":
        return lambda status: str(status or "")[:1] == text[0]
    number = int(text)
    return lambda status: status == number


class JournalReader:
    """
    The exchanges are read while others are written and removed: one that goes is as if it had never
    been. Nothing is read but regular files of the journal's names.
    """

    def __init__(
        self,
        folder: Path,
        patience: float = PATIENCE,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """@param patience: seconds of a search, which looks at one exchange at least."""
        self._folder = folder
        self._patience = patience
        self._clock = clock

    def search(self, wanted: Wanted, before: int | None, limit: int) -> dict[str, Any]:
        """
        A page of what is wanted, the newest first.

        @param before: only exchanges with lower numbers; None for all.
        @param limit: how many at most.
        @return: C{data}, and C{next}, the C{before} of the next page; None at the end.
        """
        end = self._clock() + self._patience
        found: list[dict[str, Any]] = []
        numbers = [one for one in self._numbers() if before is None or one < before]
        for position, number in enumerate(numbers, 1):
            facts = self._facts(number)
            if facts is not None and wanted.has_facts(facts) and self._has(number, wanted.text):
                found.append(facts)
            is_last = position == len(numbers)
            if not is_last and (len(found) == limit or self._clock() >= end):
                return {"data": found, "next": number}
        return {"data": found, "next": None}

    def entry(self, name: str) -> dict[str, Any] | None:
        """
        All that is kept of an exchange; None if it is not there.

        @param name: its number, or its id.
        """
        number = self._number_of(name)
        facts = None if number is None else self._facts(number)
        if number is None or facts is None:
            return None
        request_path, answer_path = paths_of(self._folder, number)
        request, answer = _read(request_path, MOST_SHOWN + 1), _read(answer_path, None)
        if request is None or answer is None:
            return None
        messages, is_cut = answer_in(answer)
        is_shown = len(request) <= MOST_SHOWN
        return facts | {
            "request": request_in(request) if is_shown else None,
            "request_bytes": _size(request_path),
            "has_left_out": has_left_out(request),
            "answer": messages,
            "is_cut": is_cut,
        }

    def _numbers(self) -> list[int]:
        try:
            return numbers_in(self._folder)
        except OSError:
            # It may come back.
            return []

    def _number_of(self, name: str) -> int | None:
        if len(name) < _ID_LENGTH and name.isdecimal():
            return int(name)
        facts = map(self._facts, self._numbers())
        return next((one["number"] for one in facts if one is not None and one["id"] == name), None)

    def _facts(self, number: int) -> dict[str, Any] | None:
        request_path, answer_path = paths_of(self._folder, number)
        head = _read(answer_path, _HEAD)
        if head is None:
            return None
        facts = facts_in_output(head)
        if facts["route"] is None:
            known = facts_in_input(_read(request_path, _HEAD) or b"")
            facts = NOTHING_KNOWN | {n: v for n, v in facts.items() if v is not None} | known
        return {"number": number} | facts

    def _has(self, number: int, text: str) -> bool:
        """Whether the request or the answer has a text in it."""
        if not text:
            return True
        # As it is written in JSON.
        forms = {text, json.dumps(text, ensure_ascii=False)[1:-1]}
        return any(
            _has_any(content, forms)
            for path in paths_of(self._folder, number)
            if (content := _read(path, _MOST_SEARCHED)) is not None
        )


def _has_any(content: bytes, forms: set[str]) -> bool:
    if all(form.isascii() for form in forms):
        lower = content.lower()
        return any(form.lower().encode() in lower for form in forms)
    text = content.decode("utf-8", "replace").lower()
    return any(form.lower() in text for form in forms)


def _read(path: Path, size: int | None) -> bytes | None:
    """The beginning of a file, or all of it; None if it is not there, or no regular file."""
    try:
        # Opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(-1 if size is None else size)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
