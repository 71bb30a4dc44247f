"""Google's own API in chat completions, and back; and passed on as it is. Pure."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.chunks import ChunkFactory, Usage
from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.errors import ChatError, bad_request, overloaded
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.request import parse_chat_request
from gemproxy.chat.sse import Event, SSEDecoder
from gemproxy.chat.stopfilter import StopTagFilter
from gemproxy.dialects.dialect import DialectRequest, Translation
from gemproxy.dialects.native.answer import ARRAY, SSE, NativeForm
from gemproxy.dialects.native.dialect import NATIVE
from gemproxy.dialects.native.models import NATIVE_MODELS
from gemproxy.dialects.registry import dialect_at, models_form_at, models_form_for
from gemproxy.dialects.seal import Seal
from gemproxy.gemini.prepare import prepare
from gemproxy.gemini.translate.errors import api_failure
from gemproxy.gemini.translate.parameters import Defaults
from gemproxy.gemini.translate.reply import NativeResponse, Reply
from gemproxy.gemini.translate.signatures import DUMMY, Signatures
from gemproxy.web.paths import model_in_path, tidy_path, with_model

Json = dict[str, Any]

HI: Json = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def translated(
    sent: Any,
    method: str = "streamGenerateContent",
    takes_google: bool = True,
    is_gemini: bool = True,
    query: bytes = b"sse",
    headers: Any = (),
) -> Translation:
    path = f"/v1beta/models/m:{method}".encode()
    raw = sent if isinstance(sent, bytes) else dumps(sent)
    asked = DialectRequest(
        path,
        raw,
        "1",
        0,
        Seal(b""),
        headers,
        {b"alt": [query]},
        is_gemini,
        takes_google=takes_google,
    )
    return pickle.loads(pickle.dumps(NATIVE.translate(asked)))  # noqa: S301 - our own


def chat(sent: Any, is_gemini: bool = False) -> Json:
    (asked,) = translated(sent, "generateContent", False, is_gemini).chats
    assert loads(asked.raw) == asked.body
    return asked.body


# Paths


@pytest.mark.parametrize(
    "path",
    [
        b"/v1beta/models/m:generateContent",
        b"/v1/models/m:countTokens",
        b"/v1alpha/models/m%3AstreamGenerateContent",
        b"/upload/v1beta/files",
        b"/v1beta/cachedContents/x",
    ],
)
def test_paths_of_google(path: bytes):
    assert dialect_at(path) is NATIVE


@pytest.mark.parametrize(
    "path",
    [b"/v1/models/m", b"/v1/models/m:free", b"/v1beta/openai/chat/completions", b"/v1/files"],
)
def test_paths_of_others(path: bytes):
    assert dialect_at(path) is not NATIVE


def test_every_way_to_write_a_path():
    for path in (b"/models/m:generateContent", b"/v1/v1/models/m:generateContent"):
        assert tidy_path(path) == b"/v1/models/m:generateContent"
    assert tidy_path(b"/v1/v1beta/models/m:x") == b"/v1beta/models/m:x"
    assert tidy_path(b"/v1beta/models/") == b"/v1beta/models"
    assert model_in_path(b"/v1alpha/models/a%2Fm:free:generateContent") == "a/m:free"
    assert with_model(b"/v1beta/models/x:countTokens", "a/b c") == (
        b"/v1beta/models/a/b%20c:countTokens"
    )


# Requests that go on as they are

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "parts", "role", "thoughtSignature", "x_y", "fileData"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
requests = st.dictionaries(
    st.sampled_from(["contents", "generationConfig", "system_instruction", "tools", "later"]),
    json_values,
)


@given(requests)
def test_google_gets_the_same_fields_and_contents(sent: Json):
    (asked,) = translated(sent).chats
    assert loads(asked.raw)["google_request"] == sent
    assert (asked.model, asked.stream) == ("m", True)
    prepared = prepare(asked, Defaults(), Signatures(), {})
    assert loads(prepared.body) == sent
    assert prepared.is_native
    # Whatever is wrong with it is for Google to say.
    prepare(asked, Defaults(), Signatures(), {}, unsigned=True)


def test_each_part_with_text_is_marked_as_in_any_conversation():
    parts = [{"text": "a"}, {"inlineData": {}}, {"text": 7}]
    sent = {"contents": [{"role": "user", "parts": parts}, {"parts": [{"text": "b"}]}]}
    (asked,) = translated(sent).chats
    assert prepare(asked, Defaults(), Signatures(), {}).texts == ("a", "", "", "b")


def test_the_key_that_made_the_last_signature_is_preferred():
    signatures = Signatures()
    signatures.remember("s1", "s1", "one")
    signatures.remember("s2", "s2", "two")
    parts = [{"text": "a", "thoughtSignature": "s1"}, {"text": "b", "thought_signature": "s2"}]
    (asked,) = translated({"contents": [{"role": "model", "parts": parts}]}).chats
    prepared = prepare(asked, Defaults(), signatures, {})
    assert (prepared.key, prepared.is_signed, prepared.needs_files) == ("two", True, False)
    unsigned = prepare(asked, Defaults(), signatures, {}, unsigned=True)
    assert (unsigned.key, unsigned.is_signed) == (None, False)
    assert loads(unsigned.body)["contents"][0]["parts"][0]["thoughtSignature"] == DUMMY


UPLOADED = "https://generativelanguage.googleapis.com/v1beta/files/abc-1"


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"cachedContent": "c"}, True),
        ({"cached_content": "c"}, True),
        ({"contents": [{"parts": [{"fileData": {"fileUri": UPLOADED}}]}]}, True),
        ({"contents": [{"parts": [{"file_data": {"file_uri": "files/a"}}]}]}, True),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "https://youtu.be/x"}}]}]}, False),
        ({"contents": [{"parts": [{"fileData": "files/a"}, {"fileData": {}}]}]}, False),
    ],
)
def test_files_and_caches_need_the_key_that_has_them(fields: Json, needed: bool):
    (asked,) = translated(HI | fields).chats
    assert prepare(asked, Defaults(), Signatures(), {}).needs_files is needed


@pytest.mark.parametrize(("file", "needed"), [("files/a", True), ("https://youtu.be/x", False)])
def test_a_file_in_a_chat_needs_its_key_as_well(file: str, needed: bool):
    part = {"type": "file", "file": {"file_id": file}}
    fields = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    asked = parse_chat_request(dumps(fields))
    assert prepare(asked, Defaults(), Signatures(), {}).needs_files is needed


def test_what_is_no_object_is_refused():
    for raw in (b"[]", b"{", b'"x"'):
        with pytest.raises(ChatError, match="Invalid JSON payload"):
            translated(raw)


def test_a_key_of_googles_kind_is_sent_as_others_expect_it():
    headers = ((b"X-Goog-Api-Key", b"k"), (b"x", b"y"))
    (asked,) = translated(HI, headers=headers).chats
    assert asked.headers == ((b"x", b"y"), (b"Authorization", b"Bearer k"))
    headers += ((b"authorization", b"Bearer other"),)
    assert translated(HI, headers=headers).chats[0].headers == headers


# Answers that come back as they are


def response(*parts: Json, **more: Any) -> Json:
    content = {"parts": list(parts), "role": "model"} if parts else {"role": "model"}
    return {"candidates": [{"content": content, "index": 0} | more], "responseId": "r"}


ANSWER = [
    response({"text": "Hm.", "thought": True}),
    response({"text": "Hel"}),
    response({"text": "lo <st", "x": 1}),
    response({"text": "op> more"}, {"executableCode": {"code": "1"}}),
    response({"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"}),
    response(finishReason="STOP", groundingMetadata={"a": 1.5}) | {"usageMetadata": {"x": 2}},
]


def chunks(responses: list[Json]) -> list[Event]:
    """What the engine makes of the responses of Google's stream."""
    seen: list[NativeResponse] = []
    reply = Reply(native=seen.append)
    for each in responses:
        reply.feed(b"data: %b\r\n\r\n" % dumps(each))
    make = ChunkFactory("id", 1, "m")
    events = [make.delta({"role": "assistant", "content": ""})]
    for news in seen:
        delta: Json = {"content": news.text} if news.text else {}
        events.append(make.delta(delta | {"google_responses": [news.response]}))
    events.append(make.delta({"tool_calls": [{"index": 0, "id": "c"}]}))
    return [*events, make.delta({}, "stop"), make.usage(Usage(1, 2))]


