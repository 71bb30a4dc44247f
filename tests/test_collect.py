"""The completion that a stream of chunks adds up to."""

from __future__ import annotations

import base64
import copy
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta

from gemproxy.chat.chunks import ChunkFactory, Usage, text_alone
from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.deltas import Pieces
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.split import chunks_of
from tests.strategies import json_values

Object = dict[str, Any]

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def collect(*chunks: Object) -> CompletionCollector:
    collector = CompletionCollector()
    for chunk in chunks:
        collector.add(dumps(chunk))
    return collector


def choice(
    delta: Object | None, index: int = 0, finish_reason: str | None = None, **more: Any
) -> Object:
    choices = [{"index": index, "delta": delta, "finish_reason": finish_reason, **more}]
    return HEAD | {"choices": choices}


def message(*deltas: Object) -> Object:
    """The message that some deltas of the only choice add up to."""
    [only] = collect(*map(choice, deltas)).completion()["choices"]
    found = only["message"]
    assert isinstance(found, dict)
    return found


def tool_calls(*deltas: Object) -> list[Object]:
    """The calls that deltas, one to a chunk, add up to."""
    found = message(*({"tool_calls": [delta]} for delta in deltas))["tool_calls"]
    assert isinstance(found, list)
    return found


def test_our_own_chunks_add_up_to_a_completion() -> None:
    chunks = ChunkFactory("chatcmpl-1", 1700000000, "gemini")
    usage = Usage(3, 5, reasoning=2)
    collector = CompletionCollector()
    for chunk in (
        chunks.delta({"role": "assistant", "content": ""}),
        chunks.delta({"reasoning_content": "Well, "}),
        chunks.delta({"reasoning_content": "hm."}),
        chunks.delta({"content": "Hello"}),
        chunks.delta({"content": ", world."}),
        chunks.delta({}, "stop"),
        chunks.usage(usage),
    ):
        collector.add(chunk.data)
    assert collector.completion() == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gemini",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello, world.",
                    "reasoning_content": "Well, hm.",
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": usage.as_json(),
    }
    assert list(collector.completion()) == ["id", "object", "created", "model", "choices", "usage"]
    assert collector.usage == usage.as_json()
    assert collector.text == "Hello, world."
    assert collector.finished


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 2), st.text())
def test_a_chunk_with_more_text_is_as_any_other(text: str, index: int, model: str) -> None:
    chunks = ChunkFactory("chatcmpl-1", 1, model)
    for _ in range(2):
        short, long = chunks.text(text, index), chunks.delta({"content": text}, None, index)
        assert (short, short.json()) == (long, long.json())
        assert short.text == text_alone(long.json())


def test_nothing_adds_up_to_no_choices() -> None:
    collector = CompletionCollector()
    assert collector.completion() == {"object": "chat.completion", "choices": []}
    assert not collector.finished
    assert collector.usage is None
    assert collector.text == ""


@pytest.mark.parametrize("data", [b"", b"[DONE]", b"[]", b'"a"', b"null", b"1", b'{"a":', b"\xff"])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        CompletionCollector().add(data)


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": None},
        {"choices": "a"},
        {"choices": [None, "a", 1]},
        {"usage": None},
        {},
    ],
)
def test_a_chunk_without_choices_is_no_matter(chunk: Object) -> None:
    assert collect(HEAD | chunk).completion()["choices"] == []


@pytest.mark.parametrize(
    "delta",
    [
        None,
        [],
        {"tool_calls": None},
        {"tool_calls": {}},
        {"tool_calls": [None]},
        {"function_call": None},
        {"role": None},
    ],
)
def test_a_delta_that_says_nothing_is_no_matter(delta: Any) -> None:
    assert message(delta) == {"role": "assistant", "content": None}


