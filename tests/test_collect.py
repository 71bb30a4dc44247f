"""The completion that a stream of chunks adds up to."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.chunks import ChunkFactory, Usage
from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.jsontext import dumps

Object = dict[str, Any]

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def collect(*chunks: Object) -> CompletionCollector:
    collector = CompletionCollector()
    for chunk in chunks:
        collector.add(dumps(chunk))
    return collector


def choice(delta: Object, index: int = 0, finish_reason: str | None = None, **more: Any) -> Object:
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
        assert message({"audio": {"a": 1, "b": 1}}, {"audio": {"b": 2}})["audio"] == {
            "a": 1,
            "b": 2,
        }

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

    def test_a_whole_message_beside_a_delta_is_not_added_to_it(self) -> None:
        [only] = collect(choice({"content": "b"}, message={"content": "ab"})).completion()[
            "choices"
        ]
        assert only["message"]["content"] == "b"


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

    def test_each_without_an_index_is_a_whole_call(self) -> None:
        whole = [
            {"id": str(number), "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for number in range(2)
        ]
        assert message({"tool_calls": whole})["tool_calls"] == whole
        assert tool_calls(*whole) == whole

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


def test_a_hundred_thousand_chunks_are_no_matter() -> None:
    collector = CompletionCollector()
    chunk = dumps(choice({"content": "word "}))
    for _ in range(100_000):
        collector.add(chunk)
    assert collector.text == "word " * 100_000


def in_pieces(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)))
    edges = [0, *places, len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@st.composite
def streamed_choices(draw: st.DrawFn) -> tuple[list[Object], list[list[Object]]]:
    """Choices of a completion, and for each the chunks of a stream that says the same."""
    texts = st.text(max_size=10)
    choices, streams = [], []
    for index in range(draw(st.integers(1, 3))):
        said: Object = {"role": "assistant", "content": None}
        deltas: list[Object] = [{"role": "assistant"}]
        for key in draw(st.sets(st.sampled_from(["content", "reasoning_content", "refusal"]))):
            said[key] = draw(texts)
            deltas += [{key: piece} for piece in in_pieces(draw, said[key])]
        calls = []
        for number in range(draw(st.integers(0, 2))):
            opening = {"id": f"call_{number}", "type": "function"}
            arguments = draw(texts)
            calls.append(opening | {"function": {"name": "f", "arguments": arguments}})
            starts = {"index": number, **opening, "function": {"name": "f", "arguments": ""}}
            deltas.append({"tool_calls": [starts]})
            deltas += [
                {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}
                for piece in in_pieces(draw, arguments)
            ]
        if calls:
            said["tool_calls"] = calls
        choices.append({"index": index, "message": said, "finish_reason": "stop"})
        streams.append([*(choice(each, index) for each in deltas), choice({}, index, "stop")])
    return choices, streams


@given(streamed_choices(), st.randoms(use_true_random=False))
def test_a_stream_adds_up_to_what_it_was_made_of(
    made: tuple[list[Object], list[list[Object]]], random: Any
) -> None:
    choices, streams = made
    collector = CompletionCollector()
    while streams:
        stream = random.choice(streams)
        collector.add(dumps(stream.pop(0)))
        streams = [each for each in streams if each]
    assert collector.finished
    assert collector.completion() == HEAD | {"object": "chat.completion", "choices": choices}
    assert collector.text == (choices[0]["message"]["content"] or "")
