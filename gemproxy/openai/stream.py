"""Parses the response stream of an OpenAI-compatible upstream. No I/O."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.answer_limits import DEFAULT_LIMITS, AnswerLimits, answer_too_large, parts_of
from gemproxy.chat.chunks import index_of, text_alone
from gemproxy.chat.errors import ChatError, upstream_failed
from gemproxy.chat.jsontext import read
from gemproxy.chat.request import BOM
from gemproxy.chat.split import chunks_of
from gemproxy.chat.sse import DONE, Event, SSEDecoder
from gemproxy.openai.errors import (
    error_of,
    is_error,
    is_page,
    is_plain_chunk,
    page_instead_of_answer,
)

# OpenAI's API makes 128 at most.
_MOST_CHOICES = 1000
# Data that say no more than that the upstream is alive.
_PINGS = frozenset(
    {b"", b"null", b'""', b"[]", b"ping", b"pong", b"keepalive", b"keep-alive", b"heartbeat"}
)
_UNFINISHED = "The upstream's response ended before the completion was finished."
# New-API ends so what its own provider broke off (QuantumNous/new-api#6239).
_BROKEN_OFF = "The upstream's response ended with [DONE], but the completion was not finished."


_CALLS = frozenset({"tool_calls", "function_call"})


class _Choice:
    """
    What is known of a choice.

    @ivar finished: it has a finish reason.
    @ivar has_text: it has content.
    @ivar has_calls: it has calls, which could be incomplete without a word.
    """

    __slots__ = ("finished", "has_calls", "has_text")

    def __init__(self) -> None:
        self.finished = False
        self.has_text = False
        self.has_calls = False

    def add(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or choice.get("message")
        if type(delta) is dict:
            if not self.has_text and delta.get("content"):
                self.has_text = True
            if not _CALLS.isdisjoint(delta) and (
                delta.get("tool_calls") or delta.get("function_call")
            ):
                self.has_calls = True


class UpstreamStream:
    """
    Splits an upstream's response into events and detects its end.

    A single JSON document is accepted as well, for upstreams that do not stream. It is recognised
    by its first character, not by its content type: no event stream starts with a brace.

    @ivar done: whether the upstream sent C{[DONE]}.
    @ivar broken: the number of events that are not JSON objects.
    @ivar document: the document, if the response was one and has ended.
    @ivar end_is_assumed: whether the response ended as it should, but with no word that its text is
        complete.
    """

    def __init__(
        self,
        include_usage: bool,
        choices: int = 1,
        setting: str = "the base URL",
        limits: AnswerLimits = DEFAULT_LIMITS,
    ) -> None:
        """
        @param include_usage: whether to include the usage of a single JSON document.
        @param choices: how many were requested.
        @param setting: what the upstream's base URL is set by.
        @param limits: for a document, and for what a single chunk consists of.
        """
        self.done = False
        self.broken = 0
        self.document: dict[str, Any] | None = None
        self.end_is_assumed = False
        self._include_usage = include_usage
        self._requested = choices
        self._setting = setting
        self._limits = limits
        # The beginning, until it tells what the response is; then None.
        self._opening: bytes | None = b""
        self._body: bytearray | None = None
        self._choices: dict[int, _Choice] = {}
        self._unfinished = 0
        self._last: dict[str, Any] = {}
        self._decoder = SSEDecoder(takes_bare_json=True)

    @property
    def finished(self) -> bool:
        """Whether there is a choice, and every choice has a finish reason."""
        return bool(self._choices) and not self._unfinished

    @property
    def is_whole(self) -> bool:
        """Whether all choices that were requested are finished."""
        return len(self._choices) >= self._requested and self.finished

    def feed(self, data: bytes) -> list[Event]:
        """
        Process more bytes; returns the events that they complete.

        @raise StreamError: the upstream reported an error or sent invalid data.
        """
        if self._opening is not None:
            data = self._begun(self._opening + data)
        if self._body is not None:
            self._body += data
            self._check_document(is_whole=False)
            return []
        try:
            events = self._decoder.feed(data)
        except ValueError as error:
            raise StreamError([], upstream_failed(f"The upstream sent {error}.")) from None
        return self._judged(events)

    def close(self, is_proper: bool) -> list[Event]:
        """
        Process the end of the response; returns the remaining events.

        @param is_proper: whether the response says itself that this is its end.
        @raise StreamError: the upstream reported an error, or the stream ended before the
            completion.
        """
        if self._body is not None:
            self._check_document(is_whole=True)
            self.document = _completion(bytes(self._body))
            return [Event(chunk) for chunk in chunks_of(self.document, self._include_usage)]
        broken = self.broken
        # What the end has cut in the middle is not passed on.
        rest = [event for event in self._decoder.close() if not self._is_cut(event)]
        events = self._judged(rest)
        if self.broken > broken:
            pass
        elif self.done or self.finished:
            return events
        elif is_proper and self._is_text():
            self.end_is_assumed = True
            return [*events, self._end()]
        raise StreamError(events, upstream_failed(_UNFINISHED))

    def _begun(self, data: bytes) -> bytes:
        """Find out what the response is. Returns what of its beginning is to be processed."""
        if len(data) < len(BOM) and BOM.startswith(data):
            self._opening = data
            return b""
        data = data.removeprefix(BOM)
        beginning = data.lstrip()
        if not beginning:
            # Such as another proxy's heartbeats.
            self._opening = b""
            return b""
        self._opening = None
        if beginning.startswith((b"{", b"[", b'"')):
            self._body = bytearray()
        elif is_page(beginning):
            raise StreamError([], page_instead_of_answer(self._setting))
        return data

    def _check_document(self, is_whole: bool) -> None:
        """@raise StreamError: what there is of the document is too large."""
        assert self._body is not None  # noqa: S101 - for mypy
        try:
            self._limits.check(len(self._body), parts_of(self._body) if is_whole else 0)
        except ChatError as error:
            raise StreamError([], error) from None

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
        try:
            self._judge(events, good)
        except ChatError as error:
            raise StreamError(good, error) from None
        return good

    def _judge(self, events: list[Event], good: list[Event]) -> None:
        for event in events:
            if self.done:
                break
            if event.data.strip() == DONE:
                self.done = True
                if not self.finished:
                    raise StreamError(good, upstream_failed(_BROKEN_OFF))
                break
            self._limits.check_json(event.data)
            try:
                chunk = event.json()
            except ValueError:
                parts = event.apart()
                if len(parts) > 1:
                    self._judge(parts, good)
                    continue
                chunk = None
            if is_plain_chunk(chunk) and event.name != b"error":
                if not self._is_more_text(event, chunk):
                    self._look_at_choices(chunk)
                good.append(event)
                continue
            if event.name == b"error" or is_error(chunk):
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

    def _is_more_text(self, event: Event, chunk: dict[str, Any]) -> bool:
        """Whether a chunk says nothing that is new of its choice but more text, as most do."""
        event.text = text_alone(chunk)
        known = self._choices.get(0)
        if event.text is None or known is None or not known.has_text:
            return False
        self._last = chunk
        return True

    def _look_at_choices(self, chunk: dict[str, Any]) -> None:
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if type(choice) is dict:
                index = choice.get("index")
                if type(index) is not int:
                    index = index_of(index) or 0
                known = self._choices.get(index)
                if known is None:
                    if len(self._choices) >= max(_MOST_CHOICES, self._requested):
                        raise answer_too_large(f"has more than {len(self._choices)} choices")
                    known = self._choices[index] = _Choice()
                    self._unfinished += 1
                if choice.get("finish_reason") and not known.finished:
                    known.finished = True
                    self._unfinished -= 1
                known.add(choice)
                self._last = chunk

    def _is_text(self) -> bool:
        """
        Whether the answer consists of text alone, and of choices that have no finish reason: those
        of an upstream that gives none.
        """
        return bool(self._choices) and not any(
            choice.finished or choice.has_calls or not choice.has_text
            for choice in self._choices.values()
        )

    def _end(self) -> Event:
        frame = {k: v for k, v in self._last.items() if k not in ("choices", "usage")}
        ends = [{"index": i, "delta": {}, "finish_reason": "stop"} for i in self._choices]
        return Event.of(frame | {"choices": ends})


class StreamError(Exception):
    """
    The upstream reported an error, or its response ended early.

    @ivar events: the events received before the error.
    """

    def __init__(self, events: list[Event], error: ChatError) -> None:
        super().__init__(str(error))
        self.events = events
        self.error = error


def _completion(body: bytes) -> dict[str, Any]:
    """
    @raise StreamError: the document is not a completion.
    """
    try:
        document = read(body, exactly=True)
    except ValueError:
        raise StreamError([], upstream_failed("The upstream's response is not JSON.")) from None
    if is_error(document):
        raise StreamError([], error_of(document, body))
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not choices:
        raise StreamError([], upstream_failed("The upstream's response is not a chat completion."))
    assert isinstance(document, dict)  # noqa: S101 - for mypy
    return document
