"""Anthropic's Messages in chat completions, and back. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic.types import (
    Message,
    MessageTokensCount,
    ModelInfo,
    RawMessageStreamEvent,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gemproxy.chat.chunks import ChunkFactory, Usage
from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.errors import ChatError, bad_request, overloaded
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.sse import Event, SSEDecoder
from gemproxy.dialects.dialect import DialectRequest, Translation
from gemproxy.dialects.messages.answer import MessagesForm
from gemproxy.dialects.messages.dialect import MESSAGES, MESSAGES_COUNTING
from gemproxy.dialects.messages.display import Display
from gemproxy.dialects.messages.kept import Kept
from gemproxy.dialects.messages.models import MESSAGES_MODELS
from gemproxy.dialects.registry import models_form_for
from gemproxy.dialects.seal import Seal
from gemproxy.gemini.translate.families import family_of
from gemproxy.gemini.translate.history import merged
from gemproxy.gemini.translate.messages import translate_messages
from gemproxy.gemini.translate.signatures import Signatures
from tests.tables import each

Json = dict[str, Any]

SEAL = Seal(b"secret")
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
USER = {"role": "user", "content": "Hi"}
PNG = "iVBORw0KGgo="


def translated(has_hosted_tools: bool = True, **body: Any) -> Translation:
    raw = dumps({"model": "m", "max_tokens": 9, "messages": [USER]} | body)
    asked = DialectRequest(b"/v1/messages", raw, "1", 0, SEAL, has_hosted_tools=has_hosted_tools)
    return MESSAGES.translate(asked)


def chat(**body: Any) -> Json:
    (asked,) = translated(**body).chats
    assert dumps(asked.body) == asked.raw
    return asked.body


def messages(*given: Any, **body: Any) -> list[Json]:
    return chat(messages=list(given), **body)["messages"]


def user(*blocks: Any) -> Json:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def text(text: str) -> Json:
    return {"type": "text", "text": text}


def extra(signature: str) -> Json:
    return {"extra_content": {"google": {"thought_signature": signature}}}


# Requests


def test_a_request_of_all_that_has_a_counterpart():
    tool = {"name": "f", "description": "d", "input_schema": {"type": "object"}, "type": "custom"}
    assert chat(
        system=[text("s") | {"cache_control": {"type": "ephemeral"}}],
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop_sequences=["x"],
        tools=[tool | {"cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        metadata={"user_id": "u"},
        service_tier="auto",
        stream=True,
    ) == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, USER],
        "temperature": 0.5,
        "top_k": 5,
        "top_p": 0.9,
        "max_tokens": 9,
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "parameters": {"type": "object"}, "description": "d"},
            }
        ],
        "parallel_tool_calls": False,
        "tool_choice": "required",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_stop_sequences_are_for_the_filter_that_names_the_one_it_found():
    assert translated(stop_sequences=["x", "", "y", "x"]).stops == ("x", "y")
    assert translated().stops == ()


def test_the_system_prompt_is_the_first_message_and_others_keep_their_place():
    later = {"role": "system", "content": [text("later")]}
    assert messages(USER, later, system="s") == [
        {"role": "system", "content": "s"},
        USER,
        {"role": "system", "content": "later"},
    ]
    several = [text("x-anthropic-billing-header: cch=1;"), text("a"), text("b")]
    assert messages(USER, system=several)[0]["content"] == [text("a"), text("b")]


def test_pictures_documents_and_search_results():
    image = {"type": "base64", "media_type": "image/png", "data": PNG}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
    plain = {"type": "text", "media_type": "text/plain", "data": "p"}
    nested = {"type": "content", "content": [text("n"), {"type": "image", "source": image}]}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    file = {"filename": "t", "file_data": "data:application/pdf;base64,JVBERg=="}
    remote = {"type": "url", "url": "https://x/y"}
    assert messages(
        user(
            text("a"),
            {"type": "image", "source": image, "cache_control": {}},
            {"type": "image", "source": remote},
            {"type": "document", "source": pdf, "title": "t", "context": "c"},
            {"type": "document", "source": plain},
            {"type": "document", "source": nested},
            {"type": "document", "source": remote},
            {"type": "search_result", "title": "t", "source": "s", "content": [text("r")]},
        )
    ) == [
        {
            "role": "user",
            "content": [
                text("a"),
                picture,
                {"type": "image_url", "image_url": {"url": "https://x/y"}},
                text("t\nc"),
                {"type": "file", "file": file},
                text("p"),
                text("n"),
                picture,
                {"type": "file", "file": {"filename": "file", "file_data": "https://x/y"}},
                text("t\ns"),
                text("r"),
            ],
        }
    ]


def test_calls_and_their_results():
    image = {"type": "base64", "media_type": "image/png", "data": PNG}
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
    other = {"type": "tool_use", "id": "t2", "name": "g", "input": {}}
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "x"},
        {
            "type": "tool_result",
            "tool_use_id": "t2",
            "is_error": True,
            "content": [
                text("no"),
                {"type": "image", "source": image},
                {"type": "tool_reference", "tool_name": "g"},
            ],
        },
    ]
    _, answer, first, second, rest = messages(
        USER, assistant(text("Well"), use, other), user(*results, text("And?"))
    )
    assert answer == {
        "role": "assistant",
        "content": "Well",
        "tool_calls": [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    assert first == {"role": "tool", "tool_call_id": "t1", "content": "x"}
    told = dumps({"error": "no\n\nThe tool g is available now."}).decode()
    assert second["content"][0] == text(told)
    assert second["content"][1]["type"] == "image_url"
    assert rest == {"role": "user", "content": "And?"}


def test_what_this_daemon_sealed_goes_back_to_its_place():
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    thinking = {
        "type": "thinking",
        "thinking": "Hm.",
        "signature": Kept(thought="s1").sealed(SEAL),
    }
    kept = Kept(text="s2", calls={"t1": "s3"}).sealed(SEAL)
    _, answer = messages(
        USER, assistant(thinking, text("Yes"), {"type": "redacted_thinking", "data": kept}, use)
    )
    assert answer["content"] == [
        {"type": "thinking", "thinking": "Hm."} | extra("s1"),
        text("Yes") | extra("s2"),
    ]
    assert answer["tool_calls"][0]["extra_content"] == extra("s3")["extra_content"]
    assert answer["reasoning_content"] == "Hm."


@pytest.mark.parametrize("signature", ["", "EpYB", "gp1_AAAA", None, 5])
def test_what_is_not_sealed_here_is_left_out(signature: Any):
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": signature}
    redacted = {"type": "redacted_thinking", "data": signature}
    server = {"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}}
    _, answer = messages(USER, assistant(thinking, redacted, server, text("Yes")))
    assert answer == {"role": "assistant", "content": "Yes"}
    assert messages(USER, assistant(thinking, redacted)) == [USER]


@pytest.mark.parametrize(
    ("body", "settings", "display"),
    [
        ({}, {}, Display.HIDDEN),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}, Display.HIDDEN),
        ({"thinking": {"type": "adaptive"}}, {}, Display.SHOWN),
        ({"thinking": {"type": "between_tools"}}, {}, Display.SHOWN),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, {}, Display.OMITTED),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            {"reasoning_effort": "max"},
            Display.SHOWN,
        ),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}, Display.HIDDEN),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {
                "reasoning_effort": "low",
                "google": {"thinking_config": {"thinking_budget": 2000}},
            },
            Display.SHOWN,
        ),
    ],
)
def test_thinking(body: Json, settings: Json, display: Display):
    translation = translated(**body)
    asked = translation.chats[0].body
    found = {key: asked[key] for key in ("reasoning_effort", "google") if key in asked}
    assert found == settings
    stream = said(translation.form, {"reasoning_content": "Hm."}, {"content": "a"})
    kinds = [each["content_block"]["type"] for each in stream if "content_block" in each]
    assert kinds == ["text"] if display is Display.HIDDEN else ["thinking", "text"]
    assert any("Hm." in dumps(each).decode() for each in stream) is (display is Display.SHOWN)


def test_a_budget_is_an_effort_for_whoever_takes_no_budgets():
    for budget, effort in ((1024, "low"), (10_000, "medium"), (32_000, "high")):
        thinking = {"type": "enabled", "budget_tokens": budget}
        (asked,) = translated(has_hosted_tools=False, thinking=thinking).chats
        assert asked.body["reasoning_effort"] == effort
        assert "google" not in asked.body


def test_json_is_requested_by_a_schema():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"type": "json_schema", "schema": schema}
    for body in ({"output_config": {"format": wanted}}, {"output_format": wanted}):
        assert chat(**body)["response_format"]["json_schema"]["schema"] == schema


def test_tools_of_servers_are_those_of_the_backend_or_left_out_and_named():
    place = {"type": "approximate", "city": "Graz", "country": "AT"}
    search = {"type": "web_search_20250305", "name": "web_search", "user_location": place}
    fetch = {"type": "web_fetch_20250910", "name": "web_fetch"}
    bash = {"type": "bash_20250124", "name": "bash"}
    choice = {"type": "tool", "name": "web_search"}
    translation = translated(tools=[search, fetch, bash], tool_choice=choice)
    (asked,) = translation.chats
    assert asked.body["web_search_options"] == {
        "user_location": {
            "type": "approximate",
            "approximate": {"city": "Graz", "country": "AT"},
        }
    }
    assert asked.body["tools"] == [{"type": "url_context"}]
    assert "tool_choice" not in asked.body
    assert translation.form.ignored == ("tools.bash_20250124",)
    without = translated(has_hosted_tools=False, tools=[search], tool_choice=choice)
    assert without.chats[0].body.keys() == {"model", "messages", "max_tokens"}
    assert without.form.ignored == ("tools.web_search_20250305",)


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_the_choice_of_tools(choice: Json, chosen: Any):
    asked = chat(tools=[{"name": "f", "input_schema": {}}], tool_choice=choice)
    assert asked["tool_choice"] == chosen
    assert "parallel_tool_calls" not in asked


def test_what_has_no_counterpart_is_named_and_what_has_no_effect_is_not():
    body = {"mcp_servers": [{"url": "x"}], "container": "c", "betas": ["x-2026"], "speed": "fast"}
    assert translated(**body, context_management=None).form.ignored == ("container", "mcp_servers")
    assert chat(max_tokens=0)["max_tokens"] == 1


@each(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "tool"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [user("x")]}, "messages[0].content[0]"),
        ({"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
        ({"messages": [user({"type": "odd"})]}, "messages[0].content[0].type"),
        (
            {"messages": [user({"type": "image", "source": {"type": "file"}})]},
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": [user({"type": "image", "source": {"type": "base64"}})]},
            "messages[0].content[0].source.media_type",
        ),
        ({"messages": [user({"type": "tool_result"})]}, "messages[0].content[0].tool_use_id"),
        ({"messages": [assistant({"type": "tool_use"})]}, "messages[0].content[0].id"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"tool_choice": "auto"}, "tool_choice.type"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "x"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "x"}}}, "output_config.format"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_a_bad_request_names_its_field(body: Json, param: str):
    with pytest.raises(ChatError) as caught:
        translated(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


# A conversation reaches Google the same way through both dialects

WORDS = st.text("ab \n\u00e9\U0001f600", min_size=1, max_size=6)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Json], list[Json]]:
    """The same conversation in Messages and in chat completions."""
    ours: list[Json] = []
    theirs: list[Json] = []
    number = 0
    for _ in range(draw(st.integers(1, 4))):
        question = draw(WORDS)
        ours.append({"role": "user", "content": question})
        theirs.append(
            {"role": "user", "content": draw(st.sampled_from([question, [text(question)]]))}
        )
        blocks: list[Json] = []
        answer: Json = {"role": "assistant", "content": []}
        if draw(st.booleans()):
            said_text, signature = draw(WORDS), draw(st.sampled_from([None, "c2ln"]))
            blocks.append(text(said_text))
            answer["content"].append(text(said_text) | (extra(signature) if signature else {}))
            if signature:
                data = Kept(text=signature).sealed(SEAL)
                blocks.append({"type": "redacted_thinking", "data": data})
        calls, results, answered = [], [], []
        for _ in range(draw(st.integers(0, 2))):
            number += 1
            args, outcome = draw(st.dictionaries(WORDS, WORDS, max_size=2)), draw(WORDS)
            blocks.append({"type": "tool_use", "id": f"t{number}", "name": "f", "input": args})
            calls.append(
                {
                    "id": f"t{number}",
                    "type": "function",
                    "function": {"name": "f", "arguments": json.dumps(args)},
                }
            )
            results.append({"type": "tool_result", "tool_use_id": f"t{number}", "content": outcome})
            answered.append({"role": "tool", "tool_call_id": f"t{number}", "content": outcome})
        if calls:
            answer["tool_calls"] = calls
        theirs += [assistant(*blocks)] if blocks else []
        theirs += [user(*results)] if results else []
        ours += [answer] if blocks else []
        ours += answered
    return theirs, ours


@given(conversations(), st.sampled_from(["gemini-2.5-flash", "gemini-3.8-flash"]))
def test_a_conversation_reaches_google_as_through_chat_completions(
    conversation: tuple[list[Json], list[Json]], model: str
):
    theirs, ours = conversation
    through = messages(*theirs, system="s")
    directly = [{"role": "system", "content": "s"}, *ours]
    one, other = (
        translate_messages(each, family_of(model), Signatures()) for each in (through, directly)
    )
    assert one == other
    assert merged(one.turns) == merged(other.turns)


# Answers


def events_of(*deltas: Json, finish: str = "stop", usage: Usage | None = None) -> list[Event]:
    chunks = ChunkFactory("c", 1, "backend-model")
    made = [chunks.delta({"role": "assistant", "content": ""})]
    made += [chunks.delta(delta) for delta in deltas]
    made.append(chunks.delta({}, finish))
    return [*made, chunks.usage(usage)] if usage else made


def parsed(data: bytes) -> list[Json]:
    decoder = SSEDecoder()
    events = [*decoder.feed(data), *decoder.close()]
    documents = [json.loads(event.data) for event in events]
    assert [event.name.decode() for event in events] == [each["type"] for each in documents]
    return documents


def form_for(display: Display = Display.SHOWN, searches: bool = False) -> MessagesForm:
    return MessagesForm("msg_1", "m", SEAL, display, searches, ())


def said(form: Any, *deltas: Json, **ending: Any) -> list[Json]:
    return parsed(form.events(events_of(*deltas, **ending)) + form.end())


def checked(stream: Sequence[Json]) -> Json:
    """The message of a stream, whose events are checked: order, types, and no unknown field."""
    message: Json = {}
    open_blocks: dict[int, list[str]] = {}
    for event in stream:
        if event["type"] == "ping":
            continue
        typed = EVENTS.validate_python(event, strict=False)
        assert_all_known(event, typed)
        match event["type"]:
            case "message_start":
                assert not message
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
                open_blocks[event["index"]] = []
            case "content_block_delta":
                add(message["content"][event["index"]], open_blocks[event["index"]], event["delta"])
            case "content_block_stop":
                pieces = open_blocks.pop(event["index"])
                if message["content"][event["index"]]["type"] == "tool_use":
                    message["content"][event["index"]]["input"] = json.loads(
                        "".join(pieces) or "{}"
                    )
            case "message_delta":
                assert not open_blocks
                message |= event["delta"]
                message["usage"] |= event["usage"]
            case "message_stop":
                assert event is stream[-1]
            case other:
                pytest.fail(f"unexpected {other}")
    assert_all_known(message, Message.model_validate(message, strict=False))
    return message


def add(block: Json, pieces: list[str], delta: Json) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "citations_delta":
            block.setdefault("citations", []).append(delta["citation"])
        case "input_json_delta":
            pieces.append(delta["partial_json"])


def assert_all_known(given: Any, typed: Any) -> None:
    """The SDK's models take unknown fields in silence: none of ours may be among them."""
    if isinstance(given, dict) and hasattr(typed, "model_extra"):
        assert not typed.model_extra, typed.model_extra
        for name, value in given.items():
            assert_all_known(value, getattr(typed, name))
    elif isinstance(given, list):
        for value, inner in zip(given, typed, strict=True):
            assert_all_known(value, inner)


CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
ARGUMENTS = {"index": 0, "function": {"arguments": '{"a":1}'}}
FULL = (
    {"reasoning_content": "Hm"},
    {"reasoning_content": "."} | extra("s1"),
    {"content": "Hel"},
    {"content": "lo"},
    extra("s2"),
    {"tool_calls": [CALL | extra("s3")]},
    {"tool_calls": [ARGUMENTS]},
    {"tool_calls": [CALL | {"index": 1, "id": "c2"}]},
    {"tool_calls": [ARGUMENTS | {"index": 1}]},
)


def test_a_stream_of_everything():
    usage = Usage(prompt=30, completion=6, reasoning=4, cached=10)
    stream = said(form_for(), *FULL, finish="tool_calls", usage=usage)
    message = checked(stream)
    kinds = [block["type"] for block in message["content"]]
    assert kinds == ["thinking", "text", "redacted_thinking", "tool_use", "tool_use"]
    thinking, spoken, _, call, other = message["content"]
    assert thinking["thinking"] == "Hm."
    assert spoken["text"] == "Hello"
    assert call == {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
    assert other["id"] == "c2"
    assert message["id"] == "msg_1"
    assert message["model"] == "m"
    assert (message["stop_reason"], message["stop_sequence"]) == ("tool_use", None)
    assert message["usage"] == {
        "input_tokens": 20,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 10,
        "output_tokens": 6,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    # What comes back is what Gemini signed.
    _, answer = messages(USER, {"role": "assistant", "content": message["content"]})
    assert answer["content"] == [
        {"type": "thinking", "thinking": "Hm."} | extra("s1"),
        text("Hello") | extra("s2"),
    ]
    assert [call.get("extra_content") for call in answer["tool_calls"]] == [
        extra("s3")["extra_content"],
        None,
    ]


def test_a_signed_text_without_a_call_comes_back_signed():
    content = checked(said(form_for(), {"content": "Yes"}, extra("s")))["content"]
    assert [block["type"] for block in content] == ["text", "redacted_thinking"]
    _, answer = messages(USER, assistant(*content))
    assert answer["content"] == [text("Yes") | extra("s")]
    hidden = checked(said(form_for(Display.HIDDEN), {"content": "Yes"}, extra("s")))
    assert hidden["content"] == [text("Yes")]


PIECES = st.text('ab{}"\\\n\u00e9\U0001f600', max_size=4)
DELTAS = st.one_of(
    st.builds(lambda piece: {"content": piece}, PIECES),
    st.builds(lambda piece: {"reasoning_content": piece}, PIECES),
    st.builds(lambda piece: {"reasoning": piece}, PIECES),
)


@st.composite
def answers(draw: st.DrawFn) -> list[Json]:
    deltas: list[Json] = draw(st.lists(DELTAS, max_size=6))
    if any(delta.get("content") for delta in deltas) and draw(st.booleans()):
        deltas.append(extra("text"))
    for index in range(draw(st.integers(0, 3))):
        opening = CALL | {"index": index, "id": f"c{index}"}
        signed = extra(f"s{index}") if draw(st.booleans()) else {}
        deltas.append({"tool_calls": [opening | signed]})
        arguments = json.dumps({"k": draw(PIECES)})
        cut = draw(st.integers(0, len(arguments)))
        for piece in (arguments[:cut], arguments[cut:]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    return deltas


@given(answers(), st.sampled_from(Display), st.lists(st.integers(1, 4), max_size=5))
def test_every_cut_of_an_answer_gives_the_same_message(
    deltas: list[Json], display: Display, cuts: list[int]
):
    events = events_of(*deltas, finish="tool_calls", usage=Usage(1, 2))
    whole = form_for(display)
    expected = whole.events(events) + whole.end()
    form, pieces = form_for(display), []
    rest = list(events)
    for size in [*cuts, len(rest)]:
        pieces.append(form.events(rest[:size]))
        rest = rest[size:]
    assert b"".join(pieces) + form.end() == expected
    message = checked(parsed(expected))
    told = {
        field: "".join(str(delta.get(field, "")) for delta in deltas)
        for field in ("content", "reasoning_content", "reasoning")
    }
    blocks = message["content"]
    assert "".join(b["text"] for b in blocks if b["type"] == "text") == told["content"]
    calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    assert calls == [f"c{number}" for number in range(len(calls))]
    if display is Display.HIDDEN:
        assert {block["type"] for block in blocks} <= {"text", "tool_use"}
    # The same answer as a document has the same texts and calls, in one block each.
    collector = CompletionCollector()
    for event in events:
        collector.add(event.data)
    document = form_for(display).document(collector.completion())
    assert_all_known(document, Message.model_validate(document, strict=False))
    assert document["usage"] == message["usage"]
    assert document["stop_reason"] == message["stop_reason"]
    for kind in ("text", "tool_use"):
        one, other = (
            [b for b in all_ if b["type"] == kind] for all_ in (blocks, document["content"])
        )
        if kind == "text":
            assert "".join(b["text"] for b in one) == "".join(b["text"] for b in other)
        else:
            assert one == other
    # And both come back with every signature.
    for content in (blocks, document["content"]):
        if display is not Display.HIDDEN and content:
            back = messages(USER, {"role": "assistant", "content": content})[1:]
            signed = dumps(back).decode().count("thought_signature")
            sent = dumps(deltas).decode().count("thought_signature")
            assert signed == sent


@pytest.mark.parametrize(
    ("finish", "deltas", "reason"),
    [
        ("stop", [{"content": "a"}], "end_turn"),
        ("stop", [{"tool_calls": [CALL]}], "tool_use"),
        ("length", [{"tool_calls": [CALL]}], "max_tokens"),
        ("length", [], "max_tokens"),
        ("content_filter", [{"content": "a"}], "refusal"),
        ("stop", [{"refusal": "No."}], "refusal"),
        ("new", [{"content": "a"}], "end_turn"),
    ],
)
def test_why_an_answer_ended(finish: str, deltas: list[Json], reason: str):
    message = checked(said(form_for(), *deltas, finish=finish))
    assert message["stop_reason"] == reason
    assert ("stop_details" in message) is (reason == "refusal")
    if deltas and "refusal" in deltas[0]:
        assert message["stop_details"]["explanation"] == "No."


def test_the_stop_sequence_is_named():
    form = form_for()
    chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]}
    message = checked(
        parsed(form.events([*events_of({"content": "a"})[:-1], Event.of(chunk)]) + form.end())
    )
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")


def test_a_heartbeat_is_a_ping_after_the_start_of_the_message():
    form = form_for()
    stream = parsed(
        form.heartbeat("waiting")
        + form.heartbeat("x")
        + form.events(events_of({"content": "a"}))
        + form.end()
    )
    assert [each["type"] for each in stream[:3]] == ["message_start", "ping", "ping"]
    assert checked(stream)["content"] == [text("a")]


def test_nothing_is_written_of_what_is_not_shown():
    form = form_for(Display.HIDDEN)
    assert form.events(events_of({"reasoning_content": "Hm."})[:2]) == b""
    assert b"message_start" in form.events(events_of({"content": "a"}))


def test_an_error_in_a_stream_is_its_last_event():
    form = form_for()
    begun = form.events(events_of({"content": "a"})[:2])
    *_, last = parsed(begun + form.failure(overloaded("Busy.", 5)))
    assert last == {"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}
    told = form_for()
    stream = parsed(told.events([Event.of({"error": {"message": "x"}})]) + told.end())
    assert stream[-1]["error"] == {"type": "api_error", "message": "x"}


def test_parallel_calls_of_one_index_and_late_arguments_are_kept_apart():
    other = CALL | {"id": "c2"}
    message = checked(
        said(form_for(), *({"tool_calls": [one]} for one in (CALL, ARGUMENTS, other, ARGUMENTS)))
    )
    assert [(b["id"], b["input"]) for b in message["content"]] == [
        ("c1", {"a": 1}),
        ("c2", {"a": 1}),
    ]
    # Nobody is known to mix them, but nothing forbids it.
    second = CALL | {"index": 1, "id": "c2"}
    mixed = (CALL, second, ARGUMENTS, ARGUMENTS | {"index": 1})
    message = checked(said(form_for(), *({"tool_calls": [one]} for one in mixed)))
    assert [(b["id"], b["input"]) for b in message["content"]] == [
        ("c1", {"a": 1}),
        ("c2", {"a": 1}),
    ]


def test_sources_are_citations_and_what_a_search_found():
    cited = {"type": "url_citation", "url_citation": {"url": "https://x", "title": "X"}}
    deltas = ({"content": "a"}, {"annotations": [cited, cited]})
    plain = checked(said(form_for(), *deltas))
    assert [each["url"] for each in plain["content"][0]["citations"]] == ["https://x"] * 2
    searched = checked(said(form_for(searches=True), *deltas))
    assert [block["type"] for block in searched["content"]] == [
        "text", "server_tool_use", "web_search_tool_result",
    ]  # fmt: skip
    [found] = searched["content"][2]["content"]
    assert (found["url"], found["title"]) == ("https://x", "X")
    assert searched["stop_reason"] == "end_turn"


def test_pictures_and_sound_are_told_of():
    url = f"data:image/png;base64,{PNG}"
    picture = {"images": [{"type": "image_url", "image_url": {"url": url}}]}
    message = checked(said(form_for(), {"content": "See: "}, picture, {"audio": {"data": "AA=="}}))
    [block] = message["content"]
    assert block["text"].startswith("See: [A picture (image/png, 9 bytes)")
    assert PNG not in block["text"]


def test_other_servers_parts_and_messages():
    parts = [{"type": "thinking", "thinking": [text("Hm.")]}, text("a"), "b"]
    message = checked(said(form_for(), {"content": parts}))
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert message["content"][1]["text"] == "ab"
    form = form_for()
    whole = {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}
    junk = [
        Event(b"junk"),
        Event(b"5"),
        Event.of({"choices": 5}),
        Event.of({"choices": [{"index": 1}]}),
    ]
    stream = parsed(form.events([*junk, Event.of(whole)]) + form.end())
    assert checked(stream)["content"] == [text("a")]


def test_halves_of_a_character_are_joined_by_whoever_reads_them():
    form = form_for()
    data = form.events(events_of({"content": "\ud83d"}, {"content": "\ude00"})) + form.end()
    assert rb'"text":"\ud83d"' in data
    document = form_for().document({"choices": [{"message": {"content": "\ud83d\ude00"}}]})
    assert document["content"][0]["text"] == "\U0001f600"


# Errors, counts and models


@pytest.mark.parametrize(
    ("status", "sent", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 401, "authentication_error"),
        (402, 402, "billing_error"),
        (403, 403, "permission_error"),
        (404, 404, "not_found_error"),
        (405, 405, "invalid_request_error"),
        (413, 413, "request_too_large"),
        (429, 429, "rate_limit_error"),
        (500, 500, "api_error"),
        (502, 502, "api_error"),
        (503, 529, "overloaded_error"),
        (504, 504, "timeout_error"),
    ],
)
def test_errors(status: int, sent: int, kind: str):
    response = MESSAGES.error(ChatError(status, "x", "Well."))
    assert response.status == sent
    assert json.loads(response.body) == {
        "type": "error",
        "error": {"type": kind, "message": "Well."},
    }


def test_a_prompt_that_is_too_long_is_said_as_anthropic_says_it():
    error = bad_request("The conversation is too long.", "messages", "context_length_exceeded")
    told = json.loads(MESSAGES.error(error).body)["error"]["message"]
    assert told == "prompt is too long: The conversation is too long."


def test_the_dialect_owns_its_paths():
    paths = [b"/v1/messages", b"/v1/messages/count_tokens", b"/v1/messages/batches"]
    assert all(map(MESSAGES.owns, paths))
    assert not any(map(MESSAGES.owns, [b"/v1/messagesx", b"/v1/models"]))
    assert_all_known(
        MESSAGES_COUNTING.document(5), MessageTokensCount.model_validate({"input_tokens": 5})
    )


def model(name: str, **more: Any) -> Json:
    return {"id": name, "object": "model", "created": 86400, "owned_by": "google"} | more


def test_a_model():
    one = MESSAGES_MODELS.one(model("g", display_name="G", context_length=10, output_token_limit=5))
    assert one == {
        "type": "model",
        "id": "g",
        "display_name": "G",
        "created_at": "1970-01-02T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 10,
        "max_tokens": 5,
    }
    assert_all_known(one, ModelInfo.model_validate(one))
    assert MESSAGES_MODELS.one(model("g", created="x"))["created_at"] == "1970-01-01T00:00:00Z"


def test_pages_of_models():
    models = [model(f"m{number}") for number in range(25)]

    def page(**query: str) -> tuple[list[str], bool]:
        asked = {name.encode(): [value.encode()] for name, value in query.items()}
        listed = MESSAGES_MODELS.listed(models, asked)
        ids = [each["id"] for each in listed["data"]]
        assert (listed["first_id"], listed["last_id"]) == (
            (ids[0], ids[-1]) if ids else (None, None)
        )
        return ids, listed["has_more"]

    assert page() == ([f"m{number}" for number in range(20)], True)
    assert page(after_id="m19") == ([f"m{number}" for number in range(20, 25)], False)
    assert page(limit="2", before_id="m3") == (["m1", "m2"], True)
    assert page(limit="1000")[1] is False
    assert page(after_id="m24") == ([], False)
    for query in ({"limit": "0"}, {"limit": "x"}, {"limit": "1001"}, {"after_id": "nobody"}):
        with pytest.raises(ChatError) as caught:
            page(**query)
        assert caught.value.param == next(iter(query))


def test_the_header_tells_whose_list_is_wanted():
    assert models_form_for(lambda name: name == b"anthropic-version") is MESSAGES_MODELS
    assert models_form_for(lambda name: False) is None


def test_a_thread_is_refused_so_that_the_sdk_sends_the_whole_conversation():
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    with pytest.raises(ChatError) as caught:
        translated(thread=thread)
    error = json.loads(MESSAGES.error(caught.value).body)["error"]
    assert error["details"] == {"error_code": "thread_unsupported_request"}
    assert translated(thread=None)
