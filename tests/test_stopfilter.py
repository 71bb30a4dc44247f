"""Chunks of every shape, up to the tag that ends their answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.sse import Event
from gemproxy.chat.stopfilter import StopTagFilter

Object = dict[str, Any]

TAG = "</stop>"
HEAD = {"id": "1", "object": "chat.completion.chunk"}


def chunk(*choices: Object) -> Object:
    return HEAD | {"choices": list(choices)}


def delta(content: Any, finish_reason: str | None = None, index: int = 0) -> Object:
    return {"index": index, "delta": {"content": content}, "finish_reason": finish_reason}


def filtered(
    chunks: Iterable[Object], choices: int = 1, tags: Iterable[str] = (TAG,)
) -> tuple[list[Any], bool]:
    """The chunks that are passed on, and whether the answer was ended."""
    stop_filter = StopTagFilter([*tags], choices)
    events: list[Event] = []
    for each in chunks:
        events += stop_filter.feed(Event(dumps(each, keep_halves=True)))
        if stop_filter.ended:
            break
    events += stop_filter.flush()
    return [event.json() for event in events], stop_filter.ended


def collected(chunks: Iterable[Object]) -> list[Object]:
    collector = CompletionCollector()
    for each in chunks:
        collector.add(dumps(each, keep_halves=True))
    choices = collector.completion()["choices"]
    assert isinstance(choices, list)
    return choices


def contents(chunks: Iterable[Object]) -> list[Any]:
    return [choice["message"]["content"] for choice in collected(chunks)]


def text(text: str) -> Object:
    return {"type": "text", "text": text}


def test_an_empty_finish_reason_in_every_chunk_finishes_nothing() -> None:
    chunks = [chunk(delta(piece, "")) for piece in ("a <", "/sto", "p> never", " never")]
    passed, ended = filtered(chunks)
    assert ended
    assert contents(passed) == ["a "]
    assert passed[-1]["choices"][0]["finish_reason"] == "stop"
    passed, ended = filtered([*chunks[:2], chunk(delta("", "length"))])
    assert not ended
    assert contents(passed) == ["a </sto"]
    assert [each["choices"][0]["finish_reason"] for each in passed] == ["", "length"]


def test_an_empty_finish_reason_ends_no_other_choice() -> None:
    chunks = [
        chunk(delta("a <", ""), delta("b <", "", 1)),
        chunk(delta("/stop>", "", 1)),
        chunk(delta("/", ""), delta("never", "", 1)),
        chunk(delta("stop> never", "")),
        chunk(delta("never", "")),
    ]
    passed, ended = filtered(chunks, choices=2)
    assert ended
    assert contents(passed) == ["a ", "b "]
    assert [each["finish_reason"] for each in collected(passed)] == ["stop", "stop"]


@pytest.mark.parametrize("last", [{"delta": None}, {}, {"delta": {}}])
def test_what_is_held_back_comes_out_in_a_last_chunk_without_a_delta(last: Object) -> None:
    final = last | {"index": 0, "finish_reason": "stop"}
    passed, ended = filtered([chunk(delta("a <")), chunk(final)])
    assert not ended
    assert passed[-1]["choices"][0]["delta"] == {"content": "<"}
    assert "message" not in passed[-1]["choices"][0]
    assert contents(passed) == ["a <"]
    # Nothing is held back: not touched.
    assert filtered([chunk(delta("a")), chunk(final)])[0] == [chunk(delta("a")), chunk(final)]


def test_an_index_may_be_a_string() -> None:
    first = chunk(delta("a <") | {"index": "0"})
    passed, ended = filtered([first, chunk(delta("/stop> never"))])
    assert ended
    assert contents(passed) == ["a "]


class TestContentInParts:
    def test_a_tag_is_found_across_parts_and_chunks(self) -> None:
        chunks = [
            chunk(delta([text("a "), text("b <"), text("/")])),
            chunk(delta([text("st")])),
            chunk(delta("o")),
            chunk(delta([text("p> never"), {"type": "image_url", "image_url": {}}])),
        ]
        passed, ended = filtered(chunks)
        assert ended
        assert contents(passed) == [[text("a "), text("b ")]]
        assert "never" not in str(passed)
        assert "image_url" not in str(passed)

    def test_what_only_looks_like_a_tag_is_released_as_a_part(self) -> None:
        for last in (chunk(delta(None, "stop")), chunk({"index": 0, "finish_reason": "stop"})):
            passed, ended = filtered([chunk(delta([text("a <")])), last])
            assert not ended
            assert contents(passed) == [[text("a <")]]
        assert contents(filtered([chunk(delta([text("a <")]))])[0]) == [[text("a <")]]

    def test_text_stays_before_what_follows_it(self) -> None:
        picture = {"type": "image_url", "image_url": {"url": "data:"}}
        parts = [text("a <"), picture, text("/stop> <")]
        passed, ended = filtered([chunk(delta(parts)), chunk(delta([picture], "stop"))])
        assert not ended
        assert contents(passed) == [[text("a <"), picture, text("/stop> <"), picture]]

    def test_thoughts_are_not_searched(self) -> None:
        thought = {"type": "thinking", "thinking": [text(f"a {TAG}")]}
        given = [chunk(delta([thought])), chunk(delta([text("b")], "stop"))]
        assert filtered(given) == (given, False)

    def test_strings_in_a_list_are_searched(self) -> None:
        passed, ended = filtered([chunk(delta(["a <", "/stop>", "never"]))])
        assert ended
        assert contents(passed) == [["a "]]


class TestMessages:
    def test_a_tag_in_a_whole_message_is_found_beside_an_empty_delta(self) -> None:
        for more in ({}, {"delta": None}, {"delta": {}}, {"delta": {"content": ""}}):
            whole = {"index": 0, "message": {"content": f"a {TAG} never"}, "finish_reason": "stop"}
            passed, ended = filtered([chunk(whole | more)])
            assert ended
            assert contents(passed) == ["a "]
            assert "never" not in str(passed)

    def test_a_message_after_deltas_begins_anew(self) -> None:
        whole = {"index": 0, "message": {"content": "a </st"}, "finish_reason": "stop"}
        passed, ended = filtered([chunk(delta("a <")), chunk(delta("/st")), chunk(whole)])
        assert not ended
        assert contents(passed) == ["a </st"]
        deltas = [each["choices"][0].get("delta") or {} for each in passed]
        assert "".join(each.get("content", "") for each in deltas) == "a </st"


class TestCompletions:
    def test_a_tag_is_found_in_their_text(self) -> None:
        pieces = ("a <", "/st", "op> never", "never")
        chunks = [
            chunk({"index": 0, "text": piece, "finish_reason": None, "logprobs": None})
            for piece in pieces
        ]
        passed, ended = filtered(chunks)
        assert ended
        assert [each["choices"][0]["text"] for each in passed] == ["a ", ""]
        assert passed[-1]["choices"][0]["finish_reason"] == "stop"
        assert not any("delta" in each["choices"][0] for each in passed)

    def test_what_only_looks_like_a_tag_is_released(self) -> None:
        chunks = [chunk({"index": 0, "text": piece}) for piece in ("a <", "/st")]
        passed, ended = filtered(chunks)
        assert not ended
        assert "".join(each["choices"][0]["text"] for each in passed) == "a </st"

    def test_several_prompts_have_tags_of_their_own(self) -> None:
        choices = [{"index": number, "text": f"{number} <"} for number in range(2)]
        rest = [{"index": 0, "text": "br>", "finish_reason": "stop"}, {"index": 1, "text": TAG[1:]}]
        passed, ended = filtered([chunk(*choices), chunk(*rest)], choices=2)
        assert ended
        texts = ["", ""]
        for each in passed:
            for choice in each["choices"]:
                texts[choice["index"]] += choice["text"]
        assert texts == ["0 <br>", "1 "]

    def test_a_whole_document_ends_at_its_tag(self) -> None:
        document = {"object": "text_completion", "choices": [], "usage": {"total_tokens": 3}}
        for number, words in enumerate((f"a {TAG} never", "b <")):
            choice = {"index": number, "text": words, "finish_reason": "length"}
            document["choices"].append(choice)
        [passed], ended = filtered([document], choices=2)
        assert ended
        assert [each["text"] for each in passed["choices"]] == ["a ", "b <"]
        assert [each["finish_reason"] for each in passed["choices"]] == ["stop", "length"]
        assert passed["usage"] == {"total_tokens": 3}

    def test_log_probabilities_are_those_of_what_is_passed_on(self) -> None:
        def told(*tokens: str) -> Object:
            columns: Object = {
                "tokens": list(tokens),
                "token_logprobs": [-float(len(token)) for token in tokens],
                "top_logprobs": None,
                "text_offset": list(range(len(tokens))),
            }
            return {"index": 0, "text": "".join(tokens), "logprobs": columns}

        passed, ended = filtered(
            [chunk(told("a ", "<")), chunk(told("b", "> <")), chunk(told("!"))]
        )
        assert not ended
        found = [each["choices"][0]["logprobs"] for each in passed]
        assert [token for each in found for token in each["tokens"]] == ["a ", "<", "b", "> <", "!"]
        assert [each["token_logprobs"] for each in found] == [[-2.0], [-1.0, -1.0], [-3.0, -1.0]]
        passed, ended = filtered([chunk(told("a ", "<")), chunk(told("/stop", ">"))])
        assert ended
        assert [each["choices"][0]["logprobs"] for each in passed] == [
            told("a ")["logprobs"] | {"text_offset": [0]},
            None,
        ]


def test_a_tag_is_found_though_its_characters_come_in_halves() -> None:
    halves = ["a \ud83d", "\uded1", "b\ud83d", "\ude00 \ud83d", "\uded1x never"]
    passed, ended = filtered([chunk(delta(half)) for half in halves], tags=["🛑x"])
    assert ended
    assert contents(passed) == ["a 🛑b😀 "]


def test_long_integers_of_a_chunk_that_is_changed_are_exact() -> None:
    passed, _ = filtered([chunk(delta("a <")) | {"created": 2**90 + 1}])
    assert [each["choices"][0]["delta"]["content"] for each in passed] == ["a ", "<"]
    stop_filter = StopTagFilter([TAG], 1)
    [event] = stop_filter.feed(Event(dumps(chunk(delta("a <")) | {"created": 2**90 + 1})))
    assert str(2**90 + 1).encode() in event.data


PIECES = st.lists(
    st.tuples(st.sampled_from(["str", "part", "parts"]), st.text("ab<", max_size=4)), max_size=6
)


@given(PIECES, st.lists(st.text("ab<", min_size=1, max_size=4), min_size=1, max_size=2))
def test_every_shape_of_content_ends_at_the_same_place(
    pieces: list[tuple[str, str]], tags: list[str]
) -> None:
    shapes: dict[str, Any] = {
        "str": lambda piece: piece,
        "part": lambda piece: [text(piece)],
        "parts": lambda piece: [text(piece[:1]), text(piece[1:])],
    }
    chunks = [chunk(delta(shapes[shape](piece), "")) for shape, piece in pieces]
    plain = [chunk(delta(piece)) for _, piece in pieces]
    passed, ended = filtered([*chunks, chunk(delta(None, "length"))], tags=tags)
    expected, expected_end = filtered([*plain, chunk(delta(None, "length"))], tags=tags)
    assert ended == expected_end
    collector, other = CompletionCollector(), CompletionCollector()
    for each in passed:
        collector.add(dumps(each, keep_halves=True))
    for each in expected:
        other.add(dumps(each, keep_halves=True))
    assert collector.text == other.text
    whole = "".join(piece for _, piece in pieces)
    starts = [whole.find(tag) for tag in tags if tag in whole]
    assert collector.text == (whole[: min(starts)] if starts else whole)


def test_a_named_tag_is_named_by_the_choice_that_it_ends():
    for pieces in (["a", "b!", "c"], ["ab!c"], ["ab!"]):
        stop_filter = StopTagFilter(["?"], 1)
        stop_filter.add_tags(["b!"], named=True)
        passed = [e for text in pieces for e in stop_filter.feed(Event.of(chunk(delta(text))))]
        passed += stop_filter.flush()
        choices = [choice for event in passed for choice in event.json()["choices"]]
        assert [choice.get("stop_reason") for choice in choices if choice["finish_reason"]] == [
            "b!"
        ]
    stop_filter = StopTagFilter(["?"], 1)
    stop_filter.add_tags(["b!"], named=True)
    (event,) = stop_filter.feed(Event.of(chunk(delta("a?"))))
    assert "stop_reason" not in event.json()["choices"][0]
