"""The Responses dialect: its requests in chat completions, and chunks in its events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from gemproxy.chat.chunks import text_alone
from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.sse import Event, SSEDecoder
from gemproxy.dialects.dialect import DialectRequest, Translation
from gemproxy.dialects.responses.dialect import RESPONSES
from gemproxy.dialects.seal import Seal
from gemproxy.gemini.translate.families import family_of
from gemproxy.gemini.translate.messages import translate_messages
from gemproxy.gemini.translate.signatures import Signatures
from tests.tables import each

Json = dict[str, Any]

SEAL = Seal(b"secret")
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
INCLUDE = ["reasoning.encrypted_content"]
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 5,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def translated(has_hosted_tools: bool = True, **body: Any) -> Translation:
    raw = dumps({"model": "m", "input": "Hi"} | body)
    request = DialectRequest(
        b"/v1/responses", raw, "1", 1700000000, SEAL, has_hosted_tools=has_hosted_tools
    )
    return RESPONSES.translate(request)


def chat_of(**body: Any) -> Json:
    (chat,) = translated(**body).chats
    return chat.body


def chunk(delta: Json, finish_reason: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def call_delta(index: int = 0, **fields: Any) -> Json:
    return {"tool_calls": [{"index": index} | fields]}


def opened(id: str, name: str, signature: str | None = None, index: int = 0) -> Json:
    extra = {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}
    function = {"name": name, "arguments": ""}
    return call_delta(index, id=id, type="function", function=function, **extra)


def assert_known(value: Any) -> None:
    """The SDK's types have every field, and none would be dropped without notice."""
    if isinstance(value, BaseModel):
        assert not value.model_extra, (type(value).__name__, value.model_extra)
        for name in type(value).model_fields:
            assert_known(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            assert_known(item)


def streamed(translation: Translation, *chunks: Json) -> list[Json]:
    """The events of a stream, each checked by the SDK's own types."""
    form = translation.form
    # Backends say which chunks have a text alone.
    events = [Event(dumps(one, keep_halves=True), text=text_alone(one)) for one in chunks]
    data = b"".join(form.events([event]) for event in events) + form.end()
    return read_events(data)


def read_events(data: bytes) -> list[Json]:
    decoder = SSEDecoder()
    events = [*decoder.feed(data), *decoder.close()]
    read = [event.json() for event in events]
    assert [event.name.decode() for event in events] == [one["type"] for one in read]
    assert [one["sequence_number"] for one in read] == [*range(len(read))]
    for one in read:
        assert_known(EVENTS.validate_python(one))
    return read


def document(translation: Translation, *chunks: Json) -> Json:
    collector = CompletionCollector()
    for one in chunks:
        collector.add(dumps(one))
    response = translation.form.document(collector.completion())
    assert_known(Response.model_validate(response))
    return dict(response)


def kinds(events: list[Json]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


# Requests.


def test_a_text_is_a_message_and_settings_have_the_names_of_chat():
    body = chat_of(
        instructions="Be brief.",
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}},
        metadata={"a": "b"},
        store=True,
        truncation="auto",
        client_metadata={"x": 1},
        include=INCLUDE,
        prompt_cache_key="k",
        google={"cached_content": "c"},
    )
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True},
        },
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "google": {"cached_content": "c"},
    }


def test_items_become_messages():
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,"}
    messages = chat_of(
        input=[
            {"role": "developer", "content": "d"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "v"}, image, file]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "t"}]},
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [{"type": "output_text", "text": "a", "annotations": []}],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "x\ny"},
            {"type": "function_call_output", "call_id": "c1", "output": "done"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [image]},
            {"type": "item_reference", "id": "rs_2"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        ]
    )["messages"]
    picture = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"},
    }
    assert messages == [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "v"},
                picture,
                {
                    "type": "file",
                    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": "a",
            "reasoning_content": "t",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {
                    "id": "c2",
                    "type": "function",
                    "function": {"name": "g", "arguments": '{"input":"x\\ny"}'},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"role": "tool", "tool_call_id": "c2", "content": [picture]},
    ]


