"""The one interface between the faces of the proxy and whatever answers a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.web.iweb import IBodyProducer, IResponse

from gemproxy.chat.chunks import Usage
from gemproxy.chat.errors import ChatError
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.chat.sse import Event


class Answer(Protocol):
    """Where a backend puts an answer, piece by piece."""

    def events(self, events: Sequence[Event]) -> None:
        """Chunks of the answer, in order; each event's data is a chat.completion.chunk."""

    def counted(self, usage: Usage) -> None:
        """The tokens so far, as the model's API counts them; may be said again and again."""

    def ignored(self, parameters: Sequence[str]) -> None:
        """Parameters of the request that are not honoured; to be said before anything else."""

    def note(self, text: str) -> None:
        """What the backend is doing while there is nothing to show (for heartbeats)."""

    def retrying(self, error: ChatError) -> None:
        """Nothing came of a try, and there will be another."""

    def pace(self, producer: IPushProducer | None) -> None:
        """Whom to pause while the client reads slower than events come; None: nobody any more."""


class Backend(Protocol):
    """Something that answers chat completion requests."""

    def complete(self, request: ChatRequest, answer: Answer) -> Deferred[None]:
        """
        Answer a request. The Deferred fires when all events are out (there is no C{[DONE]} among
        them), or fails with a L{ChatError}. Cancelling it aborts whatever is under way.
        """

    def models(self, headers: Headers) -> Deferred[list[dict[str, Any]]]:
        """
        The models on offer, as OpenAI's model objects; fails with a L{ChatError}.

        @param headers: those of the client that wants to know.
        """


class Forwarder(Protocol):
    """Something that takes any request of OpenAI's API as it is."""

    def forward(
        self, method: bytes, target: bytes, headers: Headers, body: IBodyProducer | None
    ) -> Deferred[IResponse]:
        """
        Pass a request on. Fires with the response, whatever its status, once its headers are
        there; fails with a L{ChatError}. Cancelling it drops the request.

        @param target: path, from C{/v1} on, and query.
        """
