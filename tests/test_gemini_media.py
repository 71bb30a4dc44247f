"""Pictures, sounds and documents reach the API, through the real CLI, byte for byte."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from testing.google import scenarios
from tests.support import Product, chat

pytestmark = pytest.mark.both_engines(quick=False)

BYTES = bytes(range(256)) * 3
DATA = base64.b64encode(BYTES).decode()
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}
SOUND = {"type": "input_audio", "input_audio": {"data": DATA, "format": "mp3"}}
PDF = {
    "type": "file",
    "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{DATA}"},
}
QUESTION = {"type": "text", "text": "What is it?"}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def inline(mime_type: str, data: str = DATA) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": data}}


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_media_arrive_in_any_turn_and_in_their_order(product: Product, stream: bool) -> None:
    body = chat(
        {"role": "system", "content": "Be brief."},
        user(PICTURE),
        {"role": "assistant", "content": "A picture."},
        user(QUESTION, PICTURE, SOUND, PDF, QUESTION),
        {"role": "assistant", "content": [{"type": "text", "text": "Others."}]},
        user(PICTURE, QUESTION),
        stream=stream,
    )
    for ask in product.both_ports:
        product.api.play(scenarios.answer("Yes."))
        assert (await ask(body)).content == "Yes."
    question = {"text": "What is it?"}
    for asked in product.asked:
        assert asked.body["contents"] == [
            {"role": "user", "parts": [inline("image/png")]},
            {"role": "model", "parts": [{"text": "A picture."}]},
            {
                "role": "user",
                "parts": [
                    question,
                    inline("image/png"),
                    inline("audio/mp3"),
                    inline("application/pdf"),
                    question,
                ],
            },
            {"role": "model", "parts": [{"text": "Others."}]},
            {"role": "user", "parts": [inline("image/png"), question]},
        ]
    assert len(product.asked) == 2


@pytest.mark.parametrize(
    ("part", "mime_type"),
    [
        *(
            ({"type": "image_url", "image_url": {"url": f"data:{kind};base64,{DATA}"}}, kind)
            for kind in ("image/png", "image/jpeg", "image/webp", "image/heic", "image/gif")
        ),
        *(
            (
                {"type": "input_audio", "input_audio": {"data": DATA, "format": kind}},
                f"audio/{kind}",
            )
            for kind in ("wav", "mp3", "flac", "ogg")
        ),
        (PDF, "application/pdf"),
    ],
)
@ensureDeferred
async def test_a_kind_arrives_with_its_type(product: Product, part: Any, mime_type: str) -> None:
    product.api.play(scenarios.answer("ok"))
    assert (await product.ask(chat(user(part)))).status == 200
    assert product.asked[0].body["contents"] == [{"role": "user", "parts": [inline(mime_type)]}]


@ensureDeferred
async def test_files_that_gemini_reads_by_itself_are_passed_on(product: Product) -> None:
    youtube = "https://www.youtube.com/watch?v=9hE5-98ZeCg"
    file = "https://generativelanguage.googleapis.com/v1beta/files/abc"
    product.api.play(scenarios.answer("ok"))
    body = chat(
        user(
            QUESTION,
            {"type": "video_url", "video_url": {"url": youtube}},
            {"type": "file", "file": {"file_id": "files/abc", "filename": "a.pdf"}},
        )
    )
    assert (await product.ask(body)).status == 200
    assert product.asked[0].parts == [
        {"text": "What is it?"},
        {"fileData": {"fileUri": youtube}},
        {"fileData": {"fileUri": file, "mimeType": "application/pdf"}},
    ]


@ensureDeferred
async def test_parts_of_other_apis_are_accepted(product: Product) -> None:
    product.api.play(scenarios.answer("ok"))
    source = {"type": "base64", "media_type": "image/png", "data": DATA}
    body = chat(
        user(
            {"type": "image", "source": source},
            {"type": "input_image", "image_url": f"data:image/png;base64,{DATA}"},
            {"type": "input_file", "filename": "a.pdf", "file_data": DATA},
        )
    )
    assert (await product.ask(body)).status == 200
    assert product.asked[0].parts == [
        inline("image/png"),
        inline("image/png"),
        inline("application/pdf"),
    ]


@ensureDeferred
async def test_a_picture_of_fifteen_megabytes_arrives(product: Product) -> None:
    data = base64.b64encode(random.Random(1).randbytes(15_000_000)).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
    for messages in ([user(QUESTION, picture)], [user(picture), "A picture.", user(QUESTION)]):
        product.api.play(scenarios.answer("ok"))
        reply = await product.ask(chat(*messages))
        assert reply.status == 200, reply
    for asked in product.asked:
        pictures = [p for turn in asked.contents for p in turn["parts"] if "inlineData" in p]
        assert pictures == [inline("image/jpeg", data)]


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (picture("data:image/png;base64,!!!!"), "image_url.url"),
        (picture(f"data:image/png,{DATA}"), "image_url.url"),
        (picture(f"data:image/svg+xml;base64,{DATA}"), "image_url.url"),
        (picture("http://127.0.0.1/a.png"), "image_url.url"),
        (picture("file:///etc/passwd"), "image_url.url"),
        (picture("data:image/png;base64," + "A" * (28 * 1024 * 1024)), "image_url.url"),
        ({"type": "image_url"}, "image_url"),
        (
            {"type": "input_audio", "input_audio": {"data": "?", "format": "wav"}},
            "input_audio.data",
        ),
        (
            {"type": "input_audio", "input_audio": {"data": DATA, "format": "../x"}},
            "input_audio.format",
        ),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        (
            {"type": "file", "file": {"file_data": f"data:application/zip;base64,{DATA}"}},
            "file.file_data",
        ),
        ({"type": "smell", "smell": DATA}, "type"),
    ],
)
@ensureDeferred
async def test_what_cannot_be_sent_is_a_bad_request_that_names_the_part(
    product: Product, part: Any, param: str
) -> None:
    body = chat("Hi", "Hello", user(QUESTION, part))
    for ask in product.both_ports:
        reply = await ask(body)
        assert reply.status == 400
        assert reply.error["type"] == "invalid_request_error"
        assert reply.error["param"] == f"messages[2].content[1].{param}"
        assert "messages[2].content[1]" in reply.error["message"]
        assert "messages[2].content[1]" in reply.reason
    assert not product.asked