def test_tools_are_flattened_hosted_ones_are_mapped_and_others_named():
    tools = [
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}},
        {
            "type": "custom",
            "name": "patch",
            "description": "Edits.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"},
        },
        {
            "type": "namespace",
            "name": "files",
            "description": "",
            "tools": [{"type": "function", "name": "read", "parameters": {}}],
        },
        {"type": "web_search", "filters": None},
        {"type": "web_search_preview_2025_03_11"},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "file_search", "vector_store_ids": ["v"]},
    ]
    translation = translated(tools=tools, parallel_tool_calls=False)
    (chat,) = translation.chats
    functions = [tool for tool in chat.body["tools"] if tool["type"] == "function"]
    assert [tool["function"]["name"] for tool in functions] == ["f", "patch", "files__read"]
    assert functions[0]["function"] == {
        "name": "f",
        "description": "d",
        "parameters": {"type": "object"},
    }
    assert "start: x" in functions[1]["function"]["description"]
    assert functions[1]["function"]["parameters"]["required"] == ["input"]
    others = [tool["type"] for tool in chat.body["tools"] if tool["type"] != "function"]
    assert others == ["web_search", "web_search", "code_interpreter"]
    assert translation.form.ignored == ("tools.file_search",)
    assert chat.body["parallel_tool_calls"] is False
    translation = translated(False, tools=tools[3:], parallel_tool_calls=False)
    assert "tools" not in translation.chats[0].body
    assert "parallel_tool_calls" not in translation.chats[0].body
    assert "tools.web_search" in translation.form.ignored


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [
        ("required", "required"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        (
            {"type": "custom", "name": "read", "namespace": "files"},
            {"type": "function", "function": {"name": "files__read"}},
        ),
        ({"type": "web_search"}, None),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
            },
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
        ),
    ],
)
def test_tool_choices(choice: Any, becomes: Any):
    tools = [
        {"type": "function", "name": "f"},
        {"type": "namespace", "name": "files", "tools": [{"type": "custom", "name": "read"}]},
    ]
    assert chat_of(tools=tools, tool_choice=choice).get("tool_choice") == becomes


@each(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"type": 3}]}, "input[0].type"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [3]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "output": ""}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"tools": {}}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [{"name": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": 3}, "tool_choice"),
        ({"reasoning": "high"}, "reasoning"),
        ({"text": "json"}, "text"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"stream": 3}, "stream"),
    ],
)
def test_a_bad_request_names_its_field(body: Json, param: str):
    with pytest.raises(ChatError) as caught:
        translated(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


# Answers.


def test_the_events_of_thoughts_text_and_a_source():
    annotation = {
        "type": "url_citation",
        "url_citation": {"start_index": 0, "end_index": 2, "url": "http://a", "title": "A"},
    }
    events = streamed(
        translated(stream=True),
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "Hm."}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({"annotations": [annotation]}),
        chunk({}, "stop"),
        {"choices": [], "usage": USAGE},
    )
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    response = events[-1]["response"]
    assert response["status"] == "completed"
    assert response["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }
    reasoning, message = response["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Hm."}]
    (part,) = message["content"]
    assert part["text"] == "Hello"
    assert part["annotations"] == [
        {"type": "url_citation", "start_index": 0, "end_index": 2, "url": "http://a", "title": "A"}
    ]


