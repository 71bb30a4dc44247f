"""Masks keys in a text that comes in pieces. Nothing is cut, added or delayed beyond a word."""

from __future__ import annotations

import re
from typing import Protocol

from gemproxy.util.masking import Masking

# Bytes of a word, or of an event, that is kept until it is whole. Longer ones are not looked at as
# a whole: keys are shorter, and so are errors.
_WORD_LIMIT = 8 * 1024
_EVENT_LIMIT = 64 * 1024
_SPACE = (b" ", b"\t", b"\r", b"\n")
_BEARER = b"bearer"

_LINE_ENDS = b"\r\n"
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
# The beginning of an event that says what went wrong, in the spelling of OpenAI's dialects, of
# Anthropic's and of Google's.
_ERROR = re.compile(
    rb"(?:event: ?(?:[\w.]*\.)?(?:error|failed)\b"
    rb"|data: ?\s*\{\s*\"(?:error\"|type\"\s*:\s*\"(?:[\w.]*\.)?(?:error|failed)\"))"
)
_FIELDS = (b"event:", b"data:")
# What L{_ERROR} needs to see.
_HEAD = 64


class StreamMask(Protocol):
    """Replaces keys in a text that comes in pieces."""

    def feed(self, data: bytes) -> bytes:
        """The next piece as it may be shown; the beginning of what may be a key is held back."""

    def close(self) -> bytes:
        """What was held back, at the end of the text."""


class NoMask:
    """For texts that are nobody's errors: they stay as they are."""

    def feed(self, data: bytes) -> bytes:
        return data

    def close(self) -> bytes:
        return b""


class TextMask:
    """For a text of words. It keeps its length."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        text = self._held + data
        end = self._end_of_whole_words(text)
        self._held = text[end:]
        return self._masking.in_bytes(text[:end], keeps_length=True)

    def close(self) -> bytes:
        held, self._held = self._held, b""
        return self._masking.in_bytes(held, keeps_length=True)

    def _end_of_whole_words(self, text: bytes) -> int:
        end = _end_of_words(text)
        while (before := text[:end].rstrip())[-len(_BEARER) :].lower() == _BEARER:
            # The next word belongs to it.
            end = _end_of_words(before)
        return end if len(text) - end <= _WORD_LIMIT else len(text)


def _end_of_words(text: bytes) -> int:
    """Where the last word begins."""
    return max(map(text.rfind, _SPACE)) + 1


class ErrorEventMask:
    """For server-sent events: those that are errors are masked, all others stay as they are."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        # The beginning of an event that is, or may be, an error.
        self._held = b""
        # Whether the current event was judged to be none.
        self._is_within = False

    def feed(self, data: bytes) -> bytes:
        text, self._held = self._held + data, b""
        passed: list[bytes] = []
        start = 0
        while start < len(text):
            begin = start if self._is_within else len(text) - len(text[start:].lstrip(_LINE_ENDS))
            ended = _EVENT_END.search(text, begin)
            end = len(text) if ended is None else ended.end()
            is_error: bool | None = False
            if not self._is_within and begin < end:
                is_error = _is_error(text[begin : min(end, begin + _HEAD)], ended is not None)
            if ended is None and is_error is not False and end - start <= _EVENT_LIMIT:
                self._held = text[start:]
                break
            if ended is None and not is_error and begin < end:
                # What ends the event may be cut in the middle.
                end = begin + len(text[begin:].rstrip(_LINE_ENDS))
                self._held = text[end:]
            event = text[start:end]
            passed.append(self._masking.in_bytes(event) if is_error else event)
            self._is_within = ended is None and begin < len(text)
            start = end + len(self._held)
        return b"".join(passed)

    def close(self) -> bytes:
        held, self._held = self._held, b""
        return self._masking.in_bytes(held)


def _is_error(head: bytes, is_whole: bool) -> bool | None:
    """
    Whether an event is an error; None if that cannot be said yet.

    @param head: its first bytes, up to L{_HEAD}.
    @param is_whole: whether the event has ended.
    """
    if _ERROR.match(head):
        return True
    if is_whole or len(head) == _HEAD:
        return False
    may_be = head.startswith(_FIELDS) or any(field.startswith(head) for field in _FIELDS)
    return None if may_be else False
