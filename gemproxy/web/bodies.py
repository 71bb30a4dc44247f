"""Reads bodies of requests, within limits. Pure, so that it can be done in another process."""

from __future__ import annotations

import re

from attrs import evolve

from gemproxy.chat.embeddings import EmbeddingsRequest, parse_embeddings_request
from gemproxy.chat.images import ImagesRequest, parse_images_request
from gemproxy.chat.json_limits import JsonLimits
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.request import BOM, ChatRequest, model_of, parse_chat_request
from gemproxy.chat.shapes import as_object
from gemproxy.dialects.dialect import Dialect, DialectRequest, Translation

_JSON = re.compile(rb"[ \t\r\n]*[\[{]")


def read_chat(raw: bytes, limits: JsonLimits) -> ChatRequest:
    """@raise ChatError: 400, it is no chat completion request, or beyond the limits."""
    limits.check(raw)
    chat = parse_chat_request(raw)
    limits.check_messages(chat.body.get("messages"))
    return chat.outlined()


def read_large_chat(raw: bytes, limits: JsonLimits) -> ChatRequest:
    """The same of a large body, which the result is without: it need not be copied once more."""
    return evolve(read_chat(raw, limits), raw=b"")


def read_images(raw: bytes, limits: JsonLimits) -> ImagesRequest:
    """@raise ChatError: 400, it is no request for pictures, or beyond the limits."""
    limits.check(raw)
    images = parse_images_request(raw)
    return evolve(images, chat=images.chat.outlined())


def read_embeddings(raw: bytes, limits: JsonLimits) -> EmbeddingsRequest:
    """@raise ChatError: 400, it is no request for embeddings, or beyond the limits."""
    limits.check(raw)
    return parse_embeddings_request(raw)


def read_dialect(dialect: Dialect, asked: DialectRequest, limits: JsonLimits) -> Translation:
    """@raise ChatError: 400, the request cannot be understood, or is beyond the limits."""
    limits.check(asked.raw)
    translation = dialect.translate(asked)
    for chat in translation.chats:
        messages = chat.body.get("messages")
        limits.check_messages(
            messages or as_object(chat.body.get("google_request")).get("contents")
        )
    return evolve(translation, chats=tuple(chat.outlined() for chat in translation.chats))


def read_model(raw: bytes, limits: JsonLimits) -> str | None:
    """
    See L{model_of}.

    @raise ChatError: 400, it is JSON beyond the limits.
    """
    if not _JSON.match(raw.removeprefix(BOM)):
        return None
    limits.check(raw, is_deep_refused=False)
    return model_of(raw)


def renamed(raw: bytes, model: str) -> bytes:
    """The body of a request, for another model if it names one."""
    if model_of(raw) in (None, model):
        return raw
    return dumps(loads(raw.removeprefix(BOM)) | {"model": model})
