"""Pictures and sound in answers reach the client; so does the reason why there are none."""

from __future__ import annotations

import base64
import io
import wave
from contextlib import suppress
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from testing.google import scenarios
from tests.support import Product, Reply, chat, fresh_model, until

pytestmark = pytest.mark.both_engines

IMAGE_MODEL = "gemini-3.1-flash-image"
PNG = "iVBORw0KGgo="
PICTURE = scenarios.inline("image/png", PNG)


def delta_of(reply: Reply) -> dict[str, Any]:
    """The message, or what the deltas of a stream amount to."""
    if reply.headers["content-type"].startswith("application/json"):
        message = reply.json["choices"][0]["message"]
        assert isinstance(message, dict)
        return message
    whole: dict[str, Any] = {}
    for chunk in reply.data[:-1]:
        for name, value in chunk["choices"][0]["delta"].items():
            whole[name] = whole[name] + value if whole.get(name) else value
    return whole


def choice_of(reply: Reply) -> dict[str, Any]:
    if reply.headers["content-type"].startswith("application/json"):
        choice = reply.json["choices"][0]
    else:
        choice = reply.data[-2]["choices"][0]
    assert isinstance(choice, dict)
    return choice


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_picture_alone_is_a_whole_answer(product: Product, stream: bool) -> None:
    for ask in product.both_ports:
        product.api.play(scenarios.answer(PICTURE))
        reply = await ask(chat("Draw", model=IMAGE_MODEL, stream=stream))
        [image] = delta_of(reply)["images"]
        assert image["type"] == "image_url"
        assert image["image_url"] == {"url": f"data:image/png;base64,{PNG}"}
        assert choice_of(reply)["finish_reason"] == "stop"
    assert len(product.asked) == 2


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_pictures_and_text_come_together(product: Product, stream: bool) -> None:
    thought = PICTURE | {"thought": True}
    product.api.play(
        scenarios.answer(
            "First: ", PICTURE, thought, [scenarios.text("second: "), PICTURE], "Done."
        )
    )
    body = chat("Draw two", model=IMAGE_MODEL, stream=stream, modalities=["image", "text"])
    reply = await product.ask(body)
    assert reply.content == "First: second: Done."
    assert [image["index"] for image in delta_of(reply)["images"]] == [0, 1]
    config = product.asked[0].body["generationConfig"]
    assert config["responseModalities"] == ["IMAGE", "TEXT"]


@ensureDeferred
async def test_a_large_picture_passes_and_the_journal_keeps_its_size(product: Product) -> None:
    folder = product.run_root.parent / "logs"
    data = base64.b64encode(bytes(6_000_000)).decode()
    product.api.play(scenarios.answer(scenarios.inline("image/png", data)))
    model = f"{fresh_model()}-image"
    reply = await product.ask(chat("Draw", model=model, stream=True))
    assert delta_of(reply)["images"][0]["image_url"]["url"].endswith(data[-1000:])

    def kept() -> list[str]:
        found = []
        for path in folder.glob("*_input.json"):
            # Those of earlier requests make room.
            with suppress(FileNotFoundError):
                if model.encode() in path.read_bytes():
                    answer = path.with_name(path.name.replace("input.json", "output.txt"))
                    found.append(answer.read_text())
        return found

    await until(kept, "the answer is written", 5)
    assert "[image/png, 6000000 bytes]" in kept()[0]
    assert len(kept()[0]) < 2000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("encoding", ["wav", "pcm16"])