def streamed(events: list[Event], framing: Any = SSE) -> list[Json]:
    form = NativeForm("id", "m", framing, stream=True)
    data = form.heartbeat("")
    for event in events:
        data += form.events([event]) + form.heartbeat("")
    data += form.end()
    if framing is ARRAY:
        return loads(data)
    decoder = SSEDecoder()
    return [event.json() for event in [*decoder.feed(data), *decoder.close()]]


@pytest.mark.parametrize("framing", [SSE, ARRAY])
def test_what_google_said_comes_back_as_it_was(framing: Any):
    assert streamed(chunks(ANSWER), framing) == ANSWER


def test_a_stop_tag_ends_what_google_said():
    stop_filter = StopTagFilter(("<stop>",), 1)
    events = []
    for event in chunks(ANSWER):
        events += stop_filter.feed(event)
        if stop_filter.ended:
            break
    answer = streamed(events + stop_filter.flush())
    texts = [part.get("text", "") for each in answer for part in parts_of(each)]
    assert "".join(texts) == "Hm.Hello "
    assert answer[-1]["candidates"][0]["finishReason"] == "STOP"
    assert answer[:2] == ANSWER[:2]


def parts_of(answer: Json) -> list[Json]:
    return [
        part
        for candidate in answer["candidates"]
        for part in candidate.get("content", {}).get("parts", ())
    ]


