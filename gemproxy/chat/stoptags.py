"""Finds the tag that ends a response, in text received in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_BACKSLASH = ord("\\")
_SHORT_ESCAPES = {
    '"': '"',
    "\\": "\\",
    "/": "/",
    "\b": "b",
    "\f": "f",
    "\n": "n",
    "\r": "r",
    "\t": "t",
}


def _any_of(patterns: Iterable[str]) -> str:
    return "|".join(patterns) or "(?!)"


def _hex_in_either_case(unit: int) -> str:
    return "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in f"{unit:04x}")


def _first_utf16_unit(char: str) -> int:
    return int.from_bytes(char.encode("utf-16-be", "surrogatepass")[:2], "big")


def _literal_spellings(char: str) -> Iterable[bytes]:
    """Byte sequences, one of which a JSON text must contain to have the character unescaped."""
    if char in '"\\':
        return
    yield char.encode("utf-8", "surrogatepass")
    if char > "\uffff":
        # loads joins surrogates that are encoded separately; testing for the first one suffices.
        yield chr(_first_utf16_unit(char)).encode("utf-8", "surrogatepass")
    if char == "\ufffd":
        # loads replaces an encoded lone surrogate by U+FFFD; all of them start with this byte.
        yield b"\xed"


def _escaped_spellings(char: str) -> Iterable[str]:
    """Patterns of what follows the backslash in JSON's escapes of the character."""
    if char in _SHORT_ESCAPES:
        yield re.escape(_SHORT_ESCAPES[char])
    yield "u" + _hex_in_either_case(_first_utf16_unit(char))
    if char == "\ufffd":
        yield "u[dD][89a-fA-F]"


class TagPatterns:
    """
    Compiled patterns for a set of tags.

    @ivar tag: matches any of the tags.
    @ivar beginning: matches the first character of any tag.
    @ivar has_pairs: whether a tag has a character that is a pair of surrogates in UTF-16.
    @ivar literals: a JSON text with such a character unescaped contains one of these.
    @ivar escape: matches a JSON escape of such a character.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = [tag for tag in tags if tag]
        self.longest = max(map(len, self.tags), default=0)
        self.tag = re.compile(_any_of(map(re.escape, self.tags)))
        beginnings = {tag[0] for tag in self.tags}
        self.beginning = re.compile(_any_of(map(re.escape, beginnings)))
        self.has_pairs = any(char > "\uffff" for tag in self.tags for char in tag)
        # A byte is looked for as a number: if it is of bytes, Python raises and drops an exception
        # first, which takes ten times as long.
        self.literals: set[int | bytes] = {
            text[0] if len(text) == 1 else text
            for char in beginnings
            for text in _literal_spellings(char)
        }
        escapes = _any_of(text for char in beginnings for text in _escaped_spellings(char))
        self.escape = re.compile(rf"\\(?:{escapes})".encode())

    def could_begin(self, raw: bytes) -> bool:
        """
        Whether a tag could start in an event, judged without parsing it. False is certain.

        @param raw: the event's JSON.
        """
        for literal in self.literals:
            if literal in raw:
                return True
        return _BACKSLASH in raw and self.escape.search(raw) is not None


# Cached: all responses use the same tags.
patterns = lru_cache(8)(TagPatterns)


def _without_half(text: str) -> tuple[str, str]:
    """The text with its surrogates joined, and half a pair at its end, if there is one."""
    if text.isascii():
        return text, ""
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    ends_in_half = "\ud800" <= joined[-1:] <= "\udbff"
    return (joined[:-1], joined[-1]) if ends_in_half else (joined, "")


class StopTagScanner:
    """
    Passes on the text of one choice up to the first tag.

    Text that may still become a tag is held back; it is always shorter than the longest tag, but
    for half a surrogate pair behind it.
    """

    __slots__ = ("_found", "_patterns", "_tail")

    def __init__(self, tags: Sequence[str]) -> None:
        self._patterns = patterns(tuple(tags))
        self._tail = ""
        self._found: str | None = None

    @property
    def found(self) -> str | None:
        """The tag that was found; None if none was."""
        return self._found

    @property
    def stopped(self) -> bool:
        """Whether a tag was found."""
        return self._found is not None

    @property
    def held(self) -> bool:
        """Whether text is held back."""
        return bool(self._tail)

    def passes(self, text: str) -> bool:
        """Whether more text would be passed on as it is, for certain, and nothing is held back."""
        known = self._patterns
        return (
            not (self._tail or self.stopped or known.has_pairs)
            and known.beginning.search(text) is None
        )

    def feed(self, text: str) -> str:
        """Process more text; returns the text that certainly precedes any tag."""
        if self.stopped:
            return ""
        half = ""
        if self._tail:
            text = self._tail + text
        if self._patterns.has_pairs:
            text, half = _without_half(text)
        if not self._tail and self._patterns.beginning.search(text) is None:
            self._tail = half
            return text
        found = self._patterns.tag.search(text)
        end = len(text) if found is None else found.start()
        certain = self._before_unfinished_tag(text, end)
        if found is not None and certain == end:
            self._found = found.group()
            self._tail = ""
        else:
            # This may contain a whole tag, inside a longer one that is still incomplete.
            self._tail = text[certain:] + half
        return text[:certain]

    def flush(self) -> str:
        """The text held back, once the response has ended; up to the first tag in it."""
        tail, self._tail = self._tail, ""
        found = self._patterns.tag.search(tail)
        if found is None:
            return tail
        self._found = found.group()
        return tail[: found.start()]

    def _before_unfinished_tag(self, text: str, end: int) -> int:
        """The first index before C{end} at which an incomplete tag may start, or C{end}."""
        first = max(0, len(text) - self._patterns.longest + 1)
        for beginning in self._patterns.beginning.finditer(text, first, max(first, end)):
            start = beginning.start()
            rest = text[start:]
            if any(tag.startswith(rest) for tag in self._patterns.tags):
                return start
        return end
