"""The google-genai SDK against both ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from testing.google import refusals, scenarios
from tests.support import Product, shared_daemon

NEWEST = "gemini-3.8-flash"

shared_product = shared_daemon("module", HEARTBEAT_INTERVAL=0.2, GEMINI_WORKERS=1)


def sdk(port: int, version: str = "v1beta", key: str = "none") -> genai.Client:
    options = types.HttpOptions(base_url=f"http://127.0.0.1:{port}", api_version=version)
    return genai.Client(api_key=key, http_options=options)


def both(product: Product) -> Iterator[genai.Client]:
    for port, version in ((product.port, "v1beta"), (product.stream_port, "v1")):
        yield sdk(port, version)


async def call(method: Callable[..., Any], **arguments: Any) -> Any:
    given = {"model": NEWEST, "contents": "Hi"} | arguments
    return await deferToThread(lambda: method(**given))


async def streamed(client: genai.Client, **arguments: Any) -> list[Any]:
    given = {"model": NEWEST, "contents": "Hi"} | arguments
    return await deferToThread(lambda: list(client.models.generate_content_stream(**given)))


@ensureDeferred
async def test_an_answer_and_its_stream(product: Product):
    for client in both(product):
        product.api.play(*[scenarios.thinking("Hm.", "Hel", "lo")] * 2)
        config = types.GenerateContentConfig(
            system_instruction="Be brief.",
            max_output_tokens=50,
            safety_settings=[
                types.SafetySetting(
                    category=types.HarmCategory.HARM_CATEGORY_HARASSMENT,
                    threshold=types.HarmBlockThreshold.BLOCK_NONE,
                )
            ],
        )
        whole = await call(client.models.generate_content, config=config)
        pieces = await streamed(client, config=config)
        assert whole.text == "Hello"
        assert [part.text for part in whole.candidates[0].content.parts] == ["Hm.", "Hello"]
        assert [piece.text for piece in pieces if piece.text] == ["Hel", "lo"]
        for last in (whole, pieces[-1]):
            assert last.candidates[0].finish_reason == types.FinishReason.STOP
            assert last.usage_metadata.thoughts_token_count == 1
            assert (last.model_version, last.response_id[:9]) == (NEWEST, "stand-in-")
        asked = product.asked[-1]
        assert (asked.system, asked.texts) == ("Be brief.", [("user", "Hi")])
        assert asked.body["generationConfig"] == {"maxOutputTokens": 50}
        assert asked.body["safetySettings"][0]["threshold"] == "BLOCK_NONE"


def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}"


@ensureDeferred
async def test_functions_are_called_by_themselves(product: Product):
    for client in both(product):
        signed = scenarios.call("weather", {"city": "Graz"}) | {"thoughtSignature": "Y2FsbA=="}
        product.api.play(scenarios.answer([signed]), scenarios.answer("It is sunny."))
        config = types.GenerateContentConfig(tools=[weather])
        answer = await call(client.models.generate_content, config=config)
        assert answer.text == "It is sunny."
        _, model, user = product.asked[-1].contents
        assert model["parts"][0]["thoughtSignature"] == "Y2FsbA=="
        assert user["parts"][0]["functionResponse"]["response"] == {"result": "Sunny in Graz"}


@ensureDeferred
async def test_a_chat_keeps_its_history(product: Product):
    for client in both(product):
        product.api.play(scenarios.answer("A", "B"), scenarios.answer("C"))

        def talk(client: genai.Client = client) -> list[str]:
            chat = client.chats.create(model=NEWEST)
            first = "".join(piece.text for piece in chat.send_message_stream("one"))
            return [first, chat.send_message("two").text]

        assert await deferToThread(talk) == ["AB", "C"]
        texts = product.asked[-1].texts
        assert texts[0] == ("user", "one")
        assert "".join(text for role, text in texts if role == "model") == "AB"
        assert texts[-1] == ("user", "two")


class City(BaseModel):
    name: str


@ensureDeferred
async def test_structured_output(product: Product):
    for client in both(product):
        product.api.play(scenarios.answer('{"name": "Graz"}'))
        config = types.GenerateContentConfig(
            response_mime_type="application/json", response_schema=City
        )
        answer = await call(client.models.generate_content, config=config)
        assert answer.parsed == City(name="Graz")
        assert product.asked[-1].generation_config["responseMimeType"] == "application/json"


@ensureDeferred
async def test_tokens_and_embeddings(product: Product):
    for client in both(product):
        counted = await call(client.models.count_tokens, contents="Hello there")
        assert counted.total_tokens == 3
        embedded = await call(
            client.models.embed_content, model="gemini-embedding-001", contents=["a", "b"]
        )
        assert [each.values for each in embedded.embeddings] == [
            [0.25, -1.0, 0.0],
            [0.25, -1.0, 1.0],
        ]
        asked = product.asked[-1]
        assert (asked.method, asked.key) == ("batchEmbedContents", "the-key")


@ensureDeferred
async def test_models(product: Product):
    for client in both(product):
        listed = await deferToThread(lambda client=client: list(client.models.list()))
        assert "models/gemini-2.5-flash" in [model.name for model in listed]
        one = await deferToThread(client.models.get, model="gemini-2.5-flash")
        assert (one.description, one.input_token_limit) == ("Played by a stand-in.", 1_048_576)


@ensureDeferred
async def test_errors_are_googles(product: Product):
    for client in both(product):
        details = [refusals.error_info("WHY")]
        refusal = refusals.error(400, "Google says no.", details=details)
        product.api.play(*[scenarios.refuse(refusal)] * 2)
        for asking in (client.models.generate_content, client.models.generate_content_stream):
            with pytest.raises(errors.ClientError) as failed:
                await call(lambda asking=asking, **given: [*asking(**given)])
            assert (failed.value.code, failed.value.status) == (400, "INVALID_ARGUMENT")
            assert failed.value.message == "Google says no."
            assert failed.value.details["error"]["details"] == details


@ensureDeferred
async def test_files_and_caches(product: Product, tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("some text")
    for client in (sdk(product.port), sdk(product.stream_port, "v1alpha")):

        def work(client: genai.Client = client) -> tuple[Any, Any]:
            file = client.files.upload(file=path)
            assert client.files.get(name=file.name).size_bytes == 9
            cache = client.caches.create(
                model=NEWEST, config=types.CreateCachedContentConfig(contents=["Hello"])
            )
            assert client.caches.get(name=cache.name).name == cache.name
            return file, cache

        file, cache = await deferToThread(work)
        product.api.play(scenarios.answer("Yes"))
        config = types.GenerateContentConfig(cached_content=cache.name)
        answer = await call(
            client.models.generate_content, contents=["What is it?", file], config=config
        )
        assert answer.text == "Yes"
        asked = product.asked[-1]
        assert asked.body["cachedContent"] == cache.name
        # As the SDK has it.
        assert asked.parts[-1]["fileData"] == {"file_uri": file.uri, "mime_type": "text/plain"}
        await deferToThread(client.files.delete, name=file.name)
        assert [got.key for got in product.asked if got.method == "files"][-1] == "the-key"


@ensureDeferred
async def test_silence_before_an_answer_is_no_part_of_it(product: Product):
    for client in both(product):
        product.api.play(scenarios.answer("Late", delay=0.8))
        pieces = await streamed(client)
        assert [piece.text for piece in pieces] == ["Late"]
