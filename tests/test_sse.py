"""Server-sent events, whole and in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat import sse
from gemproxy.chat.sse import DONE, Event, EventTooLarge, SSEDecoder, comment, encode
from tests.tables import each

BOM = b"\xef\xbb\xbf"


def decode(pieces: Iterable[bytes]) -> list[Event]:
    decoder = SSEDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close()


def by_the_book(stream: bytes) -> list[Event]:
    """The rules of the standard, one line at a time over the whole stream."""
    events: list[Event] = []
    data: list[bytes] = []
    name = b""
    for line in [*re.split(rb"\r\n|\n|\r", stream.removeprefix(BOM)), b""]:
        if not line:
            if data:
                events.append(Event(b"\n".join(data), name))
            data, name = [], b""
        elif match := re.fullmatch(rb"(data|event)(?:: ?(.*))?", line, re.DOTALL):
            if match[1] == b"data":
                data.append(match[2] or b"")
            else:
                name = match[2] or b""
    return events


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place for place in places if place < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


STREAMS = {
    "usual": (b'data: {"a":1}\n\ndata: [DONE]\n\n', [Event(b'{"a":1}'), Event(DONE)]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [Event(b"a"), Event(b"b")]),
    "cr": (b"data: a\r\rdata: b\r\r", [Event(b"a"), Event(b"b")]),
    "mixed line ends": (
        b"data: a\n\r\ndata: b\r\n\rdata: c\r\n\ndata: d\n\r",
        [Event(b"a"), Event(b"b"), Event(b"c"), Event(b"d")],
    ),
    "two CRLF are one blank line": (b"data: a\r\ndata: b\r\n\r\n", [Event(b"a\nb")]),
    "surplus blank lines": (b"\n\n\ndata: a\n\n\n\ndata: b\n\n\n", [Event(b"a"), Event(b"b")]),
    "byte order mark": (BOM + b"data: a\n\n", [Event(b"a")]),
    "only the first mark is one": (BOM + BOM + b"data: a\n\ndata: b\n\n", [Event(b"b")]),
    "a later mark is none": (b"data: a\n\n" + BOM + b"data: b\n\n", [Event(b"a")]),
    "half a mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [Event(b"b")]),
    "comments": (b": hello\n\n:\ndata: a\n:x\ndata: b\n\n: bye\n\n", [Event(b"a\nb")]),
    "no space": (b"data:a\n\n", [Event(b"a")]),
    "one space is taken off": (b"data:  a \n\n", [Event(b" a ")]),
    "several data lines": (b"data: a\ndata:\ndata\ndata: b\n\n", [Event(b"a\n\n\nb")]),
    "empty data is data": (b"data:\n\ndata\n\n", [Event(b""), Event(b"")]),
    "name": (b"event: error\ndata: a\n\ndata: b\n\n", [Event(b"a", b"error"), Event(b"b")]),
    "name after the data": (b"data: a\nevent:x\n\n", [Event(b"a", b"x")]),
    "the last name counts": (b"event: x\nevent: y\ndata: a\n\n", [Event(b"a", b"y")]),
    "no data, no event": (b"event: ping\n\nid: 1\n\ndata: a\n\n", [Event(b"a")]),
    "other fields": (b"id: 1\nretry: 10\nDATA: x\n data: x\nfoo\ndata: a\n\n", [Event(b"a")]),
    "no blank line at the end": (b"data: a\n\ndata: b\n", [Event(b"a"), Event(b"b")]),
    "no line end at the end": (b"data: a\n\nevent: x\ndata: b", [Event(b"a"), Event(b"b", b"x")]),
    "colon in the data": (b"data: a: b\n\n", [Event(b"a: b")]),
    "not UTF-8": (b"data: \xff\x00\n\n", [Event(b"\xff\x00")]),
    "nothing": (b"", []),
    "only a comment, cut off": (b": x", []),
}


@each("name", STREAMS)
def test_a_stream_is_decoded_however_it_is_cut(name: str) -> None:
    stream, events = STREAMS[name]
    assert by_the_book(stream) == events
    assert decode([stream]) == events
    assert decode(bytes([byte]) for byte in stream) == events
    for place in range(len(stream) + 1):
        assert decode([stream[:place], b"", stream[place:]]) == events


STREAM_PIECES = st.one_of(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"data: a\n\n", b"data: bc\r\n\r\n"]),
    st.sampled_from([b"data: d", b"data:", b"data", b"event: e", b": c", b"id: 1", b" ", BOM]),
    st.binary(max_size=3),
)


@given(
    st.lists(STREAM_PIECES, max_size=20).map(b"".join),
    st.sets(st.integers(0, 60)),
    st.sampled_from([0, 1000]),
)
def test_any_cut_of_any_stream_is_decoded_by_the_book(
    stream: bytes, places: set[int], large: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "_LARGE_LINE", large)
        assert decode(cut(stream, places)) == decode([stream]) == by_the_book(stream)


def test_an_event_is_given_out_as_soon_as_it_is_complete() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [Event(b"a")]
    assert decoder.feed(b"data: b\r\n\r") == [Event(b"b")]
    assert decoder.feed(b"\ndata: c\n\nda") == [Event(b"c")]
    assert decoder.feed(b"ta: d\n\n") == [Event(b"d")]
    assert decoder.close() == []


def test_an_endless_line_is_too_large() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    assert decoder.feed(b"data: " + b"x" * 94) == []
    with pytest.raises(EventTooLarge, match="more than 100 bytes"):
        decoder.feed(b"x")


def test_endless_lines_of_one_event_are_too_large() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    with pytest.raises(EventTooLarge):
        for _ in range(101):
            decoder.feed(b"data\n")


def test_an_endless_name_is_too_large() -> None:
    with pytest.raises(EventTooLarge):
        SSEDecoder(max_event_bytes=100).feed(b"event: " + b"x" * 101 + b"\n")


def test_what_is_not_kept_has_no_limit() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    for _ in range(1000):
        assert decoder.feed(b": still thinking\n") == []
    for _ in range(1000):
        assert decoder.feed(b"data: x\n\n") == [Event(b"x")]


def test_events_before_one_that_is_too_large_are_not_lost() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    assert decoder.feed(b"data: a\n\ndata: " + b"x" * 200) == [Event(b"a")]
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x")


def test_megabytes_are_no_matter_by_default() -> None:
    data = b"x" * 20_000_000
    stream = b"data: " + data + b"\n\n"
    assert decode(cut(stream, range(1024, len(stream), 1024))) == [Event(data)]


def test_the_encoder_writes_lines_that_end_with_a_blank_one() -> None:
    assert encode(Event(b"{}")) == b"data: {}\n\n"
    assert encode(Event(DONE)) == b"data: [DONE]\n\n"
    assert encode(Event(b"")) == b"data: \n\n"
    assert encode(Event(b"a\nb\n")) == b"data: a\ndata: b\ndata: \n\n"
    assert encode(Event(b"a", b"error")) == b"event: error\ndata: a\n\n"


def test_no_line_end_gets_out_of_its_event() -> None:
    assert encode(Event(b"a\rb\r\nc")) == b"data: a\ndata: b\ndata: c\n\n"
    assert encode(Event(b"a", b"x\r\ndata: y")) == b"event: x  data: y\ndata: a\n\n"


def test_a_comment_is_one_line_with_a_space_after_its_colon() -> None:
    assert comment("still thinking…") == ": still thinking…\n\n".encode()
    assert comment("") == b": \n\n"
    assert comment("a\r\nb\nc\rdata: d\ud800") == b": a  b c data: d?\n\n"


@given(st.text())
def test_no_comment_is_an_event(text: str) -> None:
    assert decode([comment(text), b"data: a\n\n"]) == [Event(b"a")]


ONE_LINE = st.binary().map(lambda value: value.translate(None, b"\r\n"))
DATA = st.lists(ONE_LINE, min_size=1, max_size=4).map(b"\n".join)
EVENTS = st.lists(st.builds(Event, DATA, ONE_LINE), max_size=4)


@given(EVENTS, st.sets(st.integers(0, 100)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_what_was_encoded_is_decoded(
    events: list[Event], places: set[int], line_end: bytes
) -> None:
    stream = b"".join(map(encode, events)).replace(b"\n", line_end)
    assert decode(cut(stream, places)) == events