def test_calls_have_the_names_of_the_client():
    tools = [
        {"type": "custom", "name": "patch"},
        {
            "type": "namespace",
            "name": "files",
            "description": "d",
            "tools": [{"type": "function", "name": "read"}],
        },
    ]
    events = streamed(
        translated(tools=tools),
        chunk(opened("c1", "files__read")),
        chunk(call_delta(0, function={"arguments": '{"a":'})),
        chunk(call_delta(0, function={"arguments": "1}"})),
        chunk(opened("c2", "patch", index=1)),
        chunk(call_delta(1, function={"arguments": '{"input":"x"}'})),
        chunk({}, "tool_calls"),
    )
    assert kinds(events)[2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "output_item.added",
        "function_call_arguments.done",
        "output_item.done",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    read, patch = events[-1]["response"]["output"]
    assert (read["name"], read["namespace"], read["arguments"]) == ("read", "files", '{"a":1}')
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", "x")
    assert (read["call_id"], patch["call_id"]) == ("c1", "c2")


@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_parallel_calls_of_one_index_or_none_are_told_apart(index: Json):
    """Google's OpenAI-compatible endpoint gives all the same; others give none."""

    def delta(id: str | None, name: str | None, arguments: str) -> Json:
        function = {"name": name, "arguments": arguments}
        return chunk({"tool_calls": [index | {"id": id, "function": function}]})

    pieces = [("c1", "f", '{"a"'), (None, None, ":1}"), ("c2", "f", "{"), ("c2", "f", "}")]
    response = streamed(translated(), *(delta(*piece) for piece in pieces))[-1]["response"]
    calls = [(call["call_id"], call["name"], call["arguments"]) for call in response["output"]]
    assert calls == [("c1", "f", '{"a":1}'), ("c2", "f", "{}")]


@pytest.mark.parametrize(
    ("finish_reason", "status", "reason"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        (None, "completed", None),
    ],
)
def test_how_a_response_ends(finish_reason: str | None, status: str, reason: str | None):
    chunks = (chunk({"content": "a"}), chunk({}, finish_reason))
    last = streamed(translated(), *chunks)[-1]
    assert last["type"] == f"response.{status}"
    details = last["response"]["incomplete_details"]
    assert details == (reason and {"reason": reason})
    assert document(translated(), *chunks) == last["response"]


def test_an_error_ends_the_items_and_the_response():
    form = translated().form
    data = form.events([Event.of(chunk({"content": "Hel"}))])
    events = read_events(
        data + form.failure(ChatError(502, "server_error", "It broke.", "rate_limit_exceeded"))
    )
    assert kinds(events)[-5:] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "error",
        "failed",
    ]
    assert events[-1]["response"]["error"] == {
        "code": "rate_limit_exceeded",
        "message": "It broke.",
    }
    form = translated().form
    assert kinds(read_events(form.failure(ChatError(500, "t", "m"))))[:2] == [
        "created",
        "in_progress",
    ]


def test_refusals_and_pictures():
    url = "data:image/webp;base64,QUJD"
    events = streamed(
        translated(),
        chunk({"images": [{"type": "image_url", "image_url": {"url": url}, "index": 0}]}),
        chunk({"refusal": "No."}),
        chunk({}, "stop"),
    )
    picture, message = events[-1]["response"]["output"]
    assert (picture["result"], picture["output_format"]) == ("QUJD", "webp")
    assert message["content"] == [{"type": "refusal", "refusal": "No."}]


def test_what_is_not_a_chunk_is_left_out():
    form = translated().form
    assert form.events([Event(b"[DONE]"), Event(b"odd"), Event(b"[1]")]) == b""


# Signatures.


def test_signatures_go_to_the_client_and_come_back():
    chunks = (
        chunk({"reasoning_content": "Hm."}),
        chunk(opened("c1", "f", "SIGNED")),
        chunk(opened("c2", "f", index=1)),
        chunk({}, "tool_calls"),
    )
    output = streamed(translated(include=INCLUDE), *chunks)[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "function_call", "function_call"]
    assert document(translated(include=INCLUDE), *chunks)["output"] == output
    (answer,) = chat_of(input=output)["messages"]
    first, second = answer["tool_calls"]
    assert first["extra_content"] == {"google": {"thought_signature": "SIGNED"}}
    assert "extra_content" not in second
    # Not asked for, not sent.
    without = streamed(translated(), *chunks)[-1]["response"]["output"]
    assert "encrypted_content" not in without[0]


def test_a_signature_of_a_text_comes_back_with_the_text():
    chunks = (
        chunk({"content": "Hi"}),
        chunk({"extra_content": {"google": {"thought_signature": "SIGNED"}}}),
        chunk({}, "stop"),
    )
    output = streamed(translated(include=INCLUDE), *chunks)[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "reasoning"]
    (answer,) = chat_of(input=output)["messages"]
    assert answer == {
        "role": "assistant",
        "content": "Hi",
        "extra_content": {"google": {"thought_signature": "SIGNED"}},
    }