class TestTopLevel:
    def test_unknown_fields_survive_and_the_last_that_is_not_null_wins(self) -> None:
        completion = collect(
            {"system_fingerprint": None, "service_tier": "default", "x": {"a": 1}},
            {"system_fingerprint": "fp_1", "service_tier": None, "x": {"b": 2}, "y": None},
        ).completion()
        assert completion["system_fingerprint"] == "fp_1"
        assert completion["service_tier"] == "default"
        assert completion["x"] == {"b": 2}
        assert completion["y"] is None

    def test_the_first_id_time_and_model_win(self) -> None:
        completion = collect(HEAD, {"id": "other", "created": 2, "model": "n"}).completion()
        assert (completion["id"], completion["created"], completion["model"]) == (
            "chatcmpl-1",
            1,
            "m",
        )

    def test_an_empty_id_time_or_model_gives_way(self) -> None:
        opening = {"id": "", "created": 0, "model": None, "prompt_filter_results": [{}]}
        completion = collect(opening, HEAD).completion()
        assert (completion["id"], completion["created"], completion["model"]) == (
            "chatcmpl-1",
            1,
            "m",
        )
        assert completion["prompt_filter_results"] == [{}]

    def test_the_last_usage_that_is_not_null_wins(self) -> None:
        collector = collect({"usage": {"a": 1}}, {"usage": {"b": 2}}, {"usage": None})
        assert collector.usage == collector.completion()["usage"] == {"b": 2}

    def test_without_usage_there_is_no_usage(self) -> None:
        collector = collect({"usage": None})
        assert collector.usage is None
        assert "usage" not in collector.completion()


