"""Where the blocks of an answer go: into a stream of events, or into a document."""

from __future__ import annotations

from typing import Any, Protocol

from gemproxy.chat.jsontext import dumps, joined_halves, loads

Json = dict[str, Any]


def event(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)


class BlockWriter(Protocol):
    """
    Takes the blocks of an answer, which are numbered in the order in which they start.

    @ivar is_empty: whether no block was started.
    """

    @property
    def is_empty(self) -> bool: ...

    def start(self, block: Json) -> int:
        """
        Begin a block.

        @param block: without what is added to it.
        @return: its number.
        """

    def add(self, number: int, kind: str, field: str, value: Any) -> None:
        """
        Add to a block.

        @param kind: the type of the delta.
        @param field: the field of the delta, which is that of the block for all but JSON.
        """

    def stop(self, number: int) -> None:
        """A block is complete."""


class StreamWriter:
    """
    Writes events.

    @ivar is_begun: whether there was an event.
    """

    def __init__(self, opening: bytes) -> None:
        """@param opening: the event before all others."""
        self.is_begun = False
        self.is_empty = True
        self._count = 0
        self._pieces: list[bytes] = [opening]
        # What is in front of the value of a delta; most are of the same kind as the one before.
        self._head = b""
        self._head_of: tuple[int, str] = (-1, "")

    def take(self) -> bytes:
        """The events since the last time, if the stream has begun."""
        if not self.is_begun:
            return b""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    def begin(self) -> None:
        self.is_begun = True

    def write(self, name: bytes, data: bytes) -> None:
        self.is_begun = True
        self._pieces.append(event(name, data))

    def start(self, block: Json) -> int:
        number, self._count = self._count, self._count + 1
        self.is_empty = False
        started = {"type": "content_block_start", "index": number, "content_block": block}
        self.write(b"content_block_start", dumps(started))
        return number

    def add(self, number: int, kind: str, field: str, value: Any) -> None:
        if self._head_of != (number, kind):
            self._head_of = (number, kind)
            self._head = (
                b"event: content_block_delta\n"
                b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
                % (number, kind.encode(), field.encode())
            )
        # The other half of a surrogate may be in the next delta.
        self._pieces.append(b"%b%b}}\n\n" % (self._head, dumps(value, keep_halves=True)))

    def stop(self, number: int) -> None:
        self.write(b"content_block_stop", b'{"type":"content_block_stop","index":%d}' % number)


class DocumentWriter:
    """
    Collects the blocks.

    @ivar blocks: complete once all of them are stopped.
    """

    def __init__(self) -> None:
        self.blocks: list[Json] = []
        self._texts: dict[int, list[str]] = {}

    @property
    def is_empty(self) -> bool:
        return not self.blocks

    def start(self, block: Json) -> int:
        self.blocks.append(dict(block))
        return len(self.blocks) - 1

    def add(self, number: int, kind: str, field: str, value: Any) -> None:
        block = self.blocks[number]
        if kind == "citations_delta":
            block.setdefault("citations", []).append(value)
        elif kind == "signature_delta":
            block["signature"] = value
        else:
            self._texts.setdefault(number, []).append(value)

    def stop(self, number: int) -> None:
        block, text = self.blocks[number], joined_halves("".join(self._texts.pop(number, ())))
        if block["type"] == "tool_use":
            block["input"] = _input(text)
        elif block["type"] in ("text", "thinking"):
            block[block["type"]] = text


def _input(text: str) -> Json:
    """The arguments of a call, whatever another model has made of them."""
    try:
        value = loads(text.encode("utf-8", "replace")) if text else {}
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"arguments": value}
