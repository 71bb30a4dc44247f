"""Finds the tag that ends an answer in text that comes in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

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
    """Bytes without which a JSON text cannot have the character in a string unescaped."""
    if char in '"\\':
        return
    yield char.encode("utf-8", "surrogatepass")
    if char > "\uffff":
        # Halves encoded one by one are joined by our JSON parser; the first tells enough.
        yield chr(_first_utf16_unit(char)).encode("utf-8", "surrogatepass")
    if char == "\ufffd":
        # What it makes of an encoded half that is alone: all of those begin with this byte.
        yield b"\xed"


def _escaped_spellings(char: str) -> Iterable[str]:
    """Patterns of what follows the backslash where JSON spells the character with one."""
    if char in _SHORT_ESCAPES:
        yield re.escape(_SHORT_ESCAPES[char])
    yield "u" + _hex_in_either_case(_first_utf16_unit(char))
    if char == "\ufffd":
        yield "u[dD][89a-fA-F]"


class TagPatterns:
    """
    What tags look like.

    @ivar tag: any of them.
    @ivar beginning: the first character of any.
    @ivar literals: one of which a JSON text has that spells such a character as it is.
    @ivar escape: what one has that escapes it.
    """

    def __init__(self, tags: Sequence[str]) -> None:
        self.tags = [tag for tag in tags if tag]
        self.longest = max(map(len, self.tags), default=0)
        self.tag = re.compile(_any_of(map(re.escape, self.tags)))
        beginnings = {tag[0] for tag in self.tags}
        self.beginning = re.compile(_any_of(map(re.escape, beginnings)))
        self.literals = {text for char in beginnings for text in _literal_spellings(char)}
        escapes = _any_of(text for char in beginnings for text in _escaped_spellings(char))
        self.escape = re.compile(rf"\\(?:{escapes})".encode())

    def could_begin(self, raw: bytes) -> bool:
        """
        Whether a tag could begin in an event: False is certain, and needs no parsing.

        @param raw: the event's JSON.
        """
        for literal in self.literals:
            if literal in raw:
                return True
        return b"\\" in raw and self.escape.search(raw) is not None


# The same for all answers.
patterns = lru_cache(8)(TagPatterns)


class StopTagScanner:
    """
    Lets the text of one choice through up to the first tag in it.

    What may still become a tag is held back: always less than the longest tag.
    """

    __slots__ = ("_patterns", "_stopped", "_tail")

    def __init__(self, tags: Sequence[str]) -> None:
        self._patterns = patterns(tuple(tags))
        self._tail = ""
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether a tag was found: the answer ends before it."""
        return self._stopped

    @property
    def held(self) -> bool:
        """Whether something is held back."""
        return bool(self._tail)

    def feed(self, text: str) -> str:
        """What is certain to stand before any tag, of this text and of what was held back."""
        if self._stopped:
            return ""
        if self._tail:
            text = self._tail + text
        elif self._patterns.beginning.search(text) is None:
            return text
        found = self._patterns.tag.search(text)
        end = len(text) if found is None else found.start()
        certain = self._before_unfinished_tag(text, end)
        if found is not None and certain == end:
            self._stopped = True
            self._tail = ""
        else:
            # That may hold a whole tag, inside of what may become one that begins before it.
            self._tail = text[certain:]
        return text[:certain]

    def flush(self) -> str:
        """What was held back, now that the answer has ended and cannot make a tag of it."""
        tail, self._tail = self._tail, ""
        found = self._patterns.tag.search(tail)
        if found is None:
            return tail
        self._stopped = True
        return tail[: found.start()]

    def _before_unfinished_tag(self, text: str, end: int) -> int:
        """The first place before C{end} from where the text may become a tag, or C{end}."""
        first = max(0, len(text) - self._patterns.longest + 1)
        for beginning in self._patterns.beginning.finditer(text, first, max(first, end)):
            start = beginning.start()
            rest = text[start:]
            if any(tag.startswith(rest) for tag in self._patterns.tags):
                return start
        return end
