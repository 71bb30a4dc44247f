"""The interface between the HTTP servers and the backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.web.iweb import IBodyProducer, IResponse

from gemproxy.chat.chunks import Usage
from gemproxy.chat.embeddings import EmbeddingsRequest
from gemproxy.chat.errors import ChatError
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.chat.sse import Event


@frozen
class Commitment:
    """
    The moment at which the status of a response is sent although its outcome is not known, so that
    a later error can only be in its body.

    @ivar after: seconds from the beginning of the request to that moment.
    @ivar elapsed: seconds since the beginning of the request.
    """

    after: float
    elapsed: float

    @property
    def left(self) -> float:
        """Seconds until then."""
        return max(0.0, self.after - self.elapsed)


# By this header a gemproxy tells another one, whose answer it collects, in how many seconds it will
# commit the status.
COMMITS_IN = b"x-gemproxy-commits-in"


class Answer(Protocol):
    """Receives a response from a backend, piece by piece."""

    def events(self, events: Sequence[Event]) -> None:
        """
        Add chunks of the response, in order; the data of each event is a chat.completion.chunk.
        """

    def document(self, document: dict[str, Any], events: Sequence[Event]) -> None:
        """
        The whole answer as one document, from a backend that was not asked for a stream.

        @param document: a chat.completion; it is not modified.
        @param events: the same as chunks.
        """

    def take_back(self, choice: int) -> bool:
        """
        Discard the chunks of a choice so far, since it will be generated once more. Returns whether
        they are discarded: what a client has received stays.

        @param choice: the index of the choice.
        """

    def stop_at(self, sequences: Sequence[str]) -> None:
        """
        End the answer at one of these texts, as at a stop tag; must be called before the first
        chunk.
        """

    def counted(self, usage: Usage) -> None:
        """Set the token counts so far, as reported by the model's API; may be called repeatedly."""

    def ignored(self, parameters: Sequence[str]) -> None:
        """
        Set the request's parameters that are ignored; must be called before all other methods.
        """

    def asking(self, upstream: str, model: str) -> None:
        """
        Set who is asked from now on.

        @param upstream: its name; C{gemini} for Gemini.
        @param model: the name under which it knows the model.
        """

    def passed_on(self, headers: Headers, upstream_request: str | None) -> None:
        """
        Set headers of the upstream's response that the client gets too; must be called before the
        first chunk.

        @param upstream_request: what the upstream calls the request; None if it does not say.
        """

    def note(self, text: str, seconds: float | None = None) -> None:
        """
        Set the current activity of the backend, shown in heartbeats.

        @param seconds: how long it takes until something happens; None if nobody knows.
        """

    def retrying(self, error: ChatError) -> None:
        """Report that an attempt failed and will be retried."""

    def commitment(self) -> Commitment | None:
        """
        When the client's status will be committed before the answer has begun; None if it will not
        be, already is, or makes no difference, because errors of a stream are events.
        """

    def pace(self, producer: IPushProducer | None) -> None:
        """Set the producer to pause while the client reads too slowly; None to remove it."""


class PassingAnswer:
    """An answer that passes everything on to another one; subclasses change some of it."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def events(self, events: Sequence[Event]) -> None:
        self._answer.events(events)

    def document(self, document: dict[str, Any], events: Sequence[Event]) -> None:
        self._answer.document(document, events)

    def take_back(self, choice: int) -> bool:
        return self._answer.take_back(choice)

    def stop_at(self, sequences: Sequence[str]) -> None:
        self._answer.stop_at(sequences)

    def counted(self, usage: Usage) -> None:
        self._answer.counted(usage)

    def ignored(self, parameters: Sequence[str]) -> None:
        self._answer.ignored(parameters)

    def asking(self, upstream: str, model: str) -> None:
        self._answer.asking(upstream, model)

    def passed_on(self, headers: Headers, upstream_request: str | None) -> None:
        self._answer.passed_on(headers, upstream_request)

    def note(self, text: str, seconds: float | None = None) -> None:
        self._answer.note(text, seconds)

    def retrying(self, error: ChatError) -> None:
        self._answer.retrying(error)

    def commitment(self) -> Commitment | None:
        return self._answer.commitment()

    def pace(self, producer: IPushProducer | None) -> None:
        self._answer.pace(producer)


class Backend(Protocol):
    """Processes chat completion requests."""

    def complete(self, request: ChatRequest, answer: Answer) -> Deferred[None]:
        """
        Process a request. The Deferred fires when all events are passed to C{answer} (without
        C{[DONE]}), or fails with a L{ChatError}. Cancelling it aborts the request.
        """

    def models(self, headers: Headers) -> Deferred[list[dict[str, Any]]]:
        """
        List the available models as OpenAI model objects; fails with a L{ChatError}.

        @param headers: the headers of the client's request.
        """


class TokenCounter(Protocol):
    """Counts tokens."""

    def count(self, request: ChatRequest) -> Deferred[int]:
        """The number of tokens of a request's prompt; fails with a L{ChatError}."""


class Embedder(Protocol):
    """Embeds texts."""

    def embed(self, request: EmbeddingsRequest) -> Deferred[tuple[bytes, int]]:
        """
        The answer to a request, as the JSON that OpenAI's API has for it, and how many tokens the
        texts have; fails with a L{ChatError}.
        """


class Forwarder(Protocol):
    """Passes on any request of OpenAI's API unchanged."""

    def forward(
        self, method: bytes, target: bytes, headers: Headers, body: IBodyProducer | None
    ) -> Deferred[IResponse]:
        """
        Pass on a request. Fires with the response, whatever its status, when its headers are
        received; fails with a L{ChatError}. Cancelling aborts the request.

        @param target: path and query.
        """
