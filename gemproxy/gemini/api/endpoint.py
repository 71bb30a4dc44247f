"""
Where Google serves its models, and how a request is addressed and signed there.

AI Studio is one such place; Vertex AI is another, which takes the same bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol
from urllib.parse import quote

from attrs import frozen

from gemproxy.chat.embeddings import EmbeddingsRequest
from gemproxy.chat.jsontext import dumps
from gemproxy.gemini.translate.embeddings import Batch, batches
from gemproxy.gemini.translate.errors import AttemptFailure, api_failure
from gemproxy.http.url import BaseURL

Signature = Sequence[tuple[bytes, bytes]]
"""Headers, by name and value."""

_PAGE = b"/v1beta/models?pageSize=1000"


class Endpoint(Protocol):
    """
    A place at which Google's API is served. Targets are paths below its base URL, with their query.
    """

    @property
    def base(self) -> BaseURL:
        """The base URL. No request goes to another origin."""

    def of_model(self, model: str, method: str) -> bytes:
        """The target of a method of a model, such as C{streamGenerateContent}."""

    def resource(self, model: str) -> str:
        """The name of a model in the bodies of requests."""

    def of_list(self, page: str | None) -> bytes:
        """
        The target of the list of models.

        @param page: the token of a page; None for the first one.
        """

    def of_client(self, target: bytes) -> bytes:
        """
        The target for a client's request that is passed on, whose target is AI Studio's.

        @raise ChatError: this place has nothing like it.
        """

    def counting(self, model: str, request: bytes) -> bytes:
        """
        The body for C{countTokens}.

        @param request: the JSON object that C{generateContent} would be sent.
        """

    def embedding(self, request: EmbeddingsRequest) -> Iterator[Batch]:
        """What is to be asked for the vectors of all inputs, in any order."""

    def failure(self, status: int, body: bytes) -> AttemptFailure:
        """What a response with the status of an error says, in the words of this place."""

    async def sign(self, key: str) -> Signature:
        """
        The headers that say who pays for a request.

        @param key: one of those in the L{KeyRing}.
        @raise ApiFailed: there is no signature at the moment.
        """

    def refused(self, signature: Signature) -> None:
        """What was signed so was refused: this signature is not taken."""


@frozen
class AIStudio:
    """
    generativelanguage.googleapis.com: every request has an API key. See ai.google.dev/api.

    @ivar url: the base URL, which may be known only once the daemon runs.
    """

    url: Callable[[], BaseURL]

    @property
    def base(self) -> BaseURL:
        return self.url()

    def of_model(self, model: str, method: str) -> bytes:
        return f"/v1beta/models/{model}:{method}".encode("ascii")

    def resource(self, model: str) -> str:
        return f"models/{model}"

    def of_list(self, page: str | None) -> bytes:
        return _PAGE if page is None else b"%b&pageToken=%b" % (_PAGE, quote(page, "").encode())

    def of_client(self, target: bytes) -> bytes:
        return target

    async def sign(self, key: str) -> Signature:
        return ((b"x-goog-api-key", key.encode()),)

    def refused(self, signature: Signature) -> None:
        """A key does not change."""

    def counting(self, model: str, request: bytes) -> bytes:
        # It may be large, and is copied once only.
        head = b'{"generateContentRequest":{"model":%b,' % dumps(self.resource(model))
        return b"".join((head, memoryview(request)[1:], b"}"))

    def embedding(self, request: EmbeddingsRequest) -> Iterator[Batch]:
        return batches(request, self.resource(request.model))

    def failure(self, status: int, body: bytes) -> AttemptFailure:
        return api_failure(status, body)
