"""What an OpenAI-compatible upstream streams, event by event: pure."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.errors import SERVER_ERROR, ChatError, Verbatim, upstream_failed
from gemproxy.chat.jsontext import loads
from gemproxy.chat.sse import DONE, Event, SSEDecoder


class UpstreamStream:
    """
    Cuts an upstream's bytes into events and watches for the end of the answer.

    @ivar done: the upstream said C{[DONE]}.
    @ivar broken: how many events were no JSON and were left out.
    """

    def __init__(self) -> None:
        self.done = False
        self.broken = 0
        self._finished = False
        self._decoder = SSEDecoder()

    def feed(self, data: bytes) -> list[Event]:
        """
        The events that are now complete.

        @raise StreamError: the upstream reported one.
        """
        return self._judged(self._decoder.feed(data))

    def close(self) -> list[Event]:
        """
        What was left when the connection ended well.

        @raise StreamError: the upstream reported one.
        @raise ChatError: the stream ended before the answer did.
        """
        events = self._judged(self._decoder.close())
        if not self.done and not self._finished:
            raise StreamError(
                events, upstream_failed("The upstream's answer was cut off before its end.")
            )
        return events

    def _judged(self, events: list[Event]) -> list[Event]:
        good: list[Event] = []
        for event in events:
            if self.done:
                break
            if event.data.strip() == DONE:
                self.done = True
                break
            try:
                chunk = loads(event.data)
            except ValueError:
                self.broken += 1
                continue
            if isinstance(chunk, dict):
                if chunk.get("error"):
                    raise StreamError(good, error_of(chunk, event.data))
                self._finished = self._finished or _finishes(chunk)
            good.append(event)
        return good


class StreamError(Exception):
    """
    The upstream broke off, with or without a word.

    @ivar events: what came before it.
    """

    def __init__(self, events: list[Event], error: ChatError) -> None:
        super().__init__(str(error))
        self.events = events
        self.error = error


def error_of(payload: dict[str, Any], data: bytes) -> ChatError:
    """The error that an upstream reported with, or after, a status of 200."""
    error = payload.get("error")
    fields = error if isinstance(error, dict) else {"message": error}
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
        verbatim=Verbatim(b"application/json", data, payload),
    )


def _finishes(chunk: dict[str, Any]) -> bool:
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") for choice in choices
    )