class TestMessage:
    def test_no_content_is_null(self) -> None:
        assert message({"role": "assistant", "content": None})["content"] is None
        assert message({})["content"] is None

    def test_empty_content_is_empty(self) -> None:
        assert message({"content": ""}, {"content": None})["content"] == ""

    def test_the_role_is_not_repeated(self) -> None:
        assert message({"role": "assistant"}, {"role": "assistant"}, {"role": ""}) == {
            "role": "assistant",
            "content": None,
        }

    def test_another_role_is_kept(self) -> None:
        assert message({"role": "model"}, {"content": "a"})["role"] == "model"

    @pytest.mark.parametrize(
        "field", ["content", "reasoning_content", "reasoning", "refusal", "unknown"]
    )
    def test_strings_are_concatenated(self, field: str) -> None:
        assert message({field: "a"}, {field: None}, {field: ""}, {field: "b"})[field] == "ab"

    def test_a_null_that_stays_null_is_kept(self) -> None:
        assert message({"content": "a", "refusal": None}) == {
            "role": "assistant",
            "content": "a",
            "refusal": None,
        }

    def test_lists_are_extended(self) -> None:
        assert message({"images": [1]}, {"images": None}, {"images": [2, 3]})["images"] == [1, 2, 3]

    def test_objects_are_merged(self) -> None:
        deltas = [{"a": "x", "b": 1, "c": {"d": "y"}}, {"a": "z", "b": 2, "c": {"d": "!", "e": 0}}]
        assert message(*({"x": delta} for delta in deltas))["x"] == {
            "a": "xz",
            "b": 2,
            "c": {"d": "y!", "e": 0},
        }

    @pytest.mark.parametrize("label", ["name", "type", "id"])
    def test_a_label_that_is_repeated_is_there_once(self, label: str) -> None:
        assert message({label: "a"}, {label: ""}, {label: "a"}, {label: None})[label] == "a"
        inside = message({"x": {label: "a"}}, {"x": {label: "a", "b": 1}})["x"]
        assert inside == {label: "a", "b": 1}

    def test_entries_with_an_index_go_on(self) -> None:
        deltas: list[list[Object]] = [
            [{"index": 0, "a": "x"}, {"index": 1, "a": "1"}, {"index": 0, "a": "y"}],
            [{"index": "1", "a": "2"}],
        ]
        assert message(*({"x": delta} for delta in deltas))["x"] == [
            {"index": 0, "a": "xy"},
            {"index": 1, "a": "12"},
        ]

    @pytest.mark.parametrize("field", ["images", "annotations"])
    def test_pictures_and_sources_are_kept_apart(self, field: str) -> None:
        entries = [{"type": "t", "index": 0, "u": {"url": "a"}}] * 2
        assert message(*({field: [entry]} for entry in entries))[field] == entries

    @pytest.mark.parametrize("empty", [{}, "", None, []])
    def test_nothing_empty_comes_in_place_of_what_is_true(self, empty: Any) -> None:
        assert message({"x": {"a": 1}}, {"x": empty})["x"] == {"a": 1}
        assert message({"x": "a"}, {"x": empty})["x"] == "a"

    def test_sound_comes_in_pieces_of_base64(self) -> None:
        whole = b"some sound \x00\xff, and more"
        pieces = [base64.b64encode(piece).decode() for piece in (whole[:4], whole[4:8], whole[8:])]
        assert message(
            {"audio": {"id": "a", "transcript": "so"}},
            *({"audio": {"id": "a", "data": piece}} for piece in pieces),
            {"audio": {"transcript": "me", "expires_at": 7}},
            {"audio": {"expires_at": 7}},
        )["audio"] == {
            "id": "a",
            "transcript": "some",
            "data": base64.b64encode(whole).decode(),
            "expires_at": 7,
        }

    @given(st.binary(max_size=30), st.data())
    def test_base64_may_be_cut_anywhere(self, sound: bytes, data: st.DataObject) -> None:
        whole = base64.b64encode(sound).decode()
        pieces = data.draw(pieces_of(whole))
        assert message(*({"audio": {"data": piece}} for piece in pieces))["audio"]["data"] == whole

    def test_half_a_character_and_its_other_half_are_one(self) -> None:
        raw = dumps(choice({"content": "ODD", "x": {"y": "ODD"}}))
        collector = CompletionCollector()
        for half in (rb"a\ud83d", rb"\ude00b\ud83d", rb"\ude00", rb"\ud83d!"):
            collector.add(raw.replace(b"ODD", half))
        said = collector.completion()["choices"][0]["message"]
        assert said["content"] == said["x"]["y"] == collector.text == "a😀b😀\ufffd!"

    def test_integers_beyond_64_bits_are_exact(self) -> None:
        big = -(2**90) + 1
        assert message({"x": big, "y": [big]}) == {
            "role": "assistant",
            "content": None,
            "x": big,
            "y": [big],
        }

    @pytest.mark.parametrize("odd", [b"NaN", b"-Infinity", b"1e999"])
    def test_numbers_that_are_none_are_null(self, odd: bytes) -> None:
        collector = CompletionCollector()
        collector.add(dumps(choice({"x": ["ODD", 1]})).replace(b'"ODD"', odd))
        assert collector.completion()["choices"][0]["message"]["x"] == [None, 1]

    def test_of_other_scalars_the_last_wins(self) -> None:
        assert message({"x": 1, "y": True}, {"x": 2, "y": False}, {"x": None}) == {
            "role": "assistant",
            "content": None,
            "x": 2,
            "y": False,
        }

    def test_another_kind_of_value_wins_over_an_earlier_one(self) -> None:
        assert message({"x": "a"}, {"x": ["b"]})["x"] == ["b"]
        assert message({"x": ["a"]}, {"x": "b"}, {"x": "c"})["x"] == "bc"
        assert message({"x": {"a": 1}}, {"x": 2})["x"] == 2

    def test_a_whole_message_stands_for_deltas(self) -> None:
        whole = {"role": "assistant", "content": "a", "tool_calls": [{"id": "c", "type": "x"}]}
        completion = collect({"choices": [{"message": whole}]}).completion()
        assert completion["choices"] == [{"index": 0, "message": whole, "finish_reason": None}]

    def test_a_whole_message_in_the_end_is_in_place_of_the_deltas(self) -> None:
        call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
        whole = {"role": "assistant", "content": "Hello", "tool_calls": [call], "reasoning": ""}
        for delta in (None, {}, {"role": "assistant", "content": ""}):
            last = {"index": 0, "message": whole, "delta": delta, "finish_reason": "stop"}
            [only] = collect(
                choice({"content": "Hel", "reasoning": "Hm"}),
                choice({"content": "lo!", "tool_calls": [call]}),
                {"choices": [last]},
            ).completion()["choices"]
            assert only["message"]["content"] == "Hello"
            assert only["message"]["reasoning"] == "Hm"
            assert [each["id"] for each in only["message"]["tool_calls"]] == ["c"]
            assert only["message"]["tool_calls"][0]["function"]["arguments"] == "{}"

    def test_a_whole_message_beside_a_delta_is_not_added_to_it(self) -> None:
        [only] = collect(choice({"content": "b"}, message={"content": "ab"})).completion()[
            "choices"
        ]
        assert only["message"]["content"] == "b"


def text(text: str, **more: Any) -> Object:
    return {"type": "text", "text": text} | more


def thinking(text: str, **more: Any) -> Object:
    return {"type": "thinking", "thinking": text} | more


def test_a_signature_comes_whole_and_the_last_one_counts() -> None:
    signed = [{"extra_content": {"google": {"thought_signature": each}}} for each in "st"]
    assert message(signed[0] | {"reasoning_content": "Hm."}, {"content": "a"}, signed[1]) == {
        "role": "assistant", "content": "a", "reasoning_content": "Hm.", **signed[1],
    }  # fmt: skip


