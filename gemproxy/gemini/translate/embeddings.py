"""OpenAI's requests for embeddings in Gemini's words, and back: ai.google.dev/api/embeddings."""

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
    @ivar body: JSON for C{batchEmbedContents}.
    """

    first: int
    size: int
    body: bytes = field(repr=False)


def batches(request: EmbeddingsRequest, resource: str) -> Iterator[Batch]:
    """@param resource: the name of the model in bodies of requests."""
    options: dict[str, Any] = {"model": resource}
    if request.dimensions is not None:
        options["outputDimensionality"] = request.dimensions
    for first in range(0, len(request.inputs), MOST_IN_A_BATCH):
        texts = request.inputs[first : first + MOST_IN_A_BATCH]
        asked = [options | {"content": {"parts": [{"text": text}]}} for text in texts]
        yield Batch(first, len(texts), dumps({"requests": asked}))


def counting_body(request: EmbeddingsRequest) -> bytes:
    """JSON for C{countTokens}, which takes models for embeddings: litellm#24339."""
    parts = [{"text": text} for text in request.inputs]
    return dumps({"contents": [{"parts": parts}]})


@frozen
class Embedded:
    """
    The vectors of a batch.

    @ivar items: see L{embeddings_document}.
    @ivar tokens: those of the inputs; None if Google does not say. It does for gemini-embedding-2
        (bifrost#7295).
    """

    items: bytes = field(repr=False)
    tokens: int | None


def embedded(answer: bytes, batch: Batch, as_base64: bool) -> Embedded:
    """
    @param answer: that to C{batchEmbedContents}.
    @raise ValueError: it has not a vector for each of the inputs.
    """
    document = as_object(loads(answer))
    found = [one.get("values") for one in objects_in(document.get("embeddings"))]
    vectors = [one for one in found if isinstance(one, list) and one]
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
    tokens = as_object(document.get("usageMetadata")).get("promptTokenCount")
    return Embedded(dumps(items)[1:-1], tokens if isinstance(tokens, int) else None)


def _base64(vector: list[Any]) -> str:
    try:
        return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (struct.error, OverflowError):
        raise ValueError("a vector of something else than numbers") from None
