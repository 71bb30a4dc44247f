"""Parsing what a client sent: anything at all may come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gemproxy.chat import jsontext
from gemproxy.chat.errors import ChatError
from gemproxy.chat.json_limits import JsonLimits
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.request import ChatRequest, parse_chat_request
from gemproxy.web.bodies import read_chat
from tests.strategies import json_values
from tests.tables import each

FIELDS = ("model", "stream", "stream_options", "include_usage")


def parse(**body: Any) -> ChatRequest:
    return parse_chat_request(json.dumps({"model": "m"} | body).encode())


def refusal(raw: bytes) -> ChatError:
    with pytest.raises(ChatError) as caught:
        read_chat(raw, JsonLimits())
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    return caught.value


def nested(levels: int, opening: str = "[", core: str = "", closing: str = "]") -> bytes:
    return (opening * levels + core + closing * levels).encode()


def test_the_least_that_a_request_needs_is_a_model():
    request = parse_chat_request(b'{"model": "m"}')
    assert request.model == "m"
    assert request.body == {"model": "m"}
    assert not request.stream
    assert not request.include_usage


def test_unknown_fields_are_kept():
    assert parse(messages=[1], foo={"bar": None}).body == {
        "model": "m",
        "messages": [1],
        "foo": {"bar": None},
    }


@pytest.mark.parametrize(
    ("fields", "stream", "include_usage"),
    [
        ({"stream": True}, True, False),
        ({"stream": False}, False, False),
        ({"stream": None, "stream_options": None}, False, False),
        ({"stream": True, "stream_options": {}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": None}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True, "more": 1}}, True, True),
    ],
)
def test_streaming_is_requested(fields: dict[str, Any], stream: bool, include_usage: bool):
    request = parse(**fields)
    assert request.stream is stream
    assert request.include_usage is include_usage


@each(
    ("fields", "param"),
    [
        *(({"model": value}, "model") for value in (None, "", 1, True, [], {}, ["m"])),
        *(({"stream": value}, "stream") for value in ("true", 0, 1, 1.5, [], {})),
        *(({"stream_options": value}, "stream_options") for value in (True, 1, "x", [], [{}])),
        *(
            ({"stream_options": {"include_usage": value}}, "stream_options.include_usage")
            for value in ("true", 0, 1, [], {})
        ),
    ],
)
def test_a_wrong_type_is_refused_by_name(fields: dict[str, Any], param: str):
    error = refusal(json.dumps({"model": "m"} | fields).encode())
    assert error.param == param
    assert f"'{param}'" in error.message


def test_a_missing_model_is_refused_by_name():
    assert refusal(b"{}").param == "model"


@pytest.mark.parametrize("raw", [b"[]", b'["model"]', b"null", b"true", b"1", b'"model"'])
def test_json_that_is_no_object_is_refused(raw: bytes):
    assert refusal(raw).message == "The request body must be a JSON object."


@each(
    "raw",
    [
        *(b"", b" ", b"{", b'{"model"', b"{'model': 'm'}", b'{"model": "m",}', b'{"model": "m"} x'),
        *(b"NaN", b'{"model": NaN}', b'{"model": "m", "top_p": Infinity}', b'{"a": -Infinity}'),
        *(b'{"model": "m", "top_p": 1e999}', b'{"model": "m", "top_p": -1e999}'),
        b'{"model": "m", "seed": ' + b"9" * 400 + b"}",
        b'{"model": "m", "seed": ' + b"9" * 100_000 + b"}",
        *(b'{"model": "\xff"}', b'{"model": "\xc0\xaf"}', b'{"model": "caf\xe9"}', b"\x80"),
        *(b'{"model": "a\0b"}', b'{"model": "a\nb"}', b"\0", b'{"model": "m"}\0'),
        *(b'{"model": "\\x41"}', b'{"model": "\\u12"}'),
        *(nested(levels) for levels in (201, 1000, 1024, 100_000)),
        *(nested(levels, '{"a":', "1", "}") for levels in (201, 1000, 1024, 100_000)),
        # With a lone surrogate it takes the other parser.
        *(nested(levels, "[", '"\\ud800"') for levels in (201, 900, 100_000)),
        *(b"[" * 100_000, b'{"a":' * 100_000),
    ],
)
def test_what_is_not_json_is_refused(raw: bytes):
    error = refusal(raw)
    beginnings = ("The request body is not valid JSON: ", "The request body has more than 200 ")
    assert error.message.startswith(beginnings)
    assert error.param is None
    assert len(error.message) < 200
    assert "sys." not in error.message


@each(
    ("raw", "text"),
    [
        (rb'"\ud83d\ude00"', "😀"),
        ('"😀"'.encode(), "😀"),
        (rb'"\ud800"', "\ufffd"),
        (rb'"a\udc00b"', "a\ufffdb"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'"\ud83d\ude00\ud800"', "😀\ufffd"),
        (b'"\xed\xa0\x80"', "\ufffd"),
        (b'"a\xed\xb0\x80b"', "a\ufffdb"),
        (b'"\xed\xa0\xbd\xed\xb8\x80"', "😀"),
        (rb'"a\u0000b"', "a\0b"),
        (rb'"a\u0000b\ud800"', "a\0b\ufffd"),
        (b'"\x7f\xc2\x80"', "\x7f\x80"),
    ],
)
def test_odd_characters_are_taken(raw: bytes, text: str):
    request = parse_chat_request(b'{"model": "m", %b: [{"k": %b}]}' % (raw, raw))
    assert request.body == {"model": "m", text: [{"k": text}]}
    assert loads(dumps(request.body)) == request.body


def test_a_byte_order_mark_is_no_part_of_the_request():
    raw = b'{"model": "m"}'
    assert parse_chat_request(b"\xef\xbb\xbf" + raw) == parse_chat_request(raw)


def test_a_request_whose_parts_are_forgotten_can_be_had_again():
    request = parse_chat_request(b'\xef\xbb\xbf{"model": "m"}', ((b"a", b"b"),))
    assert request.body is request.body
    request.forget()
    assert request.headers == ()
    assert request.body is not request.body
    assert (request.model, request.body) == ("m", {"model": "m"})


def test_the_last_of_duplicate_keys_counts():
    assert parse_chat_request(b'{"model": 1, "model": "m"}').model == "m"
    assert parse_chat_request(b'{"a": "\\ud800", "model": 1, "model": "m"}').model == "m"


@pytest.mark.parametrize("number", [2**53, -(2**63), 2**64 - 1])
def test_integers_are_kept_exactly(number: int):
    assert parse(seed=number).body["seed"] == number


@pytest.mark.parametrize("tail", [b"", rb', "x": "\ud800"'])
def test_huge_integers_can_be_passed_on(tail: bytes):
    request = parse_chat_request(b'{"model": "m", "seed": 1%b%b}' % (b"0" * 300, tail))
    assert float(json.loads(dumps(request.body))["seed"]) == 1e300


@given(
    st.recursive(
        st.integers(2**64, 2**70) | st.integers(-5, 5) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=5,
    ),
    st.sampled_from([None, 0, 2]),
)
@example(2**64 + 1, None)
@example([2**64 + 1], 2)
@example([0, 2**64 + 1], 0)
@example({"a": -(2**64) - 1}, 2)
def test_huge_integers_are_exact_in_long_texts_as_well(value: Any, indent: int | None):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsontext, "_PIECE", 0)
        assert loads(json.dumps(value, indent=indent).encode()) == value


@pytest.mark.parametrize("levels", [100, 199])
@pytest.mark.parametrize("core", ["1", r'"\ud800"', "1" + "0" * 30])
def test_nesting_within_reason_is_passed_on(levels: int, core: str):
    request = parse_chat_request(b'{"model": "m", "x": %b}' % nested(levels, core=core))
    assert loads(dumps(request.body)) == request.body


def test_brackets_in_texts_are_not_nesting():
    text = "[{" * 1000
    assert parse(messages=text, more=[[text]]).body["messages"] == text


def test_many_objects_are_not_nesting():
    messages = [{"role": "user", "content": [{"type": "text"}]}] * 1000
    assert parse(messages=messages).body["messages"] == messages


def test_the_body_is_not_in_the_repr():
    assert "hush" not in repr(parse(messages="hush"))


def outcome(raw: bytes) -> None:
    try:
        request = parse_chat_request(raw)
    except ChatError as error:
        assert error.status == 400
        assert error.message
        dumps(error.payload())
    else:
        assert request.model
        dumps(request.body)


@given(st.binary())
@example(b'{"model":"\xed\xa0')
def test_any_bytes_give_a_request_or_a_refusal(raw: bytes):
    outcome(raw)


@given(
    st.lists(
        st.sampled_from(
            [*b'{}[]:,"\\-1e9. \0\xed\xa0\x80\xff', b'"model"', b'"m"', b"\\ud800", b"1e999"]
        )
    )
)
def test_near_json_gives_a_request_or_a_refusal(pieces: list[int | bytes]):
    outcome(b"".join(bytes([p]) if isinstance(p, int) else p for p in pieces))


@given(json_values(*FIELDS), st.booleans())
def test_any_json_gives_a_request_or_a_refusal(value: Any, escaped: bool):
    outcome(json.dumps(value, ensure_ascii=escaped).encode())


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, json_values(*FIELDS))))
def test_any_values_of_the_fields_give_a_request_or_a_refusal(body: dict[str, Any]):
    outcome(json.dumps(body).encode())


@given(json_values())
def test_json_comes_out_as_it_went_in(value: Any):
    def within_64_bits(digits: str) -> int | float:
        number = int(digits)
        return number if -(2**63) <= number < 2**64 else float(number)

    assert loads(dumps(value)) == json.loads(dumps(value), parse_int=within_64_bits)


@given(st.text(st.characters(exclude_categories=[])))
def test_texts_with_surrogates_can_be_rendered(text: str):
    assert isinstance(json.loads(dumps({"message": text}))["message"], str)
