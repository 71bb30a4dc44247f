"""OpenAI's embeddings API for Gemini's models, on both ports."""

from __future__ import annotations

import base64
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from gemproxy.chat.embeddings import parse_embeddings_request
from gemproxy.chat.errors import ChatError
from gemproxy.gemini.translate.embeddings import Batch, embedded
from testing.fake_newapi import document
from testing.google import refusals, scenarios
from tests.sdk import with_openai
from tests.support import Product, Reply, running_relay, shared_daemon

KEYS = ("first-key", "second-key")
NEWEST, OLDER = "gemini-embedding-2", "gemini-embedding-001"

shared_product = shared_daemon(
    "module", ("direct",), GEMINI_API_KEY=",".join(KEYS), MAX_RETRIES=1, RETRY_DELAY=0.01
)
pytestmark = pytest.mark.both_engines


async def embed(product: Product, body: Any, port: int | None = None) -> Reply:
    return await (await product.send("POST", "/v1/embeddings", body, port)).reply()


def asked_for(model: str, *texts: str, **options: Any) -> list[dict[str, Any]]:
    """The requests of a batch."""
    return [
        {"model": f"models/{model}", **options, "content": {"parts": [{"text": text}]}}
        for text in texts
    ]


def texts_of(batch: Any) -> list[str]:
    return [one["content"]["parts"][0]["text"] for one in batch.body["requests"]]


# --- The request.


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a", True]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": True}, "dimensions"),
        ({"input": "a", "dimensions": 1.5}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "model": ""}, "model"),
    ],
)
def test_what_cannot_be_embedded_is_named(fields: dict[str, Any], param: str):
    with pytest.raises(ChatError) as refused:
        parse_embeddings_request(json.dumps({"model": NEWEST} | fields).encode())
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]]])
def test_tokens_are_refused_with_what_to_do(tokens: Any):
    with pytest.raises(ChatError, match=r"check_embedding_ctx_length=False") as refused:
        parse_embeddings_request(json.dumps({"model": NEWEST, "input": tokens}).encode())
    assert refused.value.param == "input"


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_both_encodings_say_the_same(vector: list[float]):
    answer = json.dumps({"embeddings": [{"values": vector}]}).encode()
    as_base64, as_floats = (
        json.loads(embedded(answer, Batch(7, 1, b""), one).items) for one in (True, False)
    )
    packed = base64.b64decode(as_base64["embedding"])
    assert list(struct.unpack(f"<{len(vector)}f", packed)) == vector == as_floats["embedding"]
    assert as_floats["index"] == 7


@pytest.mark.parametrize(
    "answer", [b"{}", b"[", b'{"embeddings":[{}]}', b'{"embeddings":[{"values":["a"]}]}']
)
def test_an_answer_without_the_vectors_is_none(answer: bytes):
    with pytest.raises(ValueError, match=r".") as wrong:
        embedded(answer, Batch(0, 1, b""), as_base64=True)
    assert not isinstance(wrong.value, struct.error)


# --- The answer.


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
@ensureDeferred
async def test_openai_s_sdk_gets_vectors(product: Product, port: int, encoding: str | None) -> None:
    options: dict[str, Any] = {} if encoding is None else {"encoding_format": encoding}

    def work(client: OpenAI) -> Any:
        return client.embeddings.create(model=NEWEST, input=["a", "b"], **options)

    answer = await with_openai(port, work)
    vectors = [one.embedding for one in answer.data]
    if encoding == "base64":
        vectors = [list(struct.unpack("<3f", base64.b64decode(one))) for one in vectors]
    assert vectors == [[0.25, -1.0, 0.0], [0.25, -1.0, 1.0]]
    assert [one.index for one in answer.data] == [0, 1]
    assert (answer.model, answer.object) == (NEWEST, "list")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4, 4)
    [asked] = product.asked
    assert asked.path == f"/v1beta/models/{NEWEST}:batchEmbedContents"
    assert asked.body == {"requests": asked_for(NEWEST, "a", "b")}


@ensureDeferred
async def test_a_vector_has_as_many_dimensions_as_asked_for(product: Product, port: int) -> None:
    body = {"model": f"google/{NEWEST.upper()}", "input": "a", "dimensions": 5}
    reply = await embed(product, body, port)
    assert reply.json["data"] == [
        {"object": "embedding", "index": 0, "embedding": [0.25, -1.0, 0.0, 0.5, 0.5]}
    ]
    assert product.asked[0].body == {"requests": asked_for(NEWEST, "a", outputDimensionality=5)}


