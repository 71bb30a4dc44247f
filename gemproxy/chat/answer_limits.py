"""How large an answer may be that is kept until its end."""

from __future__ import annotations

from attrs import frozen

from gemproxy.chat.errors import SERVER_ERROR, ChatError
from gemproxy.chat.json_structure import openers

# The objects and lists of a chunk that says one word are four: itself, its choices, the choice, and
# its delta. With a piece of a call they are seven.
_PARTS_OF_A_CHUNK = 8


@frozen
class AnswerLimits:
    """
    @ivar size: bytes of all of its chunks, as JSON.
    @ivar parts: JSON objects and lists in them, beyond those that every chunk has. Brackets in
        texts count too: the text is looked at before it is parsed.
    @ivar calls: function calls of one choice, and its pictures.
    """

    size: int = 100_000_000
    parts: int = 200_000
    calls: int = 1000

    def check(self, size: int, parts: int) -> None:
        """@raise ChatError: 502, an answer of this size is not kept."""
        if size > self.size:
            raise answer_too_large(f"is larger than {self.size} bytes, the limit (MAX_ANSWER)")
        if parts > self.parts:
            raise answer_too_large(
                f"has more than {self.parts} parts, the limit (MAX_ANSWER_PARTS)"
            )

    def check_calls(self, number: int, what: str = "function calls") -> None:
        """@raise ChatError: 502, an answer with so many is not kept."""
        if number > self.calls:
            raise answer_too_large(
                f"has more than {self.calls} {what}, the limit (MAX_ANSWER_CALLS)"
            )

    def check_json(self, text: bytes) -> None:
        """
        Check a chunk or a document before it is parsed: many small parts take long, and a hundred
        times the memory of their text.

        @raise ChatError: 502, it has too many parts.
        """
        # A text has no more parts than bytes, so most need no look.
        if len(text) > self.parts:
            self.check(0, parts_of(text))


DEFAULT_LIMITS = AnswerLimits()


class AnswerMeter:
    """Measures an answer while it comes."""

    def __init__(self, limits: AnswerLimits) -> None:
        self._limits = limits
        self._size = 0
        self._parts = 0

    def add(self, data: bytes) -> tuple[int, int]:
        """
        @param data: the JSON of another chunk; returns its size and the number of its parts.
        @raise ChatError: 502, the answer becomes larger than allowed. The chunk is not counted.
        """
        size, parts = len(data), parts_of(data)
        self._limits.check(self._size + size, self._parts + parts)
        self._size += size
        self._parts += parts
        return size, parts

    def take_back(self, size: int, parts: int) -> None:
        """What was counted is kept no longer."""
        self._size -= size
        self._parts -= parts


def parts_of(text: bytes | bytearray) -> int:
    """The objects and lists in the JSON of a chunk, beyond those that every chunk has."""
    parts = openers(text) - _PARTS_OF_A_CHUNK
    return parts if parts > 0 else 0


def answer_too_large(how: str) -> ChatError:
    """
    The error of an answer that was ended because of its size. Another try would end likewise.

    @param how: what is too large: the rest of a sentence that begins with "The answer".
    """
    return ChatError(
        502,
        SERVER_ERROR,
        f"The answer {how}, and was ended.",
        code="answer_too_large",
        final=True,
    )