class TestContentInParts:
    def test_a_run_of_one_type_is_one_part(self) -> None:
        nested = [[text("Hm, ")], [text("well")]]
        assert message(
            {"content": ""},
            *({"content": [{"type": "thinking", "thinking": each}]} for each in nested),
            {"content": [text("Yes")]},
            {"content": [text(", it is")]},
        )["content"] == [
            {"type": "thinking", "thinking": [text("Hm, well")]},
            text("Yes, it is"),
        ]

    def test_a_string_after_parts_is_a_part(self) -> None:
        collector = collect(
            choice({"content": [{"type": "thinking", "thinking": [text("Hm")]}]}),
            choice({"content": "Y"}),
            choice({"content": "es"}),
            choice({"content": ""}),
        )
        assert collector.completion()["choices"][0]["message"]["content"] == [
            {"type": "thinking", "thinking": [text("Hm")]},
            text("Yes"),
        ]
        assert collector.text == "Yes"

    def test_parts_after_a_string_come_behind_it(self) -> None:
        picture = {"type": "image_url", "image_url": {"url": "data:"}}
        deltas: list[Any] = ["Lo", "ok: ", [picture], [picture], "There", [text("!")]]
        assert message(*({"content": each} for each in deltas))["content"] == [
            text("Look: "),
            picture,
            picture,
            text("There!"),
        ]

    def test_parts_of_one_message_stay_apart(self) -> None:
        parts = [text("a"), text("b"), "c", text("d")]
        assert message({"content": parts})["content"] == parts


class TestBlocks:
    @pytest.mark.parametrize("index", [{}, {"index": 0}])
    @pytest.mark.parametrize("field", ["reasoning_details", "thinking_blocks"])
    def test_text_and_then_a_signature_are_one(self, field: str, index: Object) -> None:
        label = {"type": "reasoning.text", "format": "x"} | index
        deltas = [{"text": "Well"}, {"text": ", hm", "signature": None}, {"signature": "s"}]
        assert message(*({field: [label | delta]} for delta in deltas))[field] == [
            label | {"text": "Well, hm", "signature": "s"}
        ]

    def test_another_type_or_id_is_another_block(self) -> None:
        blocks: list[Object] = [
            {"type": "reasoning.summary", "summary": "a", "index": 0},
            {"type": "reasoning.encrypted", "data": "b", "id": "1", "index": 0},
            {"type": "reasoning.encrypted", "data": "c", "id": "2", "index": 0},
            {"type": "reasoning.encrypted", "data": "d"},
            {"type": "reasoning.encrypted", "data": "d"},
        ]
        assert message(*({"reasoning_details": [block]} for block in blocks)) == {
            "role": "assistant",
            "content": None,
            "reasoning_details": blocks,
        }

    def test_a_signature_is_the_end_of_a_block(self) -> None:
        blocks = [thinking("a", signature="s"), thinking("b", signature="t"), thinking("c")]
        deltas = [blocks[0], thinking("", signature="s"), *blocks[1:]]
        for fragments in (deltas, [thinking("a"), thinking("", signature="s"), *blocks[1:]]):
            assert message(*({"thinking_blocks": [each]} for each in fragments)) == {
                "role": "assistant",
                "content": None,
                "thinking_blocks": blocks,
            }
        assert message({"thinking_blocks": deltas[2:]})["thinking_blocks"] == blocks[1:]

    def test_fragments_of_two_blocks_may_alternate(self) -> None:
        fragments = [thinking(letter, index=number % 2) for number, letter in enumerate("aAbB")]
        assert message(*({"thinking_blocks": [each]} for each in fragments)) == {
            "role": "assistant",
            "content": None,
            "thinking_blocks": [thinking("ab", index=0), thinking("AB", index=1)],
        }


