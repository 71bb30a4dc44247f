"""
OpenAI's request for embeddings, and its answer:
platform.openai.com/docs/api-reference/embeddings. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import field, frozen

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.request import BOM, body_and_model

MOST_INPUTS = 2048
"""In a request, as OpenAI has it."""

_LARGEST = 2**31


@frozen
class EmbeddingsRequest:
    """
    @ivar inputs: the texts to embed.
    @ivar dimensions: how many numbers a vector is to have; None for the model's own number.
    @ivar as_base64: whether the client wants vectors as base64 of little-endian floats of 32 bits.
    """

    model: str
    inputs: tuple[str, ...] = field(repr=False)
    dimensions: int | None = None
    as_base64: bool = False

    @property
    def length(self) -> int:
        """In characters."""
        return sum(map(len, self.inputs))


def parse_embeddings_request(raw: bytes) -> EmbeddingsRequest:
    """@raise ChatError: 400, the request is invalid; C{param} names the field."""
    body, model = body_and_model(raw.removeprefix(BOM))
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise bad_request("'encoding_format' must be 'float' or 'base64'.", "encoding_format")
    return EmbeddingsRequest(
        model, _inputs(body.get("input")), _dimensions(body.get("dimensions")), form == "base64"
    )


def _inputs(given: Any) -> tuple[str, ...]:
    inputs = given if isinstance(given, list) else [given]
    if not inputs or len(inputs) > MOST_INPUTS:
        raise bad_request(f"'input' must have from 1 to {MOST_INPUTS} texts.", "input")
    for text in inputs:
        if isinstance(text, int | list) and not isinstance(text, bool):
            raise _no_tokens()
        if not isinstance(text, str) or not text:
            raise bad_request("'input' must be a text or a list of texts, none empty.", "input")
    return tuple(inputs)


def _no_tokens() -> ChatError:
    return bad_request(
        "'input' has numbers of tokens, which are those of OpenAI's models: Gemini's take texts. "
        "LangChain's OpenAIEmbeddings send texts with check_embedding_ctx_length=False.",
        "input",
    )


def _dimensions(given: Any) -> int | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given < _LARGEST:
        raise bad_request("'dimensions' must be a whole number of at least 1.", "dimensions")
    return given


def embeddings_document(model: str, items: Sequence[bytes], tokens: int) -> bytes:
    """
    The answer.

    @param items: the C{data}: JSON of some of the vectors each, separated by commas.
    @param tokens: those of the inputs.
    """
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    head, tail = b'{"object":"list","data":[', b'],"model":%b,"usage":%b}'
    return head + b",".join(items) + tail % (dumps(model), dumps(usage))
