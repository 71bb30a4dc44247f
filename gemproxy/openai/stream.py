"""Parses the response stream of an OpenAI-compatible upstream. No I/O."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.errors import SERVER_ERROR, ChatError, Verbatim, upstream_failed
from gemproxy.chat.jsontext import read
from gemproxy.chat.split import chunks_of
from gemproxy.chat.sse import DONE, Event, SSEDecoder

_DOCUMENT_LIMIT = 256 * 1024 * 1024
_MESSAGE_LENGTH = 1000
# Data that say no more than that the upstream is alive.
_PINGS = frozenset(
    {b"", b"null", b'""', b"[]", b"ping", b"pong", b"keepalive", b"keep-alive", b"heartbeat"}
)


class UpstreamStream:
    """
    Splits an upstream's response into events and detects its end.

    A single JSON document is accepted as well, for upstreams that do not stream. It is recognised
    by its first character, not by its content type: no event stream starts with a brace.

    @ivar done: whether the upstream sent C{[DONE]}.
    @ivar broken: the number of events that are not JSON objects.
    """

    def __init__(self, include_usage: bool) -> None:
        """@param include_usage: whether to include the usage of a single JSON document."""
        self.done = False
        self.broken = 0
        self._include_usage = include_usage
        self._begun = False
        self._document: bytearray | None = None
        # Maps the index of each choice to whether it has a finish reason.
        self._choices: dict[str, bool] = {}
        self._decoder = SSEDecoder()

    @property
    def finished(self) -> bool:
        """Whether every choice has a finish reason."""
        return self.done or (bool(self._choices) and all(self._choices.values()))

    def feed(self, data: bytes) -> list[Event]:
        """
        Process more bytes; returns the events that they complete.

        @raise StreamError: the upstream reported an error or sent invalid data.
        """
        if not self._begun and (beginning := data.lstrip()):
            self._begun = True
            if beginning.startswith(b"{"):
                self._document = bytearray()
        if self._document is not None:
            self._document += data
            if len(self._document) > _DOCUMENT_LIMIT:
                raise StreamError([], upstream_failed("The upstream's response is too large."))
            return []
        try:
            events = self._decoder.feed(data)
        except ValueError as error:
            raise StreamError([], upstream_failed(f"The upstream sent {error}.")) from None
        return self._judged(events)

    def close(self) -> list[Event]:
        """
        Process the regular end of the response; returns the remaining events.

        @raise StreamError: the upstream reported an error, or the stream ended before the
            completion.
        """
        if self._document is not None:
            return _document_events(bytes(self._document), self._include_usage)
        # What the end has cut in the middle is not passed on.
        rest = [event for event in self._decoder.close() if not self._is_cut(event)]
        events = self._judged(rest)
        if not self.finished:
            raise StreamError(
                events,
                upstream_failed(
                    "The upstream's response ended before the completion was finished."
                ),
            )
        return events

    def _is_cut(self, event: Event) -> bool:
        if not event.data.startswith(b"{") or event.name == b"error" or len(event.apart()) > 1:
            return False
        try:
            event.json()
        except ValueError:
            self.broken += 1
            return True
        return False

    def _judged(self, events: list[Event]) -> list[Event]:
        good: list[Event] = []
        self._judge(events, good)
        return good

    def _judge(self, events: list[Event], good: list[Event]) -> None:
        for event in events:
            if self.done:
                break
            if event.data == DONE or event.data.strip() == DONE:
                self.done = True
                break
            try:
                chunk = event.json()
            except ValueError:
                parts = event.apart()
                if len(parts) > 1:
                    self._judge(parts, good)
                    continue
                chunk = None
            if event.name == b"error" or (isinstance(chunk, dict) and chunk.get("error")):
                raise StreamError(good, error_of(chunk, event.data))
            if isinstance(chunk, dict):
                if chunk.get("type") == "ping" and "choices" not in chunk:
                    continue
                self._look_at_choices(chunk)
            elif event.name == b"ping" or event.data.strip().lower() in _PINGS:
                continue
            else:
                self.broken += 1
            good.append(event)

    def _look_at_choices(self, chunk: dict[str, Any]) -> None:
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = str(choice.get("index"))
                if choice.get("finish_reason"):
                    self._choices[index] = True
                elif index not in self._choices:
                    self._choices[index] = False


class StreamError(Exception):
    """
    The upstream reported an error, or its response ended early.

    @ivar events: the events received before the error.
    """

    def __init__(self, events: list[Event], error: ChatError) -> None:
        super().__init__(str(error))
        self.events = events
        self.error = error


def error_of(payload: Any, data: bytes) -> ChatError:
    """
    Convert an error reported in a response with status 200.

    @param payload: C{data} parsed as JSON, if it is JSON.
    """
    is_object = isinstance(payload, dict)
    error = payload.get("error") if is_object else None
    # Some upstreams send an event named "error" without an error object in its data.
    fields = error or (payload if is_object else data.decode("utf-8", "replace"))
    if not isinstance(fields, dict):
        fields = {"message": str(fields)[:_MESSAGE_LENGTH]}
    code = fields.get("code")
    status = fields.get("status") if isinstance(fields.get("status"), int) else code
    if isinstance(status, str) and status.isascii() and status.isdigit():
        status = int(status)
    if not isinstance(status, int) or not 400 <= status < 600:
        status = 502
    return ChatError(
        status,
        str(fields.get("type") or SERVER_ERROR),
        str(fields.get("message") or "The upstream reported an error."),
        verbatim=Verbatim(b"application/json", data, payload) if error else None,
    )


def _document_events(body: bytes, include_usage: bool) -> list[Event]:
    """
    @raise StreamError: the document is not a completion.
    """
    try:
        document = read(body, exactly=True)
    except ValueError:
        raise StreamError([], upstream_failed("The upstream's response is not JSON.")) from None
    if document.get("error"):
        raise StreamError([], error_of(document, body))
    if not isinstance(document.get("choices"), list):
        raise StreamError([], upstream_failed("The upstream's response is not a chat completion."))
    return [Event(chunk) for chunk in chunks_of(document, include_usage)]