class TestChoices:
    def test_they_are_separated_by_index_and_put_in_order(self) -> None:
        collector = collect(
            choice({"content": "b"}, 1),
            choice({"content": "a"}, 0),
            choice({"content": "B"}, 1, "length"),
            choice({"content": "A"}, 0),
        )
        assert not collector.finished
        collector.add(dumps(choice({}, 0, "stop")))
        assert collector.finished
        assert collector.text == "aA"
        assert collector.completion()["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "aA"},
                "finish_reason": "stop",
            },
            {
                "index": 1,
                "message": {"role": "assistant", "content": "bB"},
                "finish_reason": "length",
            },
        ]

    def test_several_come_in_one_chunk(self) -> None:
        both = [{"index": index, "delta": {"content": str(index)}} for index in (1, 0)]
        choices = collect({"choices": both}).completion()["choices"]
        assert [each["message"]["content"] for each in choices] == ["0", "1"]

    def test_one_without_an_index_is_the_first(self) -> None:
        assert collect({"choices": [{"delta": {"content": "a"}}]}).text == "a"

    def test_the_last_finish_reason_that_is_not_null_wins(self) -> None:
        reasons: list[str | None] = ["", "stop", "tool_calls", None, ""]
        collector = collect(*(choice({}, 0, reason) for reason in reasons))
        assert collector.completion()["choices"][0]["finish_reason"] == "tool_calls"

    def test_an_empty_finish_reason_finishes_nothing(self) -> None:
        assert not collect(choice({"content": "a"}, 0, "")).finished

    def test_unknown_fields_are_kept(self) -> None:
        [only] = collect(
            choice({}, content_filter_results={"hate": 1}, native_finish_reason=None),
            choice({}, content_filter_results=None, native_finish_reason="STOP"),
        ).completion()["choices"]
        assert only["content_filter_results"] == {"hate": 1}
        assert only["native_finish_reason"] == "STOP"

    def test_lists_of_a_choice_are_joined(self) -> None:
        [only] = collect(
            choice({}, token_ids=[1, 2], stop=None),
            choice({}, token_ids=None),
            choice({}, token_ids=[]),
            choice({}, token_ids=[2]),
        ).completion()["choices"]
        assert only["token_ids"] == [1, 2, 2]

    @pytest.mark.parametrize("empty", [{}, "", None])
    def test_nothing_empty_comes_in_place_of_what_is_true(self, empty: Any) -> None:
        filtered = {"hate": {"filtered": False, "severity": "safe"}}
        collector = collect(
            choice({}, content_filter_results=filtered) | {"usage": {"a": 1}},
            choice({}, content_filter_results=filtered) | {"usage": {"a": 2}},
            choice({}, content_filter_results=empty) | {"usage": empty},
        )
        completion = collector.completion()
        assert completion["choices"][0]["content_filter_results"] == filtered
        assert completion["usage"] == {"a": 2}

    def test_an_index_may_be_a_string(self) -> None:
        chunk = {"choices": [{"index": "0", "delta": {"content": "a"}}]}
        [only] = collect(chunk, choice({"content": "b"})).completion()["choices"]
        assert only["index"] == 0
        assert only["message"]["content"] == "ab"

    def test_logprobs_are_concatenated(self) -> None:
        [only] = collect(
            choice({}, logprobs=None),
            choice({}, logprobs={"content": [{"token": "a"}], "refusal": None}),
            choice({}, logprobs={"content": None, "refusal": [{"token": "x"}]}),
            choice({}, logprobs={"content": [{"token": "b"}]}),
            choice({}, logprobs=None),
        ).completion()["choices"]
        assert only["logprobs"] == {
            "content": [{"token": "a"}, {"token": "b"}],
            "refusal": [{"token": "x"}],
        }

    def test_logprobs_that_are_always_null_are_null(self) -> None:
        assert collect(choice({}, logprobs=None)).completion()["choices"][0]["logprobs"] is None


