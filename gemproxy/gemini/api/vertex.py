"""
Vertex AI: Google's models, for the projects of Google Cloud.

docs.cloud.google.com/vertex-ai/generative-ai/docs/reference/rest
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import quote

from attrs import evolve, field, frozen

from gemproxy.chat.embeddings import EmbeddingsRequest
from gemproxy.chat.errors import INVALID_REQUEST, SERVER_ERROR, ChatError
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object
from gemproxy.gemini.api.endpoint import Signature
from gemproxy.gemini.translate.embeddings import Batch, single_batches
from gemproxy.gemini.translate.errors import (
    KEY_REFUSED,
    AttemptFailure,
    api_failure,
    error_object,
    message_of,
)
from gemproxy.http.url import BaseURL

# What has a host of its own for several regions.
_MULTIPLE = ("eu", "us")
_PAGE = b"/v1beta1/publishers/google/models?pageSize=100"
_OF_MODEL = re.compile(rb"/v1[a-z0-9]*/models/([A-Za-z0-9._-]{1,200}):(\w+)")
_OF_CACHES = re.compile(rb"/v1[a-z0-9]*/(cachedContents(?:/[\w-]{1,200})?)")
# Fields of a request that are counted; CountTokensRequest has no others.
_COUNTED = ("contents", "systemInstruction", "tools", "generationConfig")
# AI Studio's, with bodies that are others here.
_EMBEDDING = (b"embedContent", b"batchEmbedContents")


class Signer(Protocol):
    """Says who pays."""

    async def sign(self, key: str) -> Signature:
        """See L{gemproxy.gemini.api.endpoint.Endpoint.sign}."""

    def refused(self, signature: Signature) -> None:
        """See L{gemproxy.gemini.api.endpoint.Endpoint.refused}."""

    def hide(self, text: bytes) -> bytes:
        """A text as it may be shown, should it quote what is signed with."""


@frozen
class ApiKeySigner:
    """Express mode: an API key of Vertex AI."""

    async def sign(self, key: str) -> Signature:
        return ((b"x-goog-api-key", key.encode()),)

    def refused(self, signature: Signature) -> None:
        """A key does not change."""

    def hide(self, text: bytes) -> bytes:
        # A key is a setting, and masked as all of them are.
        return text


@frozen
class VertexAI:
    """
    @ivar project: that of Google Cloud; None in express mode, in which the API key says it.
    @ivar location: a region, C{global}, C{eu} or C{us}.
    """

    base: BaseURL
    project: str | None
    location: str
    signer: Signer = field(repr=False)

    @property
    def _parent(self) -> str:
        if self.project is None:
            return ""
        return f"projects/{self.project}/locations/{self.location}/"

    def of_model(self, model: str, method: str) -> bytes:
        return f"/v1beta1/{self.resource(model)}:{method}".encode("ascii")

    def resource(self, model: str) -> str:
        return f"{self._parent}publishers/google/models/{model}"

    def of_list(self, page: str | None) -> bytes:
        return _PAGE if page is None else b"%b&pageToken=%b" % (_PAGE, quote(page, "").encode())

    def of_client(self, target: bytes) -> bytes:
        path, mark, query = target.partition(b"?")
        if (asked := _OF_MODEL.fullmatch(path)) is not None:
            if asked[2] in _EMBEDDING:
                raise _other_shape()
            return self.of_model(asked[1].decode(), asked[2].decode()) + mark + query
        if self.project is not None and (cached := _OF_CACHES.fullmatch(path)) is not None:
            return b"/v1beta1/%b%b%b%b" % (self._parent.encode(), cached[1], mark, query)
        raise ChatError(
            404,
            INVALID_REQUEST,
            "Vertex AI has nothing like this. Files go into Cloud Storage there: name them as "
            "'gs://bucket/name'.",
            "not_found",
            final=True,
        )

    def counting(self, model: str, request: bytes) -> bytes:
        sent = as_object(loads(request))
        return dumps({name: sent[name] for name in _COUNTED if name in sent})

    def embedding(self, request: EmbeddingsRequest) -> Iterator[Batch]:
        return single_batches(request)

    async def sign(self, key: str) -> Signature:
        return await self.signer.sign(key)

    def refused(self, signature: Signature) -> None:
        self.signer.refused(signature)

    def failure(self, status: int, body: bytes) -> AttemptFailure:
        body = self.signer.hide(body)
        failure = api_failure(status, body)
        if failure.error.code != KEY_REFUSED:
            return failure
        who = "GOOGLE_API_KEY" if self.project is None else f"credentials for {self.project}"
        said = message_of(status, error_object(body))
        refused = ChatError(
            502,
            SERVER_ERROR,
            f"Google refused gemproxy's {who}, by way of Vertex AI: {said}",
            KEY_REFUSED,
            final=True,
        )
        # A token may have ended before its time; the next attempt has another.
        again = failure.retryable or (status == 401 and self.project is not None)
        return evolve(failure, error=refused, retryable=again)


def _other_shape() -> ChatError:
    return ChatError(
        501,
        INVALID_REQUEST,
        "Vertex AI embeds in other words than AI Studio's: ask /v1/embeddings, which speaks both.",
        "not_supported",
        final=True,
    )


def default_base(location: str) -> str:
    """The base URL of a location."""
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTIPLE:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"
