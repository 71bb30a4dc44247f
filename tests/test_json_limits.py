"""What is refused before it is parsed: counted by a scan, which must agree with a parser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat import json_structure
from gemproxy.chat.errors import ChatError
from gemproxy.chat.json_limits import JsonLimits
from gemproxy.chat.json_structure import is_deeper, openers
from gemproxy.web.bodies import read_chat, read_model
from tests.strategies import json_values

# Texts that look like structure, and escapes in all places.
TEXTS = st.text(alphabet='[]{},:"\\ \n\u00e9\U0001f600a', max_size=8)
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def counted(value: Any) -> tuple[int, int, int]:
    """Containers, values and levels, as a parser finds them."""
    if not isinstance(value, dict | list):
        return 0, 1, 0
    inner = [counted(item) for item in (value.values() if isinstance(value, dict) else value)]
    containers = 1 + sum(one[0] for one in inner)
    return containers, 1 + sum(one[1] for one in inner), 1 + max([0, *(one[2] for one in inner)])


def refusal(text: bytes, **limits: int) -> str | None:
    """The setting that a text is beyond; None if it is beyond none."""
    try:
        JsonLimits(**limits).check(text)
    except ChatError as error:
        assert (error.status, error.type) == (400, "invalid_request_error")
        return error.message.partition("(")[2].rstrip(").")
    return None


@given(VALUES | json_values("a", "b"), st.booleans(), st.integers(1, 9))
def test_the_scan_finds_what_a_parser_finds(value: Any, ascii_only: bool, piece: int):
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    containers, values, levels = counted(value)
    with pytest.MonkeyPatch.context() as patch:
        # Each piece ends somewhere else: in a text, or behind a backslash.
        patch.setattr(json_structure, "_PIECE", piece)
        assert not is_deeper(text, levels)
        # A container may count as two values.
        within = {"containers": containers, "values": values + containers, "depth": levels}
        assert refusal(text, **within) is None
        if containers:
            assert is_deeper(text, levels - 1)
            assert refusal(text, containers=containers - 1) == "MAX_CONTAINERS"
            assert refusal(text, depth=levels - 1) == "MAX_DEPTH"
        if values > 1:
            assert refusal(text, values=values - 2) == "MAX_VALUES"


@given(st.lists(st.sampled_from([b"[", b"{", b"x"])).map(b"".join))
def test_what_opens_is_counted_in_a_long_text_as_well(text: bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_structure, "_PIECE", 0)
        patch.setattr(json_structure, "_FEW", 2)
        assert openers(text) == len(text.replace(b"x", b""))


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        (b"[" * 300_000, "MAX_CONTAINERS"),
        (b"[" * 201, "MAX_DEPTH"),
        (b'{"a":' * 201, "MAX_DEPTH"),
        (b"[" + b"[]," * 100_000 + b"0]", "MAX_CONTAINERS"),
        (b"[" + b"{}," * 100_000, "MAX_CONTAINERS"),
        (b"[" + b"1," * 1_000_000 + b"1]", "MAX_VALUES"),
        (b"{" + b'"":0,' * 1_000_000 + b"}", "MAX_VALUES"),
        (b'["\\\\",' + b"[]," * 100_000, "MAX_CONTAINERS"),
        (b'"' + b"[{,:" * 400_000 + b'"', None),
        (b'"' + b'\\"[' * 400_000 + b'"', None),
        (b'"' + b"\\\\" * 400_000 + b'"', None),
        (b"[" * 200 + b"]" * 200, None),
        (b"", None),
    ],
)
def test_there_is_a_limit_for_each_way_to_be_expensive(text: bytes, setting: str | None):
    assert refusal(text) == setting


def test_the_messages_of_a_conversation_are_limited():
    def body(number: int) -> bytes:
        message = {"role": "user", "content": "a"}
        return json.dumps({"model": "m", "messages": [message] * number}).encode()

    limits = JsonLimits(messages=3)
    assert len(read_chat(body(3), limits).body["messages"]) == 3
    with pytest.raises(ChatError, match=r"more than 3 messages.*MAX_MESSAGES") as caught:
        read_chat(body(4), limits)
    assert caught.value.param == "messages"


def test_what_is_passed_on_may_be_deep_but_not_of_any_number():
    deep = b'{"model": "m", "x": %b}' % (b"[" * 300 + b"]" * 300)
    assert read_model(deep, JsonLimits()) == "m"
    with pytest.raises(ChatError, match="MAX_CONTAINERS"):
        read_model(deep, JsonLimits(containers=300))
    # A form, or whatever it may be.
    assert read_model(b"a=b&c=" + b"[" * 200_000, JsonLimits()) is None
