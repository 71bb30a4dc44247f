"""The wire format of the Agent Client Protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gemproxy.gemini.cli.acp import (
    ErrorResponse,
    LineDecoder,
    Message,
    Notification,
    ProtocolViolation,
    Request,
    Result,
    decode,
    encode_method_not_found,
    encode_notification,
    encode_request,
    encode_result,
)
from tests.strategies import json_values
from tests.tables import each

# --- Messages.


@pytest.mark.parametrize(
    ("line", "document"),
    [
        (encode_request(7, "m", {"a": 1}), {"id": 7, "method": "m", "params": {"a": 1}}),
        (encode_notification("m", {}), {"method": "m", "params": {}}),
        (encode_result("x", {"a": None}), {"id": "x", "result": {"a": None}}),
        (
            encode_method_not_found(3),
            {"id": 3, "error": {"code": -32601, "message": "Method not found"}},
        ),
    ],
)
def test_a_message_is_one_line_of_json(line: bytes, document: dict[str, Any]):
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"jsonrpc": "2.0"} | document


@given(st.text())
def test_line_ends_in_texts_do_not_end_the_line(text: str):
    line = encode_notification("m", {"text": text, text: "\r\n\u2028"})
    assert line.count(b"\n") == 1
    assert decode(line) == Notification("m", {"text": text, text: "\r\n\u2028"})


@each(
    ("line", "message"),
    [
        (b'{"method":"m","params":{"a":1}}', Notification("m", {"a": 1})),
        (b'{"method":"m"}', Notification("m", {})),
        (b'{"method":"m","params":[1]}', Notification("m", {})),
        (b'{"method":"m","id":1,"params":{}}', Request(1, "m")),
        (b'{"method":"m","id":"x"}', Request("x", "m")),
        (b'{"method":"m","id":null}', Request(None, "m")),
        (b'{"id":1,"result":{"a":1}}', Result(1, {"a": 1})),
        (b'{"id":1,"result":null}', Result(1, {})),
        (b'{"id":1,"result":[1]}', Result(1, {})),
        (b'{"id":1,"result":{},"error":null}', Result(1, {})),
        (b'{"id":1}', Result(1, {})),
        (b'{"id":1,"error":{"code":429,"message":"no"}}', ErrorResponse(1, 429, "no")),
        (b'{"id":null,"error":{"code":-32700,"message":"no"}}', ErrorResponse(None, -32700, "no")),
        (b'{"id":1,"error":{}}', ErrorResponse(1, 0, "unknown error")),
        (b'{"id":1,"error":{"code":"429","message":""}}', ErrorResponse(1, 0, "unknown error")),
        (b'{"id":1,"error":{"code":1.5,"message":[1]}}', ErrorResponse(1, 0, "[1]")),
        (b'{"id":1,"error":"no"}', ErrorResponse(1, 0, "no")),
        (b'{"id":1,"error":false}', ErrorResponse(1, 0, "unknown error")),
        (b' {"id": 1, "result": {"\\ud800": 1}}\r', Result(1, {"\ufffd": 1})),
    ],
)
def test_a_line_is_a_message(line: bytes, message: Message):
    decoded = decode(line)
    assert decoded == message
    assert type(decoded) is type(message)


@each(
    "line",
    [
        *(b"", b" ", b"Loading...", b"{", b'{"id":1}{"id":2}', b'{"id":1,"result":NaN}'),
        *(b'{"method":"caf\xe9"}', b"\xff", b"[]", b'[{"id":1}]', b"1", b'"id"', b"null"),
        *(b"{}", b'{"method":1}', b'{"method":null}', b'{"params":{}}', b'{"result":{}}'),
        *(b'{"id":[1],"result":{}}', b'{"id":{},"error":{}}', b'{"id":true,"result":{}}'),
        *(b'{"id":[],"method":"m"}', b"[" * 100_000, b'{"id":' * 100_000),
    ],
)
def test_a_line_that_is_no_message_is_a_violation(line: bytes):
    with pytest.raises(ProtocolViolation, match=r"^a (line|message) "):
        decode(line)


def outcome(line: bytes) -> None:
    try:
        message = decode(line)
    except ProtocolViolation:
        return
    assert isinstance(message, Notification | Request | Result | ErrorResponse)
    # Ids are looked up, and sent back.
    hash(getattr(message, "id", None))
    encode_method_not_found(getattr(message, "id", None))


@given(st.binary())
@example(b'{"id":"\xed\xa0\x80","result":{}}')
@example(b'{"id":1' + b"0" * 400 + b"}")
def test_any_bytes_are_a_message_or_a_violation(line: bytes):
    outcome(line)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": json_values(),
            "method": json_values() | st.text(),
            "params": json_values(),
            "result": json_values(),
            "error": json_values("code", "message"),
        },
    )
)
def test_any_object_is_a_message_or_a_violation(message: Any):
    outcome(json.dumps(message).encode())


# --- Lines.

STREAM = b'{"a":1}\n\n \r\n{"b":"\xc3\xa9"}\r\n\n\nlast\nrest'
LINES = [b'{"a":1}', b'{"b":"\xc3\xa9"}\r', b"last"]


def fed(pieces: list[bytes], limit: int = 1000) -> list[bytes]:
    decoder = LineDecoder(limit)
    return [line for piece in pieces for line in decoder.feed(piece)]


def test_lines_come_out_as_soon_as_they_are_complete():
    decoder = LineDecoder(100)
    assert decoder.feed(b"on") == []
    assert decoder.feed(b"") == []
    assert decoder.feed(b"e\ntwo\nth") == [b"one", b"two"]
    assert decoder.feed(b"ree") == []
    assert decoder.feed(b"\n") == [b"three"]


@each("first", range(len(STREAM) + 1))
def test_a_stream_may_be_cut_anywhere(first: int):
    for second in range(first, len(STREAM) + 1):
        assert fed([STREAM[:first], STREAM[first:second], STREAM[second:]]) == LINES


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_stream_may_come_in_small_pieces(size: int):
    assert fed([STREAM[i : i + size] for i in range(0, len(STREAM), size)]) == LINES


@given(
    st.lists(st.text(alphabet="ab \r\n\t", max_size=12).map(str.encode), max_size=8),
    st.integers(0, 12),
)
def test_lines_are_those_of_the_whole_stream(pieces: list[bytes], limit: int):
    *complete, rest = b"".join(pieces).split(b"\n")
    if any(len(line) > limit for line in (*complete, rest)):
        with pytest.raises(ProtocolViolation):
            fed(pieces, limit)
    else:
        assert fed(pieces, limit) == [line for line in complete if line.strip()]


def test_a_line_may_be_as_long_as_the_limit():
    assert fed([b"x" * 10 + b"\n" + b"y" * 10, b"\n"], limit=10) == [b"x" * 10, b"y" * 10]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"x" * 11],
        [b"x" * 11 + b"\n"],
        [b"x" * 6, b"x" * 5],
        [b"x" * 10, b"x\n"],
        [b"ok\n" + b"x" * 11],
        [b" " * 11],
    ],
)
def test_a_longer_line_is_a_violation_before_its_end(pieces: list[bytes]):
    with pytest.raises(ProtocolViolation, match=r"^a line of more than 10 bytes$"):
        fed(pieces, limit=10)


def test_a_line_that_was_too_long_is_not_kept():
    decoder = LineDecoder(10)
    for _ in range(3):
        with pytest.raises(ProtocolViolation):
            decoder.feed(b"x" * 11)