def test_a_foreign_signature_is_left_out_and_named():
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAA"}
    translation = translated(input=[item, {"role": "user", "content": "Hi"}])
    assert translation.form.ignored == ("input.encrypted_content",)


# The same answer, however it comes.


PIECES = st.lists(
    st.one_of(
        st.tuples(st.just("reasoning_content"), st.text(min_size=1)),
        st.tuples(st.just("content"), st.text(min_size=1)),
        st.tuples(st.just("refusal"), st.text(min_size=1)),
    ),
    max_size=8,
)


@given(PIECES, st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=3), st.data())
def test_stream_and_document_say_the_same_at_every_split(
    pieces: list[tuple[str, str]], calls: list[tuple[str, str]], data: st.DataObject
):
    order = {"reasoning_content": 0, "content": 1, "refusal": 2}
    pieces.sort(key=lambda piece: order[piece[0]])
    chunks = [chunk({kind: text}) for kind, text in pieces]
    for index, (name, arguments) in enumerate(calls):
        chunks.append(chunk(opened(f"c{index}", name, index=index)))
        cut = data.draw(st.integers(0, len(arguments)))
        for part in (arguments[:cut], arguments[cut:]):
            chunks.append(chunk(call_delta(index, function={"arguments": part})))
    chunks += [chunk({}, "stop"), {"choices": [], "usage": USAGE}]
    events = streamed(translated(), *chunks)
    assert document(translated(), *chunks) == events[-1]["response"]
    done = {e["output_index"]: e["item"] for e in events if e["type"].endswith("item.done")}
    assert [done[index] for index in range(len(done))] == events[-1]["response"]["output"]
    deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert deltas == "".join(text for kind, text in pieces if kind == "content")


# A conversation reaches Google the same way through both dialects.

WORDS = st.text("ab \n\u00e9\U0001f600", min_size=1, max_size=6)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Json], list[Json]]:
    """The same conversation in items and in messages."""
    items: list[Json] = []
    chat: list[Json] = []
    calls = 0
    for _ in range(draw(st.integers(1, 4))):
        question = draw(WORDS)
        part = {"type": "input_text", "text": question}
        content = draw(st.sampled_from([question, [part]]))
        items.append({"role": draw(st.sampled_from(["user", "developer"])), "content": content})
        chat.append({"role": items[-1]["role"], "content": question})
        answer: Json = {"role": "assistant", "content": None}
        if draw(st.booleans()):
            answer["content"] = draw(WORDS)
            said = {"type": "output_text", "text": answer["content"], "annotations": []}
            items.append({"type": "message", "role": "assistant", "content": [said]})
            if signature := draw(st.sampled_from([None, "c2ln"])):
                answer["extra_content"] = {"google": {"thought_signature": signature}}
                sealed = SEAL.close({"text": signature})
                items.append({"type": "reasoning", "summary": [], "encrypted_content": sealed})
        results: list[Json] = []
        for _ in range(draw(st.integers(0, 2))):
            calls += 1
            id, outcome = f"c{calls}", draw(WORDS)
            arguments = dumps(draw(st.dictionaries(WORDS, WORDS, max_size=2))).decode()
            items.append(
                {"type": "function_call", "call_id": id, "name": "f", "arguments": arguments}
            )
            answer.setdefault("tool_calls", []).append(
                {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}
            )
            results.append({"role": "tool", "tool_call_id": id, "content": outcome})
        items += [
            {"type": "function_call_output", "call_id": r["tool_call_id"], "output": r["content"]}
            for r in results
        ]
        if len(answer) > 2 or answer["content"]:
            chat.append(answer)
        chat += results
    return items, chat


@given(conversations(), st.sampled_from(["gemini-2.5-flash", "gemini-3.8-flash"]))
def test_a_conversation_reaches_google_as_through_chat_completions(
    conversation: tuple[list[Json], list[Json]], model: str
):
    items, chat = conversation
    through = chat_of(input=items, instructions="Be brief.")["messages"]
    directly = [{"role": "system", "content": "Be brief."}, *chat]
    one, other = (
        translate_messages(each, family_of(model), Signatures()) for each in (through, directly)
    )
    assert one == other
