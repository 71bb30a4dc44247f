"""Pictures by OpenAI's images API, and what is not served for Gemini's models."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed

from gemproxy.accounts.known_keys import KnownKeys
from gemproxy.backend import Answer
from gemproxy.chat.chunks import ChunkFactory, Usage
from gemproxy.chat.errors import ChatError
from gemproxy.chat.images import (
    ASPECT_RATIOS,
    image_config,
    images_document,
    nearest_ratio,
    no_picture,
    parse_images_request,
)
from gemproxy.chat.json_limits import JsonLimits
from gemproxy.chat.models import served_model
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.dialects.seal import Seal
from gemproxy.gemini.translate.families import family_of
from gemproxy.gemini.translate.parameters import Defaults, parameters
from gemproxy.http.connection_limits import ConnectionLimiter
from gemproxy.journal import NoJournal
from gemproxy.metrics import Metrics
from gemproxy.offload.pool import Offload
from gemproxy.siblings.asking import NO_SIBLINGS
from gemproxy.siblings.shared_metrics import SharedMetrics
from gemproxy.web.access import Access
from gemproxy.web.admin import Admin
from gemproxy.web.admin_sessions import AdminSessions
from gemproxy.web.admission import Admission, Limits
from gemproxy.web.chat import ChatService
from gemproxy.web.dialects import DialectService
from gemproxy.web.embeddings import EmbeddingsService
from gemproxy.web.gemini_proxy import GeminiProxy
from gemproxy.web.health import Health
from gemproxy.web.passthrough import Passthrough
from gemproxy.web.reader import BodyReader
from gemproxy.web.relay import Heartbeats
from gemproxy.web.site import make_site
from testing.fake_newapi import (
    Script,
    answer,
    chunk,
    document,
    event,
    events,
    hang,
    in_http_chunks,
    stream,
    usage_chunk,
)
from tests.sdk import with_openai
from tests.support import Client, Product, Relay, Reply, running_relay, until
from tests.tables import each

MODEL = "gemini-3.1-flash-image"
PATH = "/v1/images/generations"
PNG = base64.b64encode(b"\x89PNG a picture").decode()
JPEG = base64.b64encode(b"\xff\xd8 another one").decode()
_T = TypeVar("_T")


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "A cat"} | fields


def picture(data: str = PNG, kind: str = "image/png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def drawn(*pictures: dict[str, Any], index: int = 0) -> dict[str, Any]:
    """A chunk with pictures."""
    return chunk(delta={"images": list(pictures)}, index=index)


# Pure: sizes.


@each(
    ("size", "config"),
    [
        (None, {}),
        ("auto", {}),
        ("1024x1024", {"aspect_ratio": "1:1"}),
        ("1536x1024", {"aspect_ratio": "3:2"}),
        ("1024x1536", {"aspect_ratio": "2:3"}),
        ("1792x1024", {"aspect_ratio": "16:9"}),
        ("1024x1792", {"aspect_ratio": "9:16"}),
        ("256X256", {"aspect_ratio": "1:1"}),
        ("640\u00d7480", {"aspect_ratio": "4:3"}),
        (" 1280x1024 ", {"aspect_ratio": "5:4"}),
        ("1919x1080", {"aspect_ratio": "16:9"}),
        ("1920x1080", {"aspect_ratio": "16:9", "image_size": "2K"}),
        ("2048x2048", {"aspect_ratio": "1:1", "image_size": "2K"}),
        ("1080x3071", {"aspect_ratio": "9:16", "image_size": "2K"}),
        ("3072x1280", {"aspect_ratio": "21:9", "image_size": "4K"}),
        ("4096x4096", {"aspect_ratio": "1:1", "image_size": "4K"}),
        ("16:9", {"aspect_ratio": "16:9"}),
        ("1920:1080", {"aspect_ratio": "16:9"}),
        ("9:21", {"aspect_ratio": "9:16"}),
        ("4k", {"image_size": "4K"}),
    ],
)
def test_a_size_becomes_the_nearest_that_there_is(size: Any, config: dict[str, str]) -> None:
    assert image_config(size) == config


SIDES = st.integers(1, 99999)


@given(SIDES, SIDES)
def test_the_nearest_ratio_needs_the_least_cropping(width: int, height: int) -> None:
    def kept(ratio: str) -> float:
        across, down = map(int, ratio.split(":"))
        return min(width * down / (height * across), height * across / (width * down))

    chosen = nearest_ratio(width, height)
    assert kept(chosen) == pytest.approx(max(map(kept, ASPECT_RATIOS)))
    assert image_config(f"{width}x{height}")["aspect_ratio"] == chosen
    assert image_config(f"{width}:{height}") == {"aspect_ratio": chosen}


@pytest.mark.parametrize("ratio", ASPECT_RATIOS)
def test_each_ratio_is_its_own(ratio: str) -> None:
    width, height = map(int, ratio.split(":"))
    assert nearest_ratio(width * 97, height * 97) == ratio


NONSENSE = [0, 1024, True, [], {}, "", "x", "0x0", "1024x", "x1024", "-1x1", "1024x1024x1024"]
NONSENSE += ["big", "8K", "1e3x1e3", "100000x1", "16/9", "\u0661x\u0661", "1x1\n1"]


@each("size", NONSENSE)
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(ChatError) as caught:
        image_config(size)
    assert (caught.value.status, caught.value.param) == (400, "size")


@given(st.text("0123456789xX:K auto\u00d7.-", max_size=12) | st.text(max_size=9))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert image_config(text).keys() <= {"aspect_ratio", "image_size"}
    except ChatError as error:
        assert (error.status, error.param) == (400, "size")


# Pure: requests.


def test_a_request_becomes_one_of_chat() -> None:
    raw = json.dumps(
        asked(
            n=2,
            size="1920x1080",
            response_format="url",
            user="u",
            style="vivid",
            quality="auto",
            background=None,
            partial_images=0,
            stream=False,
            seed=7,
        )
    ).encode()
    images = parse_images_request(raw, ((b"a", b"b"),))
    assert (images.raw, images.as_urls) == (raw, True)
    assert json.loads(images.chat.raw) == images.chat.body
    assert images.chat.body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "A cat"}],
        "modalities": ["image", "text"],
        "n": 2,
        "image_config": {"aspect_ratio": "16:9", "image_size": "2K"},
        "user": "u",
        "style": "vivid",
        "seed": 7,
    }
    assert (images.chat.model, images.chat.stream) == (MODEL, False)
    assert images.chat.headers == ((b"a", b"b"),)


def test_what_chat_knows_better_is_not_overwritten() -> None:
    raw = asked(messages=[], modalities=["text"], image_config={"image_size": "1K"}, size="2:3")
    body = parse_images_request(json.dumps(raw).encode()).chat.body
    assert body["messages"] == [{"role": "user", "content": "A cat"}]
    assert body["modalities"] == ["image", "text"]
    assert body["image_config"] == {"aspect_ratio": "2:3", "image_size": "1K"}


@each(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": ["A cat"]}, "prompt"),
        ({"model": None}, "model"),
        ({"model": 3}, "model"),
        ({"n": 0}, "n"),
        ({"n": 5}, "n"),
        ({"n": "2"}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.5}, "n"),
        ({"size": "large"}, "size"),
        ({"response_format": "png"}, "response_format"),
        ({"response_format": {"type": "text"}}, "response_format"),
        ({"stream": True}, "stream"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_a_bad_parameter_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ChatError) as caught:
        parse_images_request(json.dumps(asked(**fields)).encode())
    assert (caught.value.status, caught.value.param) == (400, param)
    assert f"'{param}'" in caught.value.message


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff"])
def test_a_request_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ChatError) as caught:
        parse_images_request(raw)
    assert caught.value.status == 400


# Pure: answers.


def completion(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"created": 17, "choices": list(choices)} | fields


def choice(*pictures: Any, content: Any = None, **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "images": list(pictures)}
    return {"message": message, "finish_reason": "stop"} | fields


def test_pictures_are_listed_in_order_with_what_is_known_of_them() -> None:
    usage = Usage(5, 1300, reasoning=10).as_json()
    both = completion(choice(picture(), picture(JPEG, "image/jpeg")), choice(picture()))
    got = images_document(both | {"usage": usage}, False, 1)
    assert got == {
        "created": 17,
        "data": [
            {"b64_json": PNG, "mime_type": "image/png"},
            {"b64_json": JPEG, "mime_type": "image/jpeg"},
            {"b64_json": PNG, "mime_type": "image/png"},
        ],
        "usage": {
            "input_tokens": 5,
            "output_tokens": 1300,
            "total_tokens": 1305,
            "input_tokens_details": {"text_tokens": 5, "image_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 10},
        },
    }


def test_a_format_that_all_have_is_told() -> None:
    got = images_document(completion(choice(picture(), picture()), created=None), True, 3)
    assert got is not None
    assert (got["created"], got["output_format"]) == (3, "png")
    assert got["data"][0]["url"] == f"data:image/png;base64,{PNG}"
    assert "usage" not in got
    elsewhere = {"image_url": {"url": "https://example.org/a.png"}}
    got = images_document(completion(choice(elsewhere)), False, 3)
    assert got == {"created": 17, "data": [{"url": "https://example.org/a.png"}]}


@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"choices": 3},
        {"choices": [None, {}, {"message": 3}, {"message": {"images": 3}}]},
        {"choices": [{"message": {"images": [None, {}, {"image_url": 3}, {"image_url": {}}]}}]},
        {"choices": [{"message": {"content": [1], "refusal": 3}, "native_finish_reason": 3}]},
    ],
)
def test_an_answer_without_pictures_is_an_error(strange: dict[str, Any]) -> None:
    assert images_document(strange, False, 1) is None
    assert no_picture(strange).message == "The model answered without a picture."


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"content": "I cannot draw."}, "without a picture (stop): I cannot draw."),
        (
            {"finish_reason": "content_filter", "native_finish_reason": "NO_IMAGE"},
            "a picture (NO_IMAGE).",
        ),
        ({"content": "x" * 9999}, ": " + "x" * 500),
    ],
)
def test_an_error_says_what_the_model_said(fields: dict[str, Any], said: str) -> None:
    error = no_picture(completion(choice(**fields)))
    assert (error.status, error.code, error.final) == (502, "no_image", True)
    assert error.message.endswith(said)


def test_a_blocked_picture_is_the_fault_of_the_request() -> None:
    blocked = choice(finish_reason="content_filter", native_finish_reason="IMAGE_SAFETY")
    blocked["message"]["refusal"] = "Not that."
    error = no_picture(completion(choice(), blocked))
    assert (error.status, error.code) == (400, "moderation_blocked")
    assert error.message == "The picture was blocked (stop, IMAGE_SAFETY): Not that."


# On sockets: the Stream Proxy, with New-API's fake in the place of Gemini.


async def draw(client: Client, **fields: Any) -> Reply:
    return await (await client.send("POST", PATH, asked(**fields))).reply()


@ensureDeferred
async def test_pictures_of_gemini_on_the_stream_proxy(tmp_path: Path) -> None:
    async with running_relay(LOG_DIR=tmp_path, STOP_TAGS="[END]") as relay:
        said = ["Here [END] it is.", drawn(picture()), usage_chunk()]
        relay.upstream.play(
            events(
                *answer(*said), headers=[("Content-Type", "text/event-stream"), *ignoring("style")]
            )
        )
        reply = await draw(relay, model="google/Gemini-3.1-Flash-Image", size="16:9", style="x")
        assert reply.status == 200
        assert reply.headers["x-gemproxy-ignored"] == "style"
        assert reply.json == {
            "created": 1700000000,
            "data": [{"b64_json": PNG, "mime_type": "image/png"}],
            "output_format": "png",
            "usage": {
                "input_tokens": 9,
                "output_tokens": 2,
                "total_tokens": 11,
                "input_tokens_details": {"text_tokens": 9, "image_tokens": 0},
            },
        }
        (call,) = relay.upstream.calls
        assert call.target == "/v1/chat/completions"
        assert call.json == {
            "model": MODEL,
            "messages": [{"role": "user", "content": "A cat"}],
            "modalities": ["image", "text"],
            "image_config": {"aspect_ratio": "16:9"},
            "style": "x",
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        assert await relay.count_of("gemproxy_requests_total", "stream/gemini/images") == 1
        await until(lambda: list(tmp_path.glob("*_output.txt")), "it is written")
    (kept,) = tmp_path.glob("*_output.txt")
    assert "[image/png, " in kept.read_text()
    assert PNG not in kept.read_text()
    (kept,) = tmp_path.glob("*_input.json")
    record = json.loads(kept.read_text())
    assert record["request"]["prompt"] == "A cat"
    assert record["route"] == "stream/gemini/images"


def ignoring(names: str) -> list[tuple[str, str]]:
    return [("x-gemproxy-ignored", names)]


@ensureDeferred
async def test_pictures_that_came_are_given(relay: Relay) -> None:
    blocked = chunk(finish="content_filter", index=1)
    relay.upstream.play(events(*answer(drawn(picture()), blocked)))
    reply = await draw(relay, n=2)
    assert [item["b64_json"] for item in reply.json["data"]] == [PNG]
    assert relay.upstream.calls[0].json["n"] == 2


@ensureDeferred
async def test_a_picture_before_an_error_is_given(relay: Relay) -> None:
    failed = event({"error": {"message": "Broken.", "code": 503}})
    relay.upstream.play(events(event(drawn(picture())), failed))
    reply = await draw(relay, n=2)
    assert (reply.status, len(reply.json["data"])) == (200, 1)
    relay.upstream.play(events(event("Hm."), failed))
    reply = await draw(relay)
    assert (reply.status, reply.error["message"]) == (503, "Broken.")
    assert "Broken." in reply.reason


@pytest.mark.parametrize(
    ("script", "status", "code", "message"),
    [
        (stream("I cannot."), 502, "no_image", "without a picture (stop): I cannot."),
        (
            events(*answer(chunk(delta={"refusal": "No."}), finish="content_filter")),
            400,
            "moderation_blocked",
            "blocked (content_filter): No.",
        ),
        (document({"error": {"message": "Wait.", "code": "c"}}, 429), 429, "c", "Wait."),
    ],
)
@ensureDeferred
async def test_an_answer_without_a_picture(
    relay: Relay, script: Script, status: int, code: str, message: str
) -> None:
    relay.upstream.play(script)
    reply = await draw(relay)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert message in reply.error["message"]
    assert reply.headers.get("x-should-retry") == ("false" if code == "no_image" else None)
    assert await relay.count_of("gemproxy_requests_total", f'status="{status}"') == 1


@pytest.mark.parametrize(
    ("fields", "param"), [({"n": 9}, "n"), ({"prompt": ""}, "prompt"), ({"stream": True}, "stream")]
)
@ensureDeferred
async def test_a_bad_request_is_refused(relay: Relay, fields: Any, param: str) -> None:
    reply = await draw(relay, **fields)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert relay.upstream.calls == []


@pytest.mark.parametrize("has_picture", [True, False])
@ensureDeferred
async def test_a_long_drawing_has_heartbeats(has_picture: bool) -> None:
    async with running_relay(HEARTBEAT_INTERVAL=0.1, JSON_HEARTBEAT_DELAY=0.1) as relay:
        released: list[bool] = []
        last = [event(drawn(picture()))] if has_picture else []

        async def script(call: Any) -> None:
            await call.when(lambda: released)
            await events(*last, *answer())(call)

        relay.upstream.play(script)
        client = await relay.send("POST", PATH, asked())
        await client.until_received(b"\r\n\r\n1\r\n\n\r\n1\r\n\n")
        released.append(True)
        relay.upstream.calls[0].look()
        reply = await client.reply()
        assert reply.status == 200
        assert ("data" in reply.json) is has_picture
        assert has_picture or reply.error["code"] == "no_image"


@ensureDeferred
async def test_a_client_that_goes_ends_the_drawing(relay: Relay) -> None:
    relay.upstream.play(hang())
    client = await relay.send("POST", PATH, asked())
    call = await relay.upstream.when_asked()
    client.drop()
    await call.when_closed(1)


@ensureDeferred
async def test_a_stop_ends_a_drawing(relay: Relay) -> None:
    relay.upstream.play(hang())
    client = await relay.send("POST", PATH, asked())
    await relay.upstream.when_asked()
    stopping = relay.daemon.stopService()
    reply = await client.reply()
    assert (reply.status, reply.error["code"]) == (503, "overloaded")
    await stopping


@pytest.mark.parametrize(
    "raw",
    [
        b'{ "prompt":"gemini",\n"model" : "gpt-image-1", "n": 1.0, "size": "odd" }',
        b'\xef\xbb\xbf{"model": "dall-e-3", "stream": true}',
        b'{"prompt": "no model"}',
        b'{"model": ["gemini-x"]}',
        b'["gemini"]',
        b"gemini",
        b"",
    ],
)
@ensureDeferred
async def test_pictures_of_others_are_the_upstreams_affair(relay: Relay, raw: bytes) -> None:
    theirs = {"created": 1, "data": [{"url": "https://x"}]}
    relay.upstream.play(document(theirs, 201))
    client = await relay.send("POST", PATH + "?a=b", raw, Authorization="Bearer k")
    reply = await client.reply()
    assert (reply.status, reply.json) == (201, theirs)
    (call,) = relay.upstream.calls
    assert (call.target, bytes(call.body)) == (PATH + "?a=b", raw)
    assert call.header("authorization") == "Bearer k"


# What is not served for Gemini's models.


@pytest.mark.parametrize(
    "path",
    [
        "/v1/rerank",
        "/rerank",
        "/v1/v1/rerank?a=b",
        "/v1/images/edits",
        "/v1/images/variations",
        "/v1/audio/speech",
        "/v1/moderations",
    ],
)
@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "application/x-www-form-urlencoded", None]
)
@ensureDeferred
async def test_a_path_not_served_for_gemini_is_not_found(
    relay: Relay, path: str, kind: str | None
) -> None:
    headers = {} if kind is None else {"Content_Type": kind}
    client = await relay.send("POST", path, {"model": "Google/GEMINI-3-x", "input": "a"}, **headers)
    reply = await client.reply()
    assert (reply.status, reply.error["code"]) == (404, "unknown_url")
    assert reply.headers["x-should-retry"] == "false"
    for served in ("/v1/chat/completions", "/v1/images/generations", "/v1/models"):
        assert served in reply.error["message"]
    assert relay.upstream.calls == []


@pytest.mark.parametrize(
    "raw",
    [
        b' {"input" : "gemini-x",  "model":"e" }\n',
        b'{"input": "\\ud800", "model": "e", "x": 1e999}',
        b'{"model": {"name": "gemini"}}',
        b'{"model": null}',
        b'{"input": "a"}',
        b'["model", "gemini"]',
        b'{"model": "gemini',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model":"e","input":"' + b"x" * 3_000_000 + b'"}',
    ],
    ids=lambda raw: raw[:24].decode("latin-1"),
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@ensureDeferred
async def test_a_body_is_forwarded_byte_for_byte(relay: Relay, raw: bytes, framing: str) -> None:
    client = await relay.connect()
    if framing == "length":
        client.send("POST", "/v1/embeddings", raw, Content_Type="application/json", X_A="1")
    else:
        client.transport.write(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            + in_http_chunks([raw[:9], raw[9:]])
            + b"0\r\n\r\n"
        )
    assert (await client.reply()).status == 200
    (call,) = relay.upstream.calls
    assert bytes(call.body) == raw
    assert call.all_headers("content-length") == [str(len(raw))]
    assert call.all_headers("content-type") == ["application/json"]
    assert (call.header("transfer-encoding"), call.header("x-a")) == (None, "1")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/images/edits", "multipart/form-data; boundary=X"),
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=X"),
        ("/v1/embeddings", "application/octet-stream"),
        ("/v1/files", "application/json"),
    ],
)
@ensureDeferred
async def test_other_bodies_are_passed_on_as_they_come(relay: Relay, path: str, kind: str) -> None:
    client = await relay.connect()
    client.transport.write(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        "Content-Length: 18\r\n\r\n--gemini-".encode()
    )
    call = await relay.upstream.when_asked()
    await call.when(lambda: bytes(call.body) == b"--gemini-")
    client.transport.write(b"gemini--x")
    assert (await client.reply()).status == 200
    assert bytes(call.body) == b"--gemini-gemini--x"


@ensureDeferred
async def test_a_body_that_is_too_large_is_refused_on_a_path_with_a_model() -> None:
    async with running_relay(MAX_BODY="100kB") as relay:
        body = b'{"model": "e", "input": "' + b"x" * 200_000 + b'"}'
        reply = await (await relay.send("POST", "/v1/embeddings", body)).reply()
        assert reply.status == 413
        assert relay.upstream.calls == []


# OpenAI's SDK.


def with_sdk(port: int, work: Callable[[OpenAI], _T]) -> Awaitable[_T]:
    """With repetitions, as it has them by default."""
    return with_openai(port, work, retries=2)


@ensureDeferred
async def test_the_sdk_gets_pictures(relay: Relay) -> None:
    relay.upstream.always(stream(drawn(picture()), usage=True))
    got = await with_sdk(
        relay.port,
        lambda client: client.images.generate(model=MODEL, prompt="A cat", n=1, size="1536x1024"),
    )
    assert got.data is not None
    assert got.data[0].b64_json == PNG
    assert got.output_format == "png"
    assert got.usage is not None
    assert (got.usage.total_tokens, got.usage.input_tokens_details.text_tokens) == (11, 9)
    got = await with_sdk(
        relay.port,
        lambda client: client.images.generate(model=MODEL, prompt="x", response_format="url"),
    )
    assert got.data is not None
    assert got.data[0].url == f"data:image/png;base64,{PNG}"


@ensureDeferred
async def test_the_sdk_does_not_repeat_what_would_fail_again(relay: Relay) -> None:
    relay.upstream.always(stream("I cannot."))
    with pytest.raises(openai.InternalServerError, match="I cannot"):
        await with_sdk(relay.port, lambda client: client.images.generate(model=MODEL, prompt="x"))
    assert len(relay.upstream.calls) == 1
    with pytest.raises(openai.NotFoundError, match="chat/completions"):
        await with_sdk(relay.port, lambda client: client.moderations.create(model=MODEL, input="x"))
    assert len(relay.upstream.calls) == 1


# The Gemini Proxy, with a backend of the tests' own.


class Painter:
    """A backend that draws a picture for each choice, and checks parameters as the engine does."""

    def __init__(self) -> None:
        self.requests: list[ChatRequest] = []

    def complete(self, request: ChatRequest, answer: Answer) -> Deferred[None]:
        served_model(request.model, {})
        # It is released when it is answered.
        self.requests.append(evolve(request))
        answer.ignored(parameters(request.body, family_of(request.model), Defaults()).ignored)
        chunks = ChunkFactory("c", 5, request.model)
        for index in range(request.body.get("n", 1)):
            answer.events([chunks.delta({"role": "assistant", "content": ""}, None, index)])
            answer.events([chunks.delta({"images": [picture()]}, "stop", index)])
        answer.counted(Usage(1, 2))
        answer.events([chunks.usage(Usage(1, 2))])
        return succeed(None)

    def models(self, headers: Headers) -> Deferred[list[dict[str, Any]]]:
        return succeed([])

    def count(self, request: ChatRequest) -> Deferred[int]:
        return succeed(0)


@async_yield_fixture
async def painted() -> AsyncIterator[tuple[Client, Painter]]:
    metrics, painter = Metrics("1"), Painter()
    journal = NoJournal(reactor)
    reader = BodyReader(Offload(reactor), JsonLimits())
    chats = ChatService(reactor, Heartbeats(9, None), journal, metrics, reader)
    shown = SharedMetrics(metrics, NO_SIBLINGS).render
    health = Health(shown, lambda: True, lambda: True, dict)
    admin = Admin(KnownKeys({}), lambda: False, AdminSessions(reactor.seconds))
    dialects = DialectService(chats, Seal(b""))
    passthrough = Passthrough(reactor, lambda: pytest.fail("nothing passes"), 9, metrics)
    embedding = EmbeddingsService(reactor, chats.reader, painter, chats.meter, "gemini")
    proxy = GeminiProxy(painter, painter, health, admin, chats, dialects, embedding, passthrough)
    admission = Admission(reactor, Access(), Limits(1_000_000), metrics, lambda: "x")
    limiter = ConnectionLimiter(reactor, None, None, lambda _: False, lambda _: None)
    site = make_site(proxy.app.resource(), admission, limiter, reactor)
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    client = Client(port.getHost().port)
    yield client, painter
    client.drop_all()
    await port.stopListening()
    await until(lambda: not site.connections.open, "the connections are closed")


@ensureDeferred
async def test_pictures_on_the_gemini_proxy(painted: tuple[Client, Painter]) -> None:
    client, painter = painted
    reply = await draw(client, n=2, response_format="url", style="vivid", moderation="low")
    assert (reply.status, reply.json["created"], len(reply.json["data"])) == (200, 5, 2)
    assert reply.json["usage"]["total_tokens"] == 3
    assert {"style", "moderation"} <= set(reply.headers["x-gemproxy-ignored"].split(", "))
    assert painter.requests[0].body["n"] == 2
    reply = await draw(client, model="gpt-image-1")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")


@ensureDeferred
async def test_the_gemini_proxy_says_what_it_serves(painted: tuple[Client, Painter]) -> None:
    client, _ = painted
    for path in ("/v1/moderations", "/v1/rerank", "/v1/new/thing"):
        for method in ("GET", "POST"):
            reply = await (await client.send(method, path, {"model": MODEL})).reply()
            assert (reply.status, reply.error["code"]) == (404, "unknown_url")
            assert "/v1/images/generations" in reply.error["message"]
            assert reply.headers["x-should-retry"] == "false"
    reply = await client.get(PATH)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


# The whole product.


@ensureDeferred
async def test_a_model_that_only_talks_is_told_of(product: Product) -> None:
    for port in (product.port, product.stream_port):
        client = await product.send("POST", PATH, asked(style="vivid"), port)
        reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (502, "no_image")
        assert "style" in reply.headers["x-gemproxy-ignored"].split(", ")
    assert product.asked[0].body["contents"][-1]["parts"][-1]["text"] == "A cat"
