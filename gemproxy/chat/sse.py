"""Server-sent events: an incremental decoder and an encoder."""

from __future__ import annotations

import re
from typing import Any

from attrs import define, field

from gemproxy.chat.jsontext import dumps, has_long_integer, read, values

DONE: bytes = b"[DONE]"

_BOM = b"\xef\xbb\xbf"
_RUN_TOGETHER = re.compile(r"\s*(?:data:\s*)?")
_FIELD = re.compile(rb"(data|event)(?:: ?|\Z)")
_MAX_EVENT_BYTES = 64 * 1024 * 1024
# Bytes of one whose copies take time.
_LARGE_LINE = 64 * 1024


_NOT_PARSED = object()
# Bytes are looked for as numbers: if they are bytes, Python raises and drops an exception first,
# which takes ten times as long.
_LF, _CR = b"\n\r"


# Not frozen: that would take more time than all the rest of creating an event.
@define
class Event:
    """
    One server-sent event.

    @ivar data: its data lines, joined by LF.
    @ivar name: the value of its C{event:} line; empty if it has no such line.
    @ivar text: that of a chunk which says nothing else, as most do (see C{text_alone}), if whoever
        made the event knows it. Others need not look at its JSON then.
    """

    data: bytes
    name: bytes = b""
    _json: Any = field(default=_NOT_PARSED, eq=False, repr=False)
    text: str | None = field(default=None, eq=False, repr=False)

    @classmethod
    def of(cls, value: Any, name: bytes = b"") -> Event:
        """Create an event whose data is the value as JSON."""
        return cls(dumps(value, keep_halves=True), name, value)

    def json(self) -> Any:
        """
        The data parsed as JSON, leniently (see L{read}). Integers beyond 64 bits are not exact. The
        value is cached and must not be modified.

        @raise ValueError: the data is not JSON.
        """
        if self._json is _NOT_PARSED:
            self._json = read(self.data)
        return self._json

    def exact_json(self) -> Any:
        """The same with exact integers, which takes more time."""
        if has_long_integer(self.data):
            self._json = read(self.data, exactly=True)
        return self.json()

    def apart(self) -> list[Event]:
        """
        The events of which this one was made by mistake, since C{data:} is missing between them, or
        the line end in front of it, or the blank line. A list of this event alone if there are no
        others.
        """
        text = self.data.rstrip()
        is_last = text.endswith(DONE)
        if is_last:
            text = text.removesuffix(DONE).rstrip().removesuffix(b"data:")
        try:
            found = values(text, _RUN_TOGETHER)
        except ValueError:
            return [self]
        if not all(value.startswith(b"{") for value in found) or len(found) + is_last < 2:
            return [self]
        *others, last = [*found, DONE] if is_last else found
        return [*map(Event, others), Event(last, self.name)]


class EventTooLarge(ValueError):
    """An event of a stream exceeds the size limit."""


