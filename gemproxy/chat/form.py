"""How an answer is written to its client: the shape of OpenAI's chat completions, and of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from attrs import frozen

from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.sse import DONE, Event, comment, encode


@frozen
class ErrorResponse:
    """
    An error as a whole response.

    @ivar event: the name of an event with the same body, in a stream that somebody else began.
    """

    status: int
    content_type: bytes
    body: bytes
    event: bytes = b""


class ErrorForm(Protocol):
    """The shape of errors."""

    def error(self, error: ChatError) -> ErrorResponse:
        """The whole response."""


class AnswerForm(ErrorForm, Protocol):
    """
    The shape of one answer. It may keep a state, so each answer has its own.

    @ivar ignored: the names of the request's parameters that had to be left out.
    @ivar stream_type: the content type of a stream.
    @ivar keeps_all: whether it keeps the whole answer until the end of a stream.
    """

    @property
    def ignored(self) -> Sequence[str]: ...

    @property
    def stream_type(self) -> bytes: ...

    @property
    def keeps_all(self) -> bool: ...

    def events(self, events: Sequence[Event]) -> bytes:
        """
        The next chunks in a stream.

        @param events: each with a chat.completion.chunk, or what an upstream sent instead of one.
        """

    def heartbeat(self, note: str) -> bytes:
        """
        What keeps a silent stream alive.

        @param note: the current activity.
        """

    def end(self) -> bytes:
        """The end of a stream that is complete."""

    def failure(self, error: ChatError) -> bytes:
        """An error in a stream that has begun, and the stream's end."""

    def document(self, completion: dict[str, Any]) -> Any:
        """The whole answer as one JSON document, for a client that does not stream."""

    def failed_document(self, error: ChatError) -> Any:
        """The JSON document of an error, when the status 200 is already sent."""


class ChatForm:
    """Chat completions, which are what backends produce."""

    ignored: Sequence[str] = ()
    keeps_all: bool = False
    stream_type: bytes = b"text/event-stream; charset=utf-8"

    def error(self, error: ChatError) -> ErrorResponse:
        content_type, body = error.body()
        return ErrorResponse(error.status, content_type, body)

    def events(self, events: Sequence[Event]) -> bytes:
        return b"".join(map(encode, events))

    def heartbeat(self, note: str) -> bytes:
        return comment(f"heartbeat {note}")

    def end(self) -> bytes:
        return encode(Event(DONE))

    def failure(self, error: ChatError) -> bytes:
        return encode(Event(dumps(error.payload())))

    def document(self, completion: dict[str, Any]) -> Any:
        return completion

    def failed_document(self, error: ChatError) -> Any:
        return error.payload()


CHAT_FORM = ChatForm()