@given(st.lists(st.sampled_from(["a", "<", "<st", "op>", "<stop>b", ""]), min_size=1, max_size=8))
def test_a_text_is_never_lost_or_doubled_wherever_a_tag_is_suspected(texts: list[str]):
    stop_filter = StopTagFilter(("<stop>",), 1)
    given = [response({"text": text}) for text in texts] + [response(finishReason="STOP")]
    events = [out for event in chunks(given) for out in stop_filter.feed(event)]
    answer = streamed(events + stop_filter.flush())
    said = "".join(part["text"] for each in answer for part in parts_of(each))
    assert said == "".join(texts).partition("<stop>")[0]


def document(events: list[Event]) -> Json:
    collector = CompletionCollector()
    for event in events:
        collector.add(event.data)
    return NativeForm("id", "m", SSE, stream=False).document(collector.completion())


def test_a_document_is_the_whole_stream():
    assert document(chunks(ANSWER)) == {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "Hm.", "thought": True},
                        {"text": "Hel"},
                        {"text": "lo <st", "x": 1},
                        {"text": "op> more"},
                        {"executableCode": {"code": "1"}},
                        {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"},
                    ],
                    "role": "model",
                },
                "index": 0,
                "finishReason": "STOP",
                "groundingMetadata": {"a": 1.5},
            }
        ],
        "responseId": "r",
        "usageMetadata": {"x": 2},
    }
    blocked = {"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {"x": 2}}
    assert document(chunks([blocked])).items() >= blocked.items()


def test_other_candidates_are_passed_on_and_not_read():
    two = response({"text": "a"})
    other = response({"text": "b"})
    other["candidates"][0]["index"] = 1
    events = chunks([two, other])
    assert "".join(e.json()["choices"][0]["delta"].get("content") or "" for e in events[:-2]) == "a"
    whole = document(events)
    assert [each["content"]["parts"] for each in whole["candidates"]] == [
        [{"text": "a"}],
        [{"text": "b"}],
    ]


# For others: requests


def test_a_request_of_all_that_has_a_counterpart():
    schema = {"type": "OBJECT", "properties": {"n": {"type": "STRING", "nullable": True}}}
    sent = HI | {
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "max_output_tokens": 9,
            "candidateCount": 2,
            "stopSequences": ["x"],
            "responseMimeType": "application/json",
            "responseSchema": schema,
            "thinkingConfig": {"thinkingBudget": 2000},
            "speechConfig": {"a": 1},
        },
        "tools": [
            {"functionDeclarations": [{"name": "f", "description": "d", "parameters": schema}]},
            {"googleSearch": {}},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "safetySettings": [{"a": 1}],
    }
    converted = {"type": "object", "properties": {"n": {"type": ["string", "null"]}}}
    assert chat(sent) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 9,
        "n": 2,
        "stop": ["x"],
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "d", "parameters": converted},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": converted},
        },
        "reasoning_effort": "medium",
    }
    form = translated(sent, takes_google=False, is_gemini=False).form
    assert set(form.ignored) == {"tools.googleSearch", "safetySettings", "speechConfig"}


def test_a_history_of_calls_pictures_and_thoughts():
    sent = {
        "contents": [
            {"parts": [{"text": "See"}, {"inlineData": {"mimeType": "image/png", "data": "eA=="}}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {"text": "Well"},
                    {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "s"},
                    {"functionCall": {"name": "f", "args": {}, "id": "own"}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "f", "response": {"output": "x"}}},
                    {"functionResponse": {"name": "f", "id": "own", "response": {"y": 1}}},
                    {"text": "And?"},
                ],
            },
        ]
    }
    seen, answer, first, second, rest = chat(sent)["messages"]
    assert seen["content"][1] == {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,eA=="},
    }
    assert (answer["content"], answer["reasoning_content"]) == ("Well", "Hm.")
    assert [call["id"] for call in answer["tool_calls"]] == ["call_1", "own"]
    assert answer["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    google = answer["tool_calls"][0]["extra_content"]["google"]
    assert google == {"thought_signature": "s"}
    assert (first["tool_call_id"], first["content"]) == ("call_1", "x")
    assert (second["tool_call_id"], second["content"]) == ("own", '{"y":1}')
    assert rest == {"role": "user", "content": "And?"}


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        ({}, "contents"),
        ({"contents": [1]}, "contents[0]"),
        ({"contents": [{"parts": "x"}]}, "contents[0].parts"),
        ({"contents": [{"role": "bot", "parts": []}]}, "contents[0].role"),
    ],
)
def test_what_cannot_be_understood_is_named(sent: Json, where: str):
    with pytest.raises(ChatError) as refused:
        chat(sent)
    assert refused.value.param == where