@ensureDeferred
async def test_many_texts_go_in_batches_and_google_counts_their_tokens(product: Product) -> None:
    texts = [f"text {number}" for number in range(250)]
    reply = await embed(product, {"model": OLDER, "input": texts})
    assert [one["index"] for one in reply.json["data"]] == list(range(250))
    assert [one["embedding"][2] for one in reply.json["data"]] == [
        number % 100 for number in range(250)
    ]
    *embedding, counting = product.asked
    assert sorted(len(one.body["requests"]) for one in embedding) == [50, 100, 100]
    # They are under way at once.
    embedding.sort(key=lambda one: texts.index(texts_of(one)[0]))
    sent = [text for one in embedding for text in texts_of(one)]
    assert sent == texts
    # This model's answers do not say how many there were.
    assert counting.path == f"/v1beta/models/{OLDER}:countTokens"
    tokens = reply.json["usage"]["prompt_tokens"]
    assert tokens > 250
    metrics = (await product.get("/metrics")).body.decode()
    assert re.search(rf"(?m)^gemproxy_tokens_total\{{.*{OLDER}.*\}} {tokens}\.0$", metrics)


@ensureDeferred
async def test_tokens_that_google_does_not_count_are_guessed(product: Product) -> None:
    product.api.count_refusal = refusals.day_quota()
    try:
        for _ in KEYS * 2:
            reply = await embed(product, {"model": OLDER, "input": "a text of some words"})
            assert reply.json["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    finally:
        product.api.count_refusal = None
    # One try each, for which no key rests.
    assert [one.method for one in product.asked] == ["batchEmbedContents", "countTokens"] * 4


# --- What goes wrong.


@ensureDeferred
async def test_what_google_refuses_is_the_client_s(product: Product, port: int) -> None:
    product.api.play(scenarios.error(400, "The dimension is too large."))
    reply = await embed(product, {"model": NEWEST, "input": "a", "dimensions": 9000}, port)
    assert (reply.status, reply.error["message"]) == (400, "The dimension is too large.")
    assert len(product.asked) == 1


@ensureDeferred
async def test_a_failure_is_tried_again_and_a_quota_with_another_key(product: Product) -> None:
    product.api.play(scenarios.error(503))
    assert (await embed(product, {"model": NEWEST, "input": "a"})).status == 200
    assert len(product.asked) == 2
    product.begin_test()
    product.api.play(scenarios.Scenario(refusal=refusals.day_quota()))
    for _ in range(2):
        assert (await embed(product, {"model": "gemini-embedding-x", "input": "a"})).status == 200
    refused, *others = [one.key for one in product.asked]
    assert others and refused not in others


@pytest.mark.parametrize(
    ("model", "status"), [("gemini embedding", 400), ("", 400), ("gemini-embedding-2", 200)]
)
@ensureDeferred
async def test_the_model_must_have_a_name(product: Product, model: str, status: int) -> None:
    assert (await embed(product, {"model": model, "input": "a"})).status == status


# --- Other ways to the same.


@ensureDeferred
async def test_google_s_sdk_embeds_at_both_ports(product: Product, port: int) -> None:
    def work() -> Any:
        options = types.HttpOptions(base_url=f"http://127.0.0.1:{port}")
        with genai.Client(api_key="x", http_options=options) as client:
            return client.models.embed_content(model=OLDER, contents=["a", "b"])

    answer = await deferToThread(work)
    assert [one.values for one in answer.embeddings] == [[0.25, -1.0, 0.0], [0.25, -1.0, 1.0]]
    assert [one.method for one in product.asked] == ["batchEmbedContents"]
    assert product.asked[0].key in KEYS


@ensureDeferred
async def test_keys_that_google_quotes_are_masked_in_what_is_passed_on(
    product: Product, port: int
) -> None:
    product.api.play(scenarios.error(400, f"Not with {KEYS[0]}, nor Bearer {'a1' * 20} ."))
    path = f"/v1beta/models/{NEWEST}:embedContent"
    body = {"content": {"parts": [{"text": "x"}]}}
    reply = await (await product.send("POST", path, body, port)).reply()
    assert (reply.status, reply.error["message"]) == (
        400,
        "Not with [secret], nor Bearer [secret] .",
    )


@ensureDeferred
async def test_another_gemproxy_is_asked_for_gemini_s_and_upstreams_for_the_others() -> None:
    vectors = {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 1}}
    async with running_relay() as relay:
        relay.upstream.always(document(vectors))
        for model in (NEWEST, "text-embedding-3-small"):
            body = {"model": model, "input": [1, 2]}
            reply = await (await relay.send("POST", "/v1/embeddings", body)).reply()
            assert reply.json == vectors
            assert json.loads(bytes(relay.upstream.calls[-1].body)) == body
            assert relay.upstream.calls[-1].target == "/v1/embeddings"


@ensureDeferred
async def test_the_demo_has_a_vector_of_its_own_for_each_text(tmp_path: Path) -> None:
    from gemproxy.demo.answer import answer_to

    def vectors(*texts: str, **options: Any) -> list[list[float]]:
        raw = json.dumps({"requests": asked_for("m", *texts, **options)}).encode()
        found = json.loads(answer_to("m", "batchEmbedContents", raw).document or b"")
        return [one["values"] for one in found["embeddings"]]

    [a, b, again] = vectors("a", "b", "a")
    assert a == again != b
    assert len(a) == 3072
    assert sum(value * value for value in a) == pytest.approx(1)
    assert len(vectors("a", outputDimensionality=64)[0]) == 64
    assert answer_to("m", "batchEmbedContents", b'{"requests":[{}]}').status == 400