@ensureDeferred
async def test_sound_is_openai_s_audio(product: Product, stream: bool, encoding: str) -> None:
    samples = bytes(range(200)) * 10
    halves = [
        scenarios.inline("audio/L16;codec=pcm;rate=16000", base64.b64encode(half).decode())
        for half in (samples[:1000], samples[1000:])
    ]
    product.api.play(scenarios.answer(*halves))
    body = chat("Say hi", model="gemini-2.5-flash-preview-tts", stream=stream)
    body |= {"modalities": ["audio"], "audio": {"voice": "Kore", "format": encoding}}
    reply = await product.ask(body)
    audio = delta_of(reply)["audio"]
    data = base64.b64decode(audio["data"])
    if encoding == "wav":
        with wave.open(io.BytesIO(data)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
            data = file.readframes(file.getnframes())
    assert data == samples
    assert audio["id"].startswith("audio_")
    assert audio["transcript"] == ""
    config = product.asked[0].body["generationConfig"]
    assert config["responseModalities"] == ["AUDIO"]
    assert config["speechConfig"]["voiceConfig"]["prebuiltVoiceConfig"]["voiceName"] == "Kore"


@ensureDeferred
async def test_images_can_be_generated(product: Product) -> None:
    for port in (product.port, product.stream_port):
        product.api.play(*[scenarios.answer("Here.", PICTURE)] * 2)
        body = {"model": f"models/{IMAGE_MODEL}", "prompt": "A cat", "n": 2, "size": "1536x1024"}
        client = await product.send("POST", "/v1/images/generations", body, port)
        reply = await client.reply()
        assert reply.status == 200, reply
        assert reply.json["data"] == [{"b64_json": PNG, "mime_type": "image/png"}] * 2
    config = product.asked[0].body["generationConfig"]
    assert config["imageConfig"]["aspectRatio"] == "3:2"
    assert set(config["responseModalities"]) == {"IMAGE", "TEXT"}


# Nothing came of it.


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "reason", ["NO_IMAGE", "IMAGE_OTHER", "RECITATION", "IMAGE_SAFETY", "LANGUAGE", "SPII"]
)
@ensureDeferred
async def test_an_outcome_that_is_certain_is_not_bought_twice(
    product: Product, reason: str, stream: bool
) -> None:
    message = b'{"candidates": [{"finishReason": "%b", "finishMessage": "Not so."}]}'
    product.api.play(scenarios.answer(message % reason.encode()))
    reply = await product.ask(chat("Draw", model=IMAGE_MODEL, stream=stream))
    assert reply.status == 200
    choice = choice_of(reply)
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("content_filter", reason)
    refusal = f"The model gave no answer (finish reason {reason}): Not so."
    assert delta_of(reply)["refusal"] == refusal
    assert len(product.asked) == 1


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_a_blocked_prompt_says_why(product: Product, stream: bool) -> None:
    product.api.play(scenarios.blocked("PROHIBITED_CONTENT"))
    reply = await product.ask(chat("Draw", stream=stream))
    choice = choice_of(reply)
    assert choice["finish_reason"] == "content_filter"
    assert choice["native_finish_reason"] == "PROHIBITED_CONTENT"
    assert "block reason PROHIBITED_CONTENT" in delta_of(reply)["refusal"]


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_what_was_cut_off_says_so_and_is_no_refusal(product: Product, stream: bool) -> None:
    product.api.play(scenarios.answer("I will", finish_reason="SAFETY"))
    reply = await product.ask(chat("Hi", stream=stream))
    assert choice_of(reply)["native_finish_reason"] == "SAFETY"
    assert "refusal" not in delta_of(reply)
    product.api.play(scenarios.answer("Whole."))
    assert "native_finish_reason" not in choice_of(await product.ask(chat("Hi", stream=stream)))


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_there_is_always_a_usage(product: Product, stream: bool) -> None:
    product.api.play(scenarios.thinking("Hm.", "One two three", usage=None))
    options = {"stream_options": {"include_usage": True}} if stream else {}
    reply = await product.ask(chat("Hello there", stream=stream, **options))
    usage = (reply.data[-2] if stream else reply.json)["usage"]
    assert usage["estimated"] is True
    assert usage["completion_tokens"] == 4
    assert usage["total_tokens"] == usage["prompt_tokens"] + 4 > 10
    product.api.play(scenarios.answer("One"))
    reply = await product.ask(chat("Hello", stream=stream, **options))
    usage = (reply.data[-2] if stream else reply.json)["usage"]
    assert "estimated" not in usage
