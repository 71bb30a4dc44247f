"""Responses of HTTP/1.1, however they are cut into pieces."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.http.response_parser import Head, ResponseParser

CHUNKED = b"Transfer-Encoding: chunked\r\n"


def parsed(*pieces: bytes, method: bytes = b"POST") -> tuple[ResponseParser, Head | None, bytes]:
    parser = ResponseParser(method)
    body = b""
    for piece in pieces:
        if parser.done or parser.error:
            break
        body += parser.feed(piece)
    return parser, parser.head, body


def at_every_split(data: bytes, method: bytes = b"POST") -> list[tuple[bytes, ...]]:
    """In two pieces, cut anywhere; and byte by byte."""
    cut = [(data[:place], data[place:]) for place in range(1, len(data))]
    return [(data,), *cut, tuple(data[place : place + 1] for place in range(len(data)))]


# What comes, and what it means: headers, announced length, body, and how it ends.
WHOLE: dict[str, tuple[bytes, Any, Any, bytes, bool]] = {
    "length": (
        b"HTTP/1.1 200 Fine by me\r\nContent-Length: 5\r\nX-A: 1\r\nx-a:  2 \r\n\r\nhello",
        ((b"X-A", b"1"), (b"x-a", b"2 ")),
        5,
        b"hello",
        True,
    ),
    "chunks": (
        b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        (),
        None,
        b"hello",
        True,
    ),
    "extensions and trailers": (
        b"HTTP/1.1 200 OK\r\n" + CHUNKED + b'\r\n5;a="b"\r\nhello\r\n0;c\r\nX-T: 1\r\n\r\n',
        (),
        None,
        b"hello",
        True,
    ),
    "a coding that is none": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        (),
        5,
        b"hello",
        False,
    ),
    "nothing": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (), 0, b"", True),
    "no phrase": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab", (), 2, b"ab", True),
    "lines that end in LF": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab", (), 2, b"ab", True),
    "204": (b"HTTP/1.1 204 No\r\nX-A: 1\r\n\r\n", ((b"X-A", b"1"),), 0, b"", True),
    "304": (b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", (), 0, b"", True),
    "close": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab",
        (),
        2,
        b"ab",
        False,
    ),
    "close, among others": (
        b"HTTP/1.1 200 OK\r\nConnection: X-A, Close\r\nContent-Length: 2\r\n\r\nab",
        (),
        2,
        b"ab",
        False,
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", (), 2, b"ab", False),
    "HTTP/1.0 that keeps alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nab",
        (),
        2,
        b"ab",
        True,
    ),
    "1xx before it": (
        b"HTTP/1.1 100 Continue\r\nX-Not: 1\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nab",
        ((b"X-A", b"1"),),
        2,
        b"ab",
        True,
    ),
    "a length besides chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n" + CHUNKED + b"\r\n2\r\nab\r\n0\r\n\r\n",
        (),
        None,
        b"ab",
        False,
    ),
    "bytes that are not ASCII": (
        b"HTTP/1.1 200 \xc3\xbc\r\nX-A: \xff\r\nContent-Length: 0\r\n\r\n",
        ((b"X-A", b"\xff"),),
        0,
        b"",
        True,
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_response_is_understood_wherever_it_is_cut(name: str) -> None:
    data, headers, length, content, keep_alive = WHOLE[name]
    for pieces in at_every_split(data):
        parser, head, body = parsed(*pieces)
        assert parser.error is None
        assert head is not None
        assert (head.headers, head.length, body) == (headers, length, content)
        assert (parser.done, parser.keep_alive, parser.until_closed) == (True, keep_alive, False)
        assert parser.heard


def test_the_status_line_is_as_it_came() -> None:
    for pieces in at_every_split(WHOLE["length"][0]):
        _, head, _ = parsed(*pieces)
        assert head is not None
        assert (head.version, head.code, head.phrase) == ("1.1", 200, b"Fine by me")


@pytest.mark.parametrize(
    "lines",
    [b"", b"Connection: close\r\n", b"Content-Type: a/b\r\n", b"Transfer-Encoding: identity\r\n"],
)
def test_a_body_without_a_length_goes_on(lines: bytes) -> None:
    for pieces in at_every_split(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\nhello"):
        parser, head, body = parsed(*pieces)
        assert head is not None
        assert (head.length, body, parser.done, parser.until_closed) == (
            None,
            b"hello",
            False,
            True,
        )


def test_head_has_no_body_whatever_its_headers_say() -> None:
    for lines in (b"Content-Length: 99\r\n", CHUNKED, b""):
        for pieces in at_every_split(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n"):
            parser, head, body = parsed(*pieces, method=b"HEAD")
            assert head is not None
            assert (head.length, body, parser.done) == (0, b"", True)
            expected = ((b"Content-Length", b"99"),) if b"99" in lines else ()
            assert head.headers == expected


def test_what_comes_with_a_response_to_head_makes_the_connection_useless() -> None:
    parser, _, body = parsed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", method=b"HEAD")
    assert (body, parser.done, parser.keep_alive) == (b"", True, False)


@pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"])
@pytest.mark.parametrize("name", ["length", "chunks", "204"])
def test_what_comes_behind_a_response_makes_the_connection_useless(name: str, more: bytes) -> None:
    data, headers, _, content, _ = WHOLE[name]
    parser, head, body = parsed(data + more)
    assert head is not None
    assert (head.headers, body, parser.error) == (headers, content, None)
    assert (parser.done, parser.keep_alive) == (True, False)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: br\r\n\r\n",
        b"HTTP/1.1 101 Other\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_what_is_no_response_is_an_error(data: bytes) -> None:
    for pieces in at_every_split(data):
        parser, head, _ = parsed(*pieces, b"\r\n\r\n")
        assert parser.error
        assert head is None
        assert not parser.done


@pytest.mark.parametrize("rest", [b"zzz\r\n", b"-5\r\nhello\r\n", b"3\r\nabcd\r\n", b"5hello"])
def test_malformed_chunks_are_an_error_and_those_before_them_are_not_lost(rest: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n2\r\nab\r\n" + rest
    for pieces in at_every_split(data):
        parser, head, body = parsed(*pieces)
        assert parser.error
        assert head is not None
        assert body.startswith(b"ab")


@pytest.mark.parametrize(
    "flood",
    [
        b"X-A: 1\r\n" * 100,
        b"x" * 1000,
        b"\r\n\r\nHTTP/1.1 100 Continue\r\nX: " + b"x" * 1000,
    ],
)
def test_headers_without_end_are_an_error(flood: bytes) -> None:
    parser = ResponseParser(b"POST")
    parser.feed(b"HTTP/1.1 100 Continue\r\nX-A: ")
    for _ in range(1000):
        parser.feed(flood)
        if parser.error:
            break
    assert parser.error == "The headers are too large."


@pytest.mark.parametrize("flood", [b"X-A: 1\r\n" * 100, b"x" * 1000])
def test_trailers_without_end_are_an_error(flood: bytes) -> None:
    parser = ResponseParser(b"POST")
    parser.feed(b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n2\r\nab\r\n0\r\nX-A: ")
    for _ in range(1000):
        parser.feed(flood)
        if parser.error:
            break
    assert parser.error == "The headers are too large."


def test_a_body_may_be_as_large_as_it_likes_whatever_its_pieces() -> None:
    parser = ResponseParser(b"POST")
    parser.feed(b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n")
    for _ in range(100_000):
        # The size comes alone, as it may.
        assert parser.feed(b"2\r\n") == b""
        assert parser.feed(b"ab\r\n") == b"ab"
    assert parser.feed(b"0\r\n\r\n") == b""
    assert parser.done


def test_what_one_read_brought_is_one_piece() -> None:
    parser = ResponseParser(b"POST")
    parser.feed(b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n")
    assert parser.feed(b"2\r\nab\r\n1\r\nc\r\n3\r\nd") == b"abcd"
    assert parser.feed(b"ef\r\n0\r\n\r\n") == b"ef"


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.randoms(use_true_random=False))
def test_any_chunks_cut_anywhere(chunks: list[bytes], luck: random.Random) -> None:
    wire = b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n"
    wire += b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    places = sorted(luck.sample(range(1, len(wire)), min(5, len(wire) - 1)))
    pieces = [wire[a:b] for a, b in zip([0, *places], [*places, len(wire)], strict=True)]
    parser, _, body = parsed(*pieces)
    assert (body, parser.done, parser.error) == (b"".join(chunks), True, None)


def test_nothing_is_left_for_the_collector_of_garbage() -> None:
    gc.collect()
    gc.disable()
    try:
        for data in (WHOLE["chunks"][0], b"garbage\r\n\r\n"):
            parser, _, _ = parsed(data)
            del parser
        assert gc.collect() == 0
    finally:
        gc.enable()
