"""What clients of the Gemini Proxy see, through the real CLI."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from gemproxy.gemini.api.call import ApiCall
from gemproxy.gemini.translate.models import BUILT_IN_MODELS, FIRST_MODELS
from testing.google import scenarios
from testing.google.app import MODELS
from tests.support import Product, Reply, chat, fresh_model, until

pytestmark = pytest.mark.both_engines(quick=False)

COUNTED = {"promptTokenCount": 7, "candidatesTokenCount": 5, "thoughtsTokenCount": 3}
COUNTED_IN_OPENAI = {
    "prompt_tokens": 7,
    "completion_tokens": 8,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


def assert_error(reply: Reply, status: int, type: str, code: str | None, param: str | None) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json) == {"error"}
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert (reply.error["type"], reply.error["code"], reply.error["param"]) == (type, code, param)
    assert reply.error["message"]
    assert reply.reason == reply.error["message"][:200]


# Streaming


@ensureDeferred
async def test_a_stream_is_role_contents_finish_and_done(product: Product) -> None:
    product.api.play(scenarios.answer("Hel", "lo ", "\u00fc\U0001f600", pace=0.2))
    reply = await product.ask(chat("Hi", stream=True))
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    *chunks, done = reply.data
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo "},
        {"content": "\u00fc\U0001f600"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * 4 + ["stop"]
    assert {c["choices"][0]["index"] for c in chunks} == {0}
    assert not any("usage" in chunk for chunk in chunks)


@ensureDeferred
async def test_the_chunks_of_a_stream_share_id_time_and_model(product: Product) -> None:
    before = int(time.time())
    replies = [await product.ask(chat("Hi", stream=True)) for _ in range(2)]
    heads = [{(c["id"], c["created"], c["model"]) for c in r.data[:-1]} for r in replies]
    assert all(len(head) == 1 for head in heads)
    (first, created, model), (second, _, _) = heads[0].pop(), heads[1].pop()
    assert first != second
    assert first.startswith("chatcmpl-")
    assert before <= created <= time.time()
    assert model == "gemini-2.5-flash"
    assert {c["object"] for c in replies[0].data[:-1]} == {"chat.completion.chunk"}


@ensureDeferred
async def test_usage_is_in_the_last_chunk_on_request(product: Product) -> None:
    product.api.play(scenarios.answer("Hello", usage=COUNTED))
    reply = await product.ask(chat("Hi", stream=True, stream_options={"include_usage": True}))
    *_, finish, usage, done = reply.data
    assert done == "[DONE]"
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"] == COUNTED_IN_OPENAI


@ensureDeferred
async def test_a_piece_reaches_the_client_before_the_next_one_exists(product: Product) -> None:
    product.api.play(scenarios.hang("One", " two", after=1))
    client = await product.begin(chat("Hi", stream=True))
    await client.until_received(b'"One"')
    assert client.text_so_far() == "One"


@ensureDeferred
async def test_thoughts_stream_as_reasoning_content(product: Product) -> None:
    product.api.play(scenarios.thinking(["Hm. ", "So."], "Yes"))
    reply = await product.ask(chat("Hi", stream=True))
    deltas = [c["choices"][0]["delta"] for c in reply.data[:-1]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm. "},
        {"reasoning_content": "So."},
        {"content": "Yes"},
        {},
    ]


@ensureDeferred
async def test_an_answer_of_many_megabytes_streams_whole(product: Product) -> None:
    pieces = [f"{number:07}" * 10_000 for number in range(60)]
    product.api.play(scenarios.answer(*pieces))
    assert (await product.ask(chat("Hi", stream=True))).content == "".join(pieces)


@ensureDeferred
async def test_a_client_that_reads_slowly_slows_the_api_down_and_gets_everything(
    product: Product,
) -> None:
    pieces = [f"{number:07}" * 10_000 for number in range(200)]
    product.api.play(scenarios.answer(*pieces))
    client = await product.begin(chat("Hi", stream=True))
    await client.until_received(b"0000000")
    client.transport.pauseProducing()
    asked = await product.until_asked()
    flow = [e for e in gc.get_objects() if isinstance(e, ApiCall) and not e.aborted]
    await until(lambda: any(e._held_up for e in flow), "the API is paused")
    assert asked.closed is None
    client.transport.resumeProducing()
    assert (await client.reply()).content == "".join(pieces)


# Not streaming


@ensureDeferred
async def test_a_client_that_does_not_stream_gets_one_completion(product: Product) -> None:
    product.api.play(scenarios.answer("Hel", "lo", usage=COUNTED))
    reply = await product.ask(chat("Hi"))
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["content-length"]) == len(reply.body)
    answer = reply.json
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "gemini-2.5-flash"
    assert abs(answer["created"] - time.time()) < 60
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "Hello"
    assert answer["usage"] == COUNTED_IN_OPENAI


@ensureDeferred
async def test_thoughts_are_a_field_of_the_message(product: Product) -> None:
    product.api.play(scenarios.thinking(["Hm. ", "So."], "Yes"))
    message = (await product.ask(chat("Hi"))).json["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Yes", "Hm. So.")


@pytest.mark.parametrize(
    "text",
    ["/help", "429 quota exceeded", "data: [DONE]\n\n", " ", "\n", "a\u2028\u2029\r\n\0\x1b"],
)
@ensureDeferred
async def test_an_answer_arrives_as_the_model_gave_it(product: Product, text: str) -> None:
    for stream in (False, True):
        product.api.play(scenarios.answer(text))
        assert (await product.ask(chat("Hi", stream=stream))).content == text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("play", "reason", "content"),
    [
        (scenarios.answer("cut off", finish_reason="MAX_TOKENS"), "length", "cut off"),
        (scenarios.empty(finish_reason="MAX_TOKENS"), "length", ""),
        (scenarios.answer("I will", finish_reason="SAFETY"), "content_filter", "I will"),
        (scenarios.empty(finish_reason="SAFETY"), "content_filter", ""),
        (scenarios.empty(finish_reason="PROHIBITED_CONTENT"), "content_filter", ""),
        (scenarios.answer("As it", finish_reason="RECITATION"), "content_filter", "As it"),
        (scenarios.blocked(), "content_filter", ""),
    ],
)
@ensureDeferred
async def test_the_finish_reason_is_the_model_s(
    product: Product, play: scenarios.Scenario, reason: str, content: str, stream: bool
) -> None:
    product.api.play(play)
    reply = await product.ask(chat("Hi", stream=stream))
    assert reply.status == 200
    assert reply.content == content
    choice = (reply.data[-2] if stream else reply.json)["choices"][0]
    assert choice["finish_reason"] == reason
    assert len(product.asked) == 1


# Models and health


@ensureDeferred
async def test_the_models_on_offer_are_listed(product: Product) -> None:
    reply = await product.get("/v1/models")
    assert reply.status == 200
    assert reply.json["object"] == "list"
    assert {model["id"] for model in reply.json["data"]} == set(MODELS)
    assert {model["object"] for model in reply.json["data"]} == {"model"}
    assert all({"created", "owned_by"} <= set(model) for model in reply.json["data"])


@pytest.mark.parametrize("name", ["gemini-2.5-pro", "gemini-9.9_new-x"])
@ensureDeferred
async def test_a_model_is_described(product: Product, name: str) -> None:
    reply = await product.get(f"/v1/models/{name}")
    assert reply.status == 200
    assert (reply.json["id"], reply.json["object"]) == (name, "model")


@pytest.mark.parametrize("name", ["gpt-4o", "gemma-3", "..."])
@ensureDeferred
async def test_a_model_of_others_is_not_found(product: Product, name: str) -> None:
    asked = await product.ask(chat(model=name))
    assert_error(asked, 404, "invalid_request_error", "model_not_found", "model")
    described = await product.get(f"/v1/models/{name}")
    assert_error(described, 404, "invalid_request_error", "model_not_found", "model")
    assert not product.asked


@pytest.mark.parametrize(
    "name",
    ["gemini-2.5 pro", "gemini-\u00e9", "gemini-2.5\n-pro", "gemini-x/", "gemini-a:b", " "],
)
@ensureDeferred
async def test_a_malformed_model_name_is_a_bad_request(product: Product, name: str) -> None:
    reply = await product.ask(chat(model=name))
    assert_error(reply, 400, "invalid_request_error", None, "model")
    assert not product.asked


# As of its version 0.61.0.
RENAMED_BY_THE_CLI = ["gemini-3.5-flash", "gemini-3-flash"]


@pytest.mark.parametrize(
    "name", [*FIRST_MODELS, *BUILT_IN_MODELS, *RENAMED_BY_THE_CLI, "gemini-9.9_new-x"]
)
@ensureDeferred
async def test_the_api_gets_the_model_that_was_requested(product: Product, name: str) -> None:
    reply = await product.ask(chat(model=name))
    assert reply.status == 200
    assert reply.json["model"] == name
    assert product.asked[0].model == name


@pytest.mark.of_workers
@ensureDeferred
async def test_health_is_ok_while_a_worker_is_warm(product: Product) -> None:
    reply = await product.get("/health")
    assert (reply.status, reply.json["status"]) == (200, "ok")


# Paths and methods


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/chat/completions",
        "/v1//chat/completions",
        "//v1/chat//completions/",
        "/v1/v1/chat/completions",
        "/v1/chat/completions?api-version=1",
    ],
)
@ensureDeferred
async def test_sloppy_paths_lead_to_chat_completions(product: Product, path: str) -> None:
    reply = await (await product.send("POST", path, chat())).reply()
    assert reply.status == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", "/models", "//models", "/v1//models", "/v1/models/", "/v1/v1/models"]
)
@ensureDeferred
async def test_sloppy_paths_lead_to_the_models(product: Product, path: str) -> None:
    assert len((await product.get(path)).json["data"]) == len(MODELS)


@pytest.mark.parametrize("path", ["/models/gemini-2.5-pro", "/v1//models//gemini-2.5-pro"])
@ensureDeferred
async def test_sloppy_paths_lead_to_one_model(product: Product, path: str) -> None:
    assert (await product.get(path)).json["id"] == "gemini-2.5-pro"


@pytest.mark.parametrize("path", ["/health", "//health", "/health/"])
@ensureDeferred
async def test_sloppy_paths_lead_to_health(product: Product, path: str) -> None:
    assert (await product.get(path)).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/moderations", "/v2/models", "/etc/passwd", "/%0d%0aX"]
)
@ensureDeferred
async def test_an_unknown_path_is_not_found(product: Product, path: str) -> None:
    reply = await product.get(path)
    assert reply.status == 404
    assert (reply.error["type"], reply.error["code"]) == ("invalid_request_error", "unknown_url")
    assert "x" not in reply.headers


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/gemini-2.5-pro", "GET"),
        ("POST", "/health", "GET"),
    ],
)
@ensureDeferred
async def test_a_wrong_method_is_refused(
    product: Product, method: str, path: str, allowed: str
) -> None:
    reply = await product.get(path, method)
    assert_error(reply, 405, "invalid_request_error", None, None)
    assert allowed in reply.headers["allow"]


@ensureDeferred
async def test_a_connection_serves_one_request_after_the_other(product: Product) -> None:
    client = await product.begin(chat("Hi"))
    first = await client.reply()
    client.received.clear()
    client.send("POST", "/v1/chat/completions", chat("Hi", stream=True))
    second = await client.reply()
    assert (first.status, second.status) == (200, 200)
    assert first.content == second.content


# Requests that are refused


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"model": NaN}', b"[" * 100_000, b'"text"', b"[]", b"null"]
)
@ensureDeferred
async def test_a_body_that_is_no_json_object_is_a_bad_request(
    product: Product, body: bytes
) -> None:
    assert_error(await product.ask(body), 400, "invalid_request_error", None, None)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in chat().items() if key != name}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (without("model"), "model"),
        (chat(model=""), "model"),
        (chat(model=5), "model"),
        (without("messages"), "messages"),
        (chat(messages=[]), "messages"),
        (chat(messages="Hi"), "messages"),
        (chat(messages=[{"role": "user", "content": ""}]), "messages"),
        (chat("Hi", {"role": "robot", "content": "x"}), "messages[1].role"),
        (chat("Hi", {"content": "x"}), "messages[1].role"),
        (chat(messages=["Hi"]), "messages[0]"),
        (chat({"role": "user", "content": 5}), "messages[0].content"),
        (chat({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0].text"),
        (chat({"role": "user", "content": ["Hi"]}), "messages[0].content[0]"),
        (chat(stream="yes"), "stream"),
        (chat(stream=True, stream_options=[]), "stream_options"),
        (
            chat(stream=True, stream_options={"include_usage": "x"}),
            "stream_options.include_usage",
        ),
    ],
)
@ensureDeferred
async def test_a_bad_request_says_which_parameter_and_why(
    product: Product, body: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        reply = await product.ask({"stream": stream} | body)
        assert_error(reply, 400, "invalid_request_error", None, param)
        assert param.rpartition(".")[2] in reply.error["message"]
    assert not product.asked


# Errors of the API


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("play", "status", "type", "code"),
    [
        (scenarios.error(400, "Bad value."), 400, "invalid_request_error", None),
        (scenarios.invalid_key(), 502, "server_error", "gemini_key_refused"),
        (
            scenarios.error(400, "User location is not supported for the API use."),
            502,
            "server_error",
            "region_not_supported",
        ),
        (scenarios.error(403, "Not you."), 403, "permission_error", "permission_denied"),
        (scenarios.error(404, "No such model."), 404, "invalid_request_error", "model_not_found"),
        (scenarios.daily_quota(), 429, "insufficient_quota", "insufficient_quota"),
        (
            scenarios.error(
                400, "The input token count (1048600) exceeds the maximum number of tokens"
            ),
            400,
            "invalid_request_error",
            "context_length_exceeded",
        ),
    ],
)
@ensureDeferred
async def test_an_error_before_the_first_byte_is_a_status_with_its_reason(
    product: Product,
    play: scenarios.Scenario,
    status: int,
    type: str,
    code: str | None,
    stream: bool,
) -> None:
    product.api.play(play)
    reply = await product.ask(chat("Hi", stream=stream, model=fresh_model()))
    assert (reply.status, reply.error["type"], reply.error["code"]) == (status, type, code)
    assert reply.reason == " ".join(reply.error["message"].split())[:200]
    assert reply.headers["content-type"] == "application/json"


@ensureDeferred
async def test_a_reason_phrase_is_one_line_of_printable_ascii(product: Product) -> None:
    product.api.play(scenarios.error(400, "Line\r\nSet-Cookie: a=b\n\u00e9\0" + "x" * 5000))
    reply = await product.ask(chat())
    assert reply.reason.startswith("Line Set-Cookie: a=b ??xxx")
    assert len(reply.reason) <= 200
    assert "set-cookie" not in reply.headers
    assert reply.error["message"].startswith("Line\r\nSet-Cookie: a=b\n\u00e9\0x")


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_an_error_in_place_of_an_answer_counts_whatever_the_status_was(
    product: Product, stream: bool
) -> None:
    product.api.play(scenarios.answer(scenarios.daily_quota().refusal.body))
    reply = await product.ask(chat("Hi", stream=stream, model=fresh_model()))
    assert (reply.status, reply.error["type"]) == (429, "insufficient_quota")


@ensureDeferred
async def test_an_error_in_the_middle_of_an_answer_is_passed_on_unchanged(product: Product) -> None:
    overloaded = scenarios.error(503, "The model is overloaded.").refusal.body
    product.api.play(scenarios.answer("Half an", overloaded))
    reply = await product.ask(chat("Hi", stream=True))
    assert reply.content == "Half an"
    assert reply.data[-1]["error"]["message"] == "The model is overloaded."


@ensureDeferred
async def test_what_the_cli_cannot_read_is_a_failure_of_the_backend(product: Product) -> None:
    product.api.play(scenarios.garbage("Half an"))
    reply = await product.ask(chat("Hi", stream=True))
    assert reply.content == "Half an"
    assert reply.data[-1]["error"]["type"] == "server_error"


@ensureDeferred
async def test_an_error_after_the_first_byte_is_an_event_and_a_proper_end(
    product: Product,
) -> None:
    product.api.play(scenarios.cut("Half an", " answer", after=1))
    reply = await product.ask(chat("Hi", stream=True))
    assert reply.status == 200
    assert reply.content == "Half an"
    error = reply.data[-1]["error"]
    assert (error["type"], error["code"]) == ("server_error", "upstream_error")
    assert reply.body.endswith(b"\n\n")
    assert "[DONE]" not in reply.data
    assert not any(c["choices"][0]["finish_reason"] for c in reply.data[:-1])


@ensureDeferred
async def test_a_cut_answer_begins_again_for_a_client_that_does_not_stream(
    product: Product,
) -> None:
    product.api.play(scenarios.cut("Half an", " answer", after=1), scenarios.answer("A whole one."))
    reply = await product.ask(chat("Hi", model=fresh_model()))
    assert (reply.status, reply.content) == (200, "A whole one.")
    assert len(product.asked) == 2