@define(eq=False)
class SSEDecoder:
    """
    Decodes a byte stream into events, incrementally, by the rules of WHATWG's EventSource.

    Each byte is examined once, regardless of how the stream is split.

    @ivar _max_event_bytes: the maximum size of an unfinished event.
    @ivar _takes_bare_json: whether a line that begins with a brace, between events, begins an event
        as well, which goes on to the next blank line. New-API ends a stream so when it fails after
        a comment.
    @ivar _opening: the start of the stream, while it may still be part of a byte order mark.
    @ivar _line: the start of an unfinished line.
    @ivar _lines: the data lines of the unfinished event. They are joined at its end, so that a line
        of many megabytes is copied once.
    @ivar _size: bytes of these, with a line end for each.
    """

    _max_event_bytes: int = _MAX_EVENT_BYTES
    _takes_bare_json: bool = False
    _opening: bytes | None = field(init=False, default=b"")
    _after_cr: bool = field(init=False, default=False)
    _line: bytearray = field(init=False, factory=bytearray)
    _lines: list[bytes] = field(init=False, factory=list)
    _size: int = field(init=False, default=0)
    _name: bytes = field(init=False, default=b"")
    _is_bare: bool = field(init=False, default=False)

    def feed(self, data: bytes) -> list[Event]:
        """
        Decode more bytes; returns the events that they complete.

        @raise EventTooLarge: no event was completed, and the unfinished one is too large.
        """
        events: list[Event] = []
        if self._opening is not None:
            data = self._without_bom(data)
        elif (line := self._only_line(data)) is not None:
            return [Event(line)]
        *blocks, rest = self._with_lf_only(data).split(b"\n\n")
        if blocks and self._held():
            self._take(blocks.pop(0) + b"\n\n", events)
        for block in blocks:
            if block.startswith(b"data: ") and _LF not in block:
                events.append(Event(block[6:]))
            else:
                self._take(block + b"\n\n", events)
        if rest:
            self._take(rest, events)
        # Completed events must not be lost. What is held then comes from this piece alone.
        if not events and self._held() > self._max_event_bytes:
            raise EventTooLarge(f"an event of more than {self._max_event_bytes} bytes")
        return events

    def close(self) -> list[Event]:
        """
        Decode the end of the stream; returns an event that lacks its blank line, if there is one.
        """
        events: list[Event] = []
        self._take(b"\n\n", events)
        return events

    def _only_line(self, data: bytes) -> bytes | None:
        """The data of a piece that is exactly one event with one line, as most pieces are."""
        if not data.startswith(b"data: ") or (
            self._line or self._lines or self._name or self._after_cr
        ):
            return None
        if data.endswith(b"\n\n"):
            line = data[6:-2]
        elif data.endswith(b"\r\n\r\n"):
            # As Google ends lines.
            line = data[6:-4]
        else:
            return None
        return None if _LF in line or _CR in line else line

    def _held(self) -> int:
        return len(self._line) + self._size + len(self._name)

    def _without_bom(self, data: bytes) -> bytes:
        data = (self._opening or b"") + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._opening = data
            return b""
        self._opening = None
        return data.removeprefix(_BOM)

    def _with_lf_only(self, data: bytes) -> bytes:
        if self._after_cr and data:
            # The CR has already ended the line; the LF belongs to it.
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if _CR in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _take(self, text: bytes, events: list[Event]) -> None:
        first, *others = text.split(b"\n")
        self._line += first
        if not others:
            return
        is_large = len(self._line) > _LARGE_LINE
        line = self._line if is_large else bytes(self._line)
        self._line = bytearray(others.pop())
        self._take_line(line, events)
        for other in others:
            self._take_line(other, events)

    def _take_line(self, line: bytes | bytearray, events: list[Event]) -> None:
        if not line:
            self._end_event(events)
            return
        known = _FIELD.match(line)
        if known is None:
            if self._takes_bare_json and (self._is_bare or line.startswith(b"{")):
                self._take_bare(line, events)
            return
        if self._is_bare:
            self._end_event(events)
        value = _after(line, known.end())
        if known[1] == b"data":
            self._add(value)
        else:
            self._name = value

    def _take_bare(self, line: bytes | bytearray, events: list[Event]) -> None:
        if line.startswith(b"{"):
            # Whatever comes before it is whole.
            self._end_event(events)
            self._is_bare = True
        self._add(bytes(line))

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line) + 1

    def _end_event(self, events: list[Event]) -> None:
        if self._lines:
            events.append(Event(b"\n".join(self._lines), self._name))
            self._lines, self._size = [], 0
        self._name = b""
        self._is_bare = False


def _after(line: bytes | bytearray, place: int) -> bytes:
    """What comes after a place, in one copy."""
    if isinstance(line, bytes):
        return line[place:]
    with memoryview(line) as whole:
        return bytes(whole[place:])


def encode(event: Event) -> bytes:
    """
    Encode an event. A CR in its data is sent as a line end, because clients parse it as one.
    """
    data = event.data
    if _CR in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if _LF in data:
        data = data.replace(b"\n", b"\ndata: ")
    if event.name:
        return b"event: %b\ndata: %b\n\n" % (_in_one_line(event.name), data)
    return b"data: %b\n\n" % data


def comment(text: str) -> bytes:
    """
    A comment, which clients ignore. The space is needed by parsers that treat C{:data} as a field.
    """
    return b": %b\n\n" % _in_one_line(text.encode("utf-8", "replace"))


def _in_one_line(text: bytes) -> bytes:
    return text.replace(b"\r", b" ").replace(b"\n", b" ")