class TestToolCalls:
    def test_one_is_assembled_from_its_deltas(self) -> None:
        assert tool_calls(
            {"index": 0, "id": "c1", "type": "function", "function": {"name": "f"}},
            {"index": 0, "function": {"arguments": '{"a"'}},
            {"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": ":1}"}},
        ) == [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]

    def test_several_are_separated_by_index_and_put_in_order(self) -> None:
        calls = tool_calls(
            {"index": 1, "id": "c1", "function": {"name": "g", "arguments": "{"}},
            {"index": 0, "id": "c0", "function": {"name": "f", "arguments": "["}},
            {"index": 1, "function": {"arguments": "}"}},
            {"index": 0, "function": {"arguments": "]"}},
        )
        assert [(call["id"], call["function"]["arguments"]) for call in calls] == [
            ("c0", "[]"),
            ("c1", "{}"),
        ]

    def test_without_an_index_another_name_or_id_is_another_call(self) -> None:
        whole = [
            {"id": str(number), "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for number in range(2)
        ]
        assert message({"tool_calls": whole})["tool_calls"] == whole
        assert tool_calls(*whole) == whole
        unnumbered = [{key: call[key] for key in call if key != "id"} for call in whole]
        unnumbered[1] = unnumbered[1] | {"function": {"name": "g", "arguments": '{"a":1}'}}
        assert message({"tool_calls": unnumbered})["tool_calls"] == unnumbered
        assert tool_calls(*unnumbered) == unnumbered

    @pytest.mark.parametrize(
        "repeated",
        [
            {},
            {"id": "c", "type": "function"},
            {"id": "", "type": "", "function": {"name": ""}},
            {"id": "c", "function": {"name": "f"}},
            {"function": {"name": "f"}},
        ],
    )
    def test_fragments_without_an_index_go_on_with_the_last_call(self, repeated: Object) -> None:
        pieces = ['{"a"', ":", '{"b":', "{}", "}}"]
        fragments = [
            repeated | {"function": repeated.get("function", {}) | {"arguments": piece}}
            for piece in pieces
        ]
        [call] = tool_calls({"id": "c", "type": "function", "function": {"name": "f"}}, *fragments)
        assert call == {
            "id": "c",
            "type": "function",
            "function": {"name": "f", "arguments": "".join(pieces)},
        }

    def test_the_same_id_is_the_same_call(self) -> None:
        calls = tool_calls(
            {"id": "a", "function": {"arguments": "{"}},
            {"id": "b", "function": {"name": "g", "arguments": "["}},
            {"id": "a", "function": {"name": "f", "arguments": "}"}},
            {"id": "b", "index": 7, "function": {"arguments": "]"}},
        )
        assert [(call["id"], call["function"]) for call in calls] == [
            ("a", {"name": "f", "arguments": "{}"}),
            ("b", {"name": "g", "arguments": "[]"}),
        ]

    def test_a_call_that_is_sent_once_more_as_a_whole_is_one_call(self) -> None:
        whole = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"b":1}'}}
        assert tool_calls(whole | {"index": 0}, whole | {"index": 0}, whole) == [whole]

    def test_an_index_may_be_a_string(self) -> None:
        calls = tool_calls(
            {"index": "1", "id": "b", "function": {"name": "g", "arguments": "{"}},
            {"index": "0", "id": "a", "function": {"name": "f", "arguments": "{"}},
            {"index": 1, "function": {"arguments": "}"}},
            {"index": "0", "function": {"arguments": "}"}},
        )
        assert [call["function"]["arguments"] for call in calls] == ["{}", "{}"]
        assert [call["id"] for call in calls] == ["a", "b"]

    def test_those_without_an_index_come_last(self) -> None:
        calls = tool_calls({"id": "whole"}, {"index": 1, "id": "b"}, {"index": 0, "id": "a"})
        assert [call["id"] for call in calls] == ["a", "b", "whole"]

    def test_a_new_named_call_may_reuse_an_index(self) -> None:
        calls = tool_calls(
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": "}"}},
            {"index": 0, "id": "b", "function": {"name": "f", "arguments": "[]"}},
        )
        assert calls == [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "f", "arguments": "[]"}},
        ]

    def test_a_new_id_without_a_name_is_no_new_call(self) -> None:
        calls = tool_calls(
            {"index": 0, "id": None, "function": {"name": "f", "arguments": ""}},
            {"index": 0, "id": "a", "function": {"name": "", "arguments": "{"}},
            {"index": 0, "id": "b", "function": {"name": "", "arguments": "}"}},
        )
        assert calls == [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]

    def test_a_name_comes_in_pieces_or_whole_each_time(self) -> None:
        pieces = tool_calls(*({"index": 0, "function": {"name": n}} for n in ("get_", "weather")))
        repeated = tool_calls(*({"index": 0, "function": {"name": n}} for n in ("", "f", "f", "")))
        assert pieces[0]["function"]["name"] == "get_weather"
        assert repeated[0]["function"]["name"] == "f"

    def test_unknown_fields_are_kept(self) -> None:
        [call] = tool_calls(
            {"index": 0, "extra_content": {"google": 1}, "function": {"name": "f", "x": 1}},
            {"index": 0, "extra_content": None, "function": {"arguments": "{}", "x": None}},
        )
        assert call["extra_content"] == {"google": 1}
        assert call["function"] == {"name": "f", "arguments": "{}", "x": 1}

    def test_a_call_of_no_function_has_none(self) -> None:
        assert tool_calls({"index": 0, "id": "a", "type": "custom", "custom": {"input": "x"}}) == [
            {"id": "a", "type": "custom", "custom": {"input": "x"}}
        ]

    def test_without_calls_there_is_no_field_for_them(self) -> None:
        assert "tool_calls" not in message({"tool_calls": []}, {"tool_calls": None})