# For others: answers


def test_a_chat_completion_as_a_stream():
    make = ChunkFactory("id", 1, "m")
    call = {"id": "c", "function": {"name": "f", "arguments": '{"a"'}, "index": 0}
    events = [
        make.delta({"role": "assistant", "content": ""}),
        make.delta({"reasoning_content": "Hm."}),
        make.delta({"content": "Well"}),
        make.delta({"role": "assistant", "content": ""}),
        make.delta({"tool_calls": [call]}),
        make.delta({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        make.delta({}, "tool_calls"),
        make.usage(Usage(5, 7, reasoning=3)),
    ]
    answer = streamed(events)
    for each in answer:
        types.GenerateContentResponse.model_validate(each)
    assert [parts_of(each) for each in answer] == [
        [{"text": "Hm.", "thought": True}],
        [{"text": "Well"}],
        [{"functionCall": {"name": "f", "args": {"a": 1}, "id": "c"}}],
    ]
    assert answer[-1]["candidates"][0]["finishReason"] == "STOP"
    assert answer[-1]["usageMetadata"] == {
        "promptTokenCount": 5,
        "candidatesTokenCount": 4,
        "totalTokenCount": 12,
        "thoughtsTokenCount": 3,
    }
    whole = document(events)
    assert parts_of(whole) == [part for each in answer for part in parts_of(each)]
    assert (whole["modelVersion"], whole["responseId"]) == ("m", "id")


@given(st.text(max_size=5), st.sampled_from([SSE, ARRAY]))
def test_the_short_way_of_a_text_is_that_of_all_others(text: str, framing: Any):
    make = ChunkFactory("id", 1, "m")
    short = streamed([make.delta({"content": text})], framing)
    assert short == streamed([make.delta({"content": text, "refusal": None})], framing)


# Errors


def test_errors_of_google_are_its_own():
    error = {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT", "details": [{"a": 1}]}
    failed = api_failure(400, dumps({"error": error})).error
    assert loads(NATIVE.error(failed).body) == {"error": error}
    masked = failed.masked(lambda text: text.replace(b"No", b"[secret]"))
    assert loads(NATIVE.error(masked).body)["error"]["message"] == "[secret]."


def test_a_refused_key_of_ours_is_not_told_as_the_clients():
    error = {"code": 400, "message": "API key not valid. Please pass a valid API key."}
    answer = NATIVE.error(api_failure(400, dumps({"error": error})).error)
    assert (answer.status, loads(answer.body)["error"]["status"]) == (502, "UNAVAILABLE")


def test_other_errors_have_its_words():
    told = loads(NATIVE.error(overloaded("Later.", 5)).body)["error"]
    assert (told["code"], told["status"]) == (503, "UNAVAILABLE")
    assert told["details"][-1] == {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "5s",
    }
    told = loads(NATIVE.error(bad_request("No.", "contents")).body)["error"]
    assert told["details"][0]["fieldViolations"] == [{"field": "contents", "description": "No."}]


@pytest.mark.parametrize("framing", [SSE, ARRAY])
def test_an_error_in_a_stream_is_its_last_word(framing: Any):
    form = NativeForm("id", "m", framing, stream=True)
    data = form.events(chunks(ANSWER)[:3]) + form.failure(overloaded("Later.", 5)) + form.end()
    last = loads(data)[-1] if framing is ARRAY else SSEDecoder().feed(data)[-1].json()
    assert last["error"]["status"] == "UNAVAILABLE"
    assert loads(form.error(bad_request("No.")).body)[0:1] if framing is ARRAY else True


# Models


def test_lists_have_googles_shape_for_those_who_show_its_header():
    google = {"name": "models/a", "thinking": True}
    models: list[Json] = [{"id": "a", "google": google}, {"id": "b", "context_length": 5}]
    assert models_form_for(lambda name: name == b"x-goog-api-key") is NATIVE_MODELS
    assert models_form_at(b"/v1beta/models") is NATIVE_MODELS
    page = NATIVE_MODELS.listed(models, {b"pageSize": [b"1"]})
    assert page["models"][0].items() >= google.items()
    more = NATIVE_MODELS.listed(models, {b"pageToken": [page["nextPageToken"].encode()]})
    assert [(each["name"], each["inputTokenLimit"]) for each in more["models"]] == [("models/b", 5)]
    assert "nextPageToken" not in more
    for query in ({b"pageSize": [b"x"]}, {b"pageToken": [b"nowhere"]}):
        with pytest.raises(ChatError):
            NATIVE_MODELS.listed(models, query)
