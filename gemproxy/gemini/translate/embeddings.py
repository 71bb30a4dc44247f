"""
OpenAI's requests for embeddings in Gemini's words, and back: ai.google.dev/api/embeddings, and
docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

from attrs import field, frozen

from gemproxy.chat.embeddings import EmbeddingsRequest
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object, objects_in

# "at most 100 requests can be in one batch": langchainjs#4491, vercel/ai#16101
MOST_IN_A_BATCH = 100


@frozen
class Batch:
    """
    Some of the inputs of a request.

    @ivar first: the index of the first of them.
    @ivar body: JSON for the method.
    @ivar method: that of the model which is asked.
    """

    first: int
    size: int
    body: bytes = field(repr=False)
    method: str = "batchEmbedContents"


def batches(request: EmbeddingsRequest, resource: str) -> Iterator[Batch]:
    """@param resource: the name of the model in bodies of requests."""
    options: dict[str, Any] = {"model": resource}
    if request.dimensions is not None:
        options["outputDimensionality"] = request.dimensions
    for first in range(0, len(request.inputs), MOST_IN_A_BATCH):
        texts = request.inputs[first : first + MOST_IN_A_BATCH]
        asked = [options | {"content": {"parts": [{"text": text}]}} for text in texts]
        yield Batch(first, len(texts), dumps({"requests": asked}))


def single_batches(request: EmbeddingsRequest) -> Iterator[Batch]:
    """
    For Vertex AI, which has two methods for it. Each is asked for one text: C{embedContent} takes
    no more, and C{predict} takes no more for gemini-embedding-001.
    """
    size = request.dimensions
    # As in C{t_is_vertex_embed_content_model} of Google's SDKs.
    is_predicted = "gemini" not in request.model or request.model == "gemini-embedding-001"
    for index, text in enumerate(request.inputs):
        body: dict[str, Any]
        if is_predicted:
            body = {"instances": [{"content": text}]}
            if size is not None:
                body["parameters"] = {"outputDimensionality": size}
        else:
            body = {"content": {"parts": [{"text": text}]}}
            if size is not None:
                body["embedContentConfig"] = {"outputDimensionality": size}
        yield Batch(index, 1, dumps(body), "predict" if is_predicted else "embedContent")


def counting_body(request: EmbeddingsRequest) -> bytes:
    """JSON for C{countTokens}, which takes models for embeddings: litellm#24339."""
    parts = [{"text": text} for text in request.inputs]
    return dumps({"contents": [{"role": "user", "parts": parts}]})


@frozen
class Embedded:
    """
    The vectors of a batch.

    @ivar items: see L{embeddings_document}.
    @ivar tokens: those of the inputs; None if Google does not say. It does for gemini-embedding-2
        (bifrost#7295), and by way of Vertex AI.
    """

    items: bytes = field(repr=False)
    tokens: int | None


def embedded(answer: bytes, batch: Batch, as_base64: bool) -> Embedded:
    """
    @param answer: that to the method of the batch.
    @raise ValueError: it has not a vector for each of the inputs.
    """
    document = as_object(loads(answer))
    found = _embeddings(document)
    vectors = [values for one in found if isinstance(values := one.get("values"), list) and values]
    if len(vectors) != batch.size:
        raise ValueError(f"{len(vectors)} vectors for {batch.size} texts")
    items = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if as_base64 else vector,
        }
        for index, vector in enumerate(vectors, batch.first)
    ]
    return Embedded(dumps(items)[1:-1], _tokens(document, found))


def _embeddings(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of C{batchEmbedContents}, C{embedContent} or C{predict}."""
    if "predictions" in document:
        predicted = objects_in(document["predictions"])
        return [as_object(one.get("embeddings")) for one in predicted]
    if "embedding" in document:
        return [as_object(document["embedding"])]
    return objects_in(document.get("embeddings"))


def _tokens(document: dict[str, Any], found: list[dict[str, Any]]) -> int | None:
    counts = [as_object(document.get("usageMetadata")).get("promptTokenCount")]
    if counts == [None]:
        # C{predict} writes them as any number is written.
        counts = [as_object(one.get("statistics")).get("token_count") for one in found]
    known = [int(count) for count in counts if isinstance(count, int | float)]
    return sum(known) if len(known) == len(counts) else None


def _base64(vector: list[Any]) -> str:
    try:
        return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (struct.error, OverflowError):
        raise ValueError("a vector of something else than numbers") from None