def test_the_function_call_of_old_is_assembled() -> None:
    deltas = [{"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ":1}"}]
    assert message(*({"function_call": delta} for delta in deltas))["function_call"] == {
        "name": "f",
        "arguments": '{"a":1}',
    }


def test_a_completion_does_not_change_when_more_is_added() -> None:
    chunk = choice(
        {
            "content": "a",
            "images": [1],
            "audio": {"a": 1},
            "tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "a", "x": [1]}}],
        },
        logprobs={"content": [1]},
    )
    collector = collect(chunk)
    early = collector.completion()
    kept = copy.deepcopy(early)
    collector.add(dumps(chunk))
    collector.add(dumps(choice({"audio": {"b": 2}})))
    assert early == kept
    assert collector.completion() == collector.completion() != early
    assert collector.completion()["choices"][0]["message"] == {
        "role": "assistant",
        "content": "aa",
        "images": [1, 1],
        "audio": {"a": 1, "b": 2},
        "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": "aa", "x": [1]}}
        ],
    }


def test_twenty_thousand_chunks_are_no_matter() -> None:
    collector = CompletionCollector()
    chunk = dumps(choice({"content": "word "}))
    for _ in range(20_000):
        collector.add(chunk)
    assert collector.text == "word " * 20_000


HALVES = st.text('ab"\\😀é{}', max_size=10)
NAMES = st.text("abc_", min_size=1, max_size=8)


