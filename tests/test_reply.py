"""What is read off a streamed reply of the API as it passes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.chunks import Usage
from gemproxy.chat.jsontext import loads
from gemproxy.gemini.translate.answer_media import Media
from gemproxy.gemini.translate.reply import NO_NEWS, Reply, Thought
from gemproxy.gemini.translate.tools import Call
from tests.strategies import json_values


def sse(*responses: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(r).encode() + b"\r\n\r\n" for r in responses)


def candidate(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}} | fields]}


def thought(text: Any) -> dict[str, Any]:
    return {"text": text, "thought": True}


def heard(*pieces: bytes) -> tuple[list[str], Reply]:
    thoughts, _, reply = relayed(*pieces)
    return thoughts, reply


def relayed(*pieces: bytes) -> tuple[list[str], list[str], Reply]:
    """The thoughts, the text of each piece that has any, and the rest."""
    reply = Reply()
    thoughts, texts = [], []
    for news in [*map(reply.feed, pieces), reply.close()]:
        thoughts += [thought.text for thought in news.thoughts]
        if news.texts:
            texts.append("".join(news.texts))
    return thoughts, texts, reply


def piecewise(*responses: Any) -> list[bytes]:
    return [sse(response) for response in responses]


def facts(reply: Reply) -> tuple[Any, ...]:
    return reply.finish_reason, reply.block_reason, reply.usage


STREAM = sse(
    candidate(thought("Hm, é"), {"text": "Hel"}) | {"usageMetadata": {"promptTokenCount": 3}},
    candidate(thought(" 😀"), thought("so.")),
    candidate({"text": "lo"}, finishReason="STOP")
    | {
        "usageMetadata": {
            "promptTokenCount": 3,
            "toolUsePromptTokenCount": 4,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 200,
            "cachedContentTokenCount": 2,
            "totalTokenCount": 217,
        }
    },
)
THOUGHTS = ["Hm, é", " 😀", "so."]
FACTS = ("STOP", None, Usage(prompt=7, completion=210, reasoning=200, cached=2))


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_the_facts_do_not_depend_on_how_the_stream_is_cut(end: bytes):
    stream = STREAM.replace(b"\r\n", end)
    for position in range(len(stream) + 1):
        thoughts, reply = heard(stream[:position], stream[position:])
        assert thoughts == THOUGHTS
        assert facts(reply) == FACTS
    thoughts, reply = heard(*(stream[i : i + 1] for i in range(len(stream))))
    assert thoughts == THOUGHTS
    assert facts(reply) == FACTS


def test_thoughts_are_sent_as_they_arrive():
    reply = Reply()
    first, second, third = (event + b"\r\n\r\n" for event in STREAM.split(b"\r\n\r\n")[:3])
    assert reply.feed(first).thoughts == [*map(Thought, THOUGHTS[:1])]
    assert facts(reply) == (None, None, Usage(prompt=3, completion=0))
    assert reply.feed(second + third).thoughts == [*map(Thought, THOUGHTS[1:])]
    assert reply.close() == NO_NEWS


def test_numbers_are_exact_however_long_they_are():
    arguments = {"number": 10**30 + 1}
    responses: list[Any] = []
    for reply in (Reply(), Reply(native=responses.append)):
        reply.feed(sse(candidate({"functionCall": {"name": "f", "args": arguments}})))
        assert [json.loads(call.arguments) for call in reply.calls] == [arguments]
    [told] = responses
    assert told.response == candidate({"functionCall": {"name": "f", "args": arguments}})


def test_usage_as_openai_counts_it():
    _, reply = heard(STREAM)
    assert reply.usage is not None
    assert reply.usage.as_json() == {
        "prompt_tokens": 7,
        "completion_tokens": 210,
        "total_tokens": 217,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 200},
    }


def test_nothing_is_known_of_an_empty_reply():
    thoughts, reply = heard()
    assert thoughts == []
    assert facts(reply) == (None, None, None)


@pytest.mark.parametrize(
    ("responses", "finish_reason", "block_reason"),
    [
        ([candidate(finishReason="MAX_TOKENS")], "MAX_TOKENS", None),
        ([{"candidates": [{"finishReason": "SAFETY", "index": 0}]}], "SAFETY", None),
        ([candidate(finishReason="STOP"), candidate({"text": "x"})], "STOP", None),
        ([candidate(finishReason="STOP"), {"usageMetadata": {}}], "STOP", None),
        ([candidate(finishReason="STOP"), candidate(finishReason="")], "STOP", None),
        ([{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}], None, "PROHIBITED_CONTENT"),
        ([{"promptFeedback": {"blockReason": "OTHER"}, "candidates": []}], None, "OTHER"),
        ([{"promptFeedback": {"blockReason": "OTHER"}}, {"promptFeedback": {}}], None, "OTHER"),
        ([{"promptFeedback": {"safetyRatings": []}}, candidate({"text": "x"})], None, None),
        ([candidate({"text": "x"})], None, None),
        ([candidate(finishReason=1), {"promptFeedback": {"blockReason": ["x"]}}], None, None),
        ([None, 1, "x", [], [candidate(finishReason="STOP")]], None, None),
    ],
)
def test_reasons(responses: list[Any], finish_reason: str | None, block_reason: str | None):
    _, reply = heard(sse(*responses))
    assert (reply.finish_reason, reply.block_reason) == (finish_reason, block_reason)


@pytest.mark.parametrize(
    ("part", "thoughts"),
    [
        (thought("a"), ["a"]),
        (thought("a") | {"thoughtSignature": "x"}, ["a"]),
        ({"text": "a"}, []),
        ({"text": "a", "thought": False}, []),
        ({"thought": True}, []),
        (thought(1), []),
        ("a", []),
        (None, []),
    ],
)
def test_an_answer_of_thoughts_alone(part: Any, thoughts: list[str]):
    assert heard(sse(candidate(part)))[0] == thoughts


def test_signatures_of_texts_and_thoughts_are_kept():
    signed = {"thoughtSignature": "s1"}
    reply = Reply()
    events = (
        candidate(thought("a") | signed, thought("b"), {"text": "c", "thoughtSignature": "s2"}),
        candidate({"text": "d"}, {"text": "", "thoughtSignature": "s3"}),
        candidate({"text": "", "thoughtSignature": 1}, finishReason="STOP"),
    )
    told = [thought for event in events for thought in reply.feed(sse(event)).thoughts]
    assert told == [Thought("a", "s1"), Thought("b")]
    assert reply.text_signature == "s3"
    assert reply.signatures == ["s1", "s2", "s3"]


def test_texts_are_told_from_the_rest():
    call = {"functionCall": {"name": "f", "args": {"a": 1}, "id": "x"}, "thoughtSignature": "s"}
    rest = {"usageMetadata": {"promptTokenCount": 3}, "modelVersion": "m", "unknown": [1]}
    thoughts, texts, reply = relayed(
        *piecewise(
            candidate(thought("a"), {"text": "b\u2028c"}, call, finishReason="STOP", index=0)
            | rest,
            candidate({"text": "d", "thoughtSignature": "s"}),
            candidate(thought("e")),
            rest,
        )
    )
    assert (thoughts, texts) == (["a", "e"], ["b\u2028c", "d"])
    assert reply.calls == [Call("x", "f", '{"a":1}', "s")]


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": {"a": "\u00e9"}, "id": f"id of {name}"}} | more


def test_all_calls_of_a_reply_are_kept_in_their_order():
    stream = sse(
        candidate({"text": "a"}, call("f", thoughtSignature="s"), thought("Hm."), call("g")),
        candidate(call("h"), {"text": "b"}),
        candidate(call("f"), finishReason="STOP"),
    )
    for position in range(len(stream) + 1):
        thoughts, texts, reply = relayed(stream[:position], stream[position:])
        assert [(c.id, c.name, c.arguments, c.signature) for c in reply.calls] == [
            (f"id of {name}", name, '{"a":"\u00e9"}', signature)
            for name, signature in (("f", "s"), ("g", None), ("h", None), ("f", None))
        ]
        assert thoughts == ["Hm."]
        assert "".join(texts) == "ab"
        assert reply.finish_reason == "STOP"


@pytest.mark.parametrize(
    "part",
    [
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"executableCode": {"code": 1}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK"}},
        {"functionResponse": {"name": "f"}},
        {"functionCall": None},
        {"functionCall": {"name": 1}},
        {"text": None},
        "a",
        None,
    ],
)
def test_parts_without_text_say_nothing(part: Any):
    thoughts, texts, reply = relayed(sse(candidate(part, {"text": "a"}, finishReason="STOP")))
    assert (thoughts, texts, reply.calls) == ([], ["a"], [])


def test_executed_code_is_fenced_text():
    code = {"executableCode": {"language": "PYTHON", "code": "print('```')\n"}}
    result = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "a\n"}}
    _, texts, _ = relayed(sse(candidate({"text": "See:"}, code, result, {"text": "b"})))
    assert texts == ["See:\n````python\nprint('```')\n````\n\n```\na\n```\nb"]


def test_pictures_and_sound_are_kept():
    png = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
    wrong = {"inlineData": {"mimeType": 1, "data": "AA=="}}
    _, texts, reply = relayed(
        sse(candidate(png | {"thought": True}, wrong), candidate(png, finishReason="STOP"))
    )
    assert reply.media == [Media("image/png", "AA==")]
    assert texts == []


@given(st.text(), st.text(), st.dictionaries(st.text(), json_values(), max_size=3))
def test_each_character_of_a_reply_arrives(text: str, thinking: str, args: dict[str, Any]):
    part = {"functionCall": {"name": "f", "args": args}}
    response = candidate(thought(thinking), {"text": text}, part)
    thoughts, texts, reply = relayed(sse(json.loads(json.dumps(response))))
    joined = loads(json.dumps([text, thinking, args]).encode())
    assert ["".join(texts), thoughts] == [joined[0], [joined[1]]]
    assert loads(reply.calls[0].arguments.encode()) == joined[2]


def test_an_error_in_the_stream_is_no_text():
    error = {"error": {"code": 503, "message": "Overloaded."}}
    _, texts, reply = relayed(sse(candidate({"text": "a"}), error))
    assert texts == ["a"]
    assert reply.error is not None
    assert json.loads(reply.error) == error


@pytest.mark.parametrize("rest", [b"", b"\r\n", b"\r"])
def test_a_last_event_without_its_blank_line_counts(rest: bytes):
    thoughts, reply = heard(sse(candidate(thought("a"), finishReason="STOP"))[:-4] + rest)
    assert thoughts == ["a"]
    assert reply.finish_reason == "STOP"


def test_what_is_not_json_is_passed_over():
    noise = b": comment\r\n\r\ndata: {\r\n\r\ndata: [DONE]\r\n\r\nevent: x\r\ndata: \xff\r\n\r\n"
    thoughts, texts, reply = relayed(noise + STREAM + noise)
    assert texts == ["Hello"]
    assert thoughts == THOUGHTS
    assert facts(reply) == FACTS


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "usageMetadata": json_values("promptTokenCount", "thoughtsTokenCount"),
                "promptFeedback": json_values("blockReason"),
                "candidates": json_values("content", "parts", "thought", "text")
                | st.lists(
                    json_values("content", "finishReason", "functionCall", "name", "parts"),
                    max_size=2,
                ),
            },
        )
        | json_values("candidates")
    )
)
def test_nonsense_is_no_trouble(responses: list[Any]):
    thoughts, _, reply = relayed(sse(*responses))
    assert all(isinstance(text, str) for text in thoughts)
    assert isinstance(reply.finish_reason, str | None)
    assert isinstance(reply.block_reason, str | None)
    assert isinstance(reply.usage, Usage | None)


@given(st.binary())
def test_any_bytes_are_no_trouble(data: bytes):
    heard(data)