@st.composite
def pieces_of(draw: st.DrawFn, whole: str) -> list[str]:
    """A text, cut anywhere; also within a character that is two units of UTF-16."""
    units = whole.encode("utf-16-le")
    places = sorted(draw(st.sets(st.integers(0, len(units) // 2), max_size=4)))
    edges = [0, *places, len(units) // 2]
    return [
        units[2 * start : 2 * end].decode("utf-16-le", "surrogatepass")
        for start, end in pairwise(edges)
    ]


@st.composite
def blocks_and_fragments(draw: st.DrawFn) -> tuple[list[Object], list[Object]]:
    """Blocks of which no two neighbours are alike unless they have an index, and fragments."""
    blocks: list[Object] = []
    fragments: list[Object] = []
    numbered = draw(st.booleans())
    kinds = {"reasoning.text": "text", "reasoning.summary": "summary", "thinking": "thinking"}
    for number in range(draw(st.integers(1, 3))):
        alike = blocks[-1]["type"] if blocks and not numbered else None
        kind = draw(st.sampled_from([each for each in kinds if each != alike]))
        label = {"type": kind} | ({"index": number} if numbered else {})
        body = draw(HALVES)
        blocks.append(label | {kinds[kind]: body})
        fragments += [label | {kinds[kind]: piece} for piece in draw(pieces_of(body))]
        if signature := draw(st.sampled_from(["", "signed"])):
            blocks[-1]["signature"] = signature
            parts = draw(pieces_of(signature)) if numbered else [signature]
            fragments += [label | {"signature": part} for part in parts]
    return blocks, fragments


@st.composite
def calls_and_fragments(draw: st.DrawFn) -> tuple[list[Object], list[Object]]:
    calls: list[Object] = []
    fragments: list[Object] = []
    numbered, repeated = draw(st.booleans()), draw(st.booleans())
    for number in range(draw(st.integers(1, 3))):
        arguments = dumps({draw(HALVES): draw(HALVES)}).decode()
        opening = {"id": f"call_{number}", "type": "function"}
        name = draw(NAMES)
        calls.append(opening | {"function": {"name": name, "arguments": arguments}})
        label: Object = {"index": number} if numbered else {}
        fragments.append(label | opening | {"function": {"name": name, "arguments": ""}})
        again = opening if repeated else {}
        for piece in draw(pieces_of(arguments)):
            function = {"name": name, "arguments": piece} if repeated else {"arguments": piece}
            fragments.append(label | again | {"function": function})
    return calls, fragments


@st.composite
def streamed_choices(draw: st.DrawFn) -> tuple[list[Object], list[list[Object]]]:
    """Choices of a completion, and for each the chunks of a stream that says the same."""
    choices, streams = [], []
    for index in range(draw(st.integers(1, 3))):
        said: Object = {"role": "assistant", "content": None}
        deltas: list[Object] = [{"role": "assistant"}]
        for key in draw(st.sets(st.sampled_from(["content", "reasoning_content", "refusal"]))):
            said[key] = draw(HALVES)
            deltas += [{key: piece} for piece in draw(pieces_of(said[key]))]
        for key, strategy in {
            "reasoning_details": blocks_and_fragments(),
            "tool_calls": calls_and_fragments(),
        }.items():
            if draw(st.booleans()):
                said[key], fragments = draw(strategy)
                deltas += [{key: [fragment]} for fragment in fragments]
        for key in draw(st.sets(st.sampled_from(["images", "annotations"]))):
            said[key] = draw(st.lists(json_values("index", "type"), min_size=1, max_size=3))
            deltas += [{key: [entry]} for entry in said[key]]
        more: Object = {}
        frames: list[Object] = [{} for _ in deltas]
        if draw(st.booleans()):
            more["token_ids"] = list(range(len(deltas)))
            frames = [{"token_ids": [number]} for number in more["token_ids"]]
        choices.append({"index": index, "message": said, "finish_reason": "stop"} | more)
        last = draw(st.sampled_from([{}, None]))
        chunks = [
            choice(each, index, draw(st.sampled_from([None, ""])), **frame)
            for each, frame in zip(deltas, frames, strict=True)
        ]
        streams.append([*chunks, choice(last, index, "stop")])
    return choices, streams


def raw(chunk: Object) -> bytes:
    """A chunk as it is sent, with halves of characters in it."""
    return json.dumps(chunk).encode()


@given(streamed_choices(), st.randoms(use_true_random=False))
def test_a_stream_adds_up_to_what_it_was_made_of(
    made: tuple[list[Object], list[list[Object]]], random: Any
) -> None:
    choices, streams = made
    collector = CompletionCollector()
    while streams:
        stream = random.choice(streams)
        collector.add(raw(stream.pop(0)))
        streams = [each for each in streams if each]
    assert collector.finished
    assert collector.completion() == HEAD | {"object": "chat.completion", "choices": choices}
    assert collector.text == (choices[0]["message"]["content"] or "")


@given(streamed_choices())
def test_a_whole_document_comes_back_as_itself(
    made: tuple[list[Object], list[list[Object]]],
) -> None:
    document = HEAD | {"object": "chat.completion", "choices": made[0], "usage": {"a": 1}}
    collector = CompletionCollector()
    for chunk in chunks_of(document, include_usage=True):
        collector.add(chunk)
    assert collector.completion() == document


PLAIN = st.text("ab", max_size=4)


@given(
    st.lists(
        st.fixed_dictionaries({"content": PLAIN}, optional={"refusal": PLAIN, "x": PLAIN}),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.tuples(st.integers(0, 2), PLAIN, st.booleans()), max_size=8),
)
def test_what_openai_python_can_add_up_is_added_up_alike(
    texts: list[Object], calls: list[tuple[int, str, bool]]
) -> None:
    opened: set[int] = set()
    deltas: list[Object] = [{"role": "assistant", "content": ""}, *texts]
    for index in range(3):
        opening = {"index": index, "id": f"c{index}", "type": "function"}
        opened.add(index)
        deltas.append({"tool_calls": [opening | {"function": {"name": "f", "arguments": ""}}]})
    deltas += [
        {"tool_calls": [{"index": index, "function": {"arguments": piece}}] * (1 + twice)}
        for index, piece, twice in calls
    ]
    expected: Any = {}
    for delta in deltas:
        accumulate_delta(expected, copy.deepcopy(delta))
    for call in expected["tool_calls"]:
        del call["index"]
    assert message(*deltas) == expected


@given(st.lists(st.text('{}"a: ', max_size=3)), st.text('{}"a: ', max_size=6))
def test_pieces_are_what_their_text_is(given_pieces: list[str], text: str) -> None:
    pieces, whole = Pieces(given_pieces), "".join(given_pieces)
    assert pieces.is_blank() == (not whole.strip())
    assert pieces.is_exactly(text) == (whole == text)
    assert pieces.is_exactly(whole)
    try:
        is_object = isinstance(json.loads(whole), dict)
    except ValueError:
        is_object = False
    assert pieces.is_json_object() == is_object
