"""Ends passed-through responses of /v1/completions at a stop tag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gemproxy.chat.answer_limits import DEFAULT_LIMITS, AnswerLimits, answer_too_large
from gemproxy.chat.jsontext import loads
from gemproxy.chat.sse import DONE, Event, EventTooLarge, SSEDecoder, encode
from gemproxy.chat.stopfilter import StopTagFilter

PATH = b"/v1/completions"


class StopTagCutter:
    """
    Cuts the body of one response, as it passes. A document is kept until its end, within limits.

    @ivar ended: whether a tag has ended it, so that the rest of the body is not needed.
    """

    def __init__(
        self, tags: Sequence[str], choices: int, limits: AnswerLimits = DEFAULT_LIMITS
    ) -> None:
        """@param choices: how many the request is for."""
        self.ended = False
        self._limits = limits
        self._filter = StopTagFilter(tags, choices)
        self._decoder: SSEDecoder | None = None
        self._document = bytearray()

    def begin(self, is_events: bool) -> None:
        """@param is_events: whether the body is a stream of events; else it is a document."""
        self._decoder = SSEDecoder() if is_events else None

    def feed(self, data: bytes) -> bytes:
        """
        The next piece of the body; returns what of it is to be passed on now.

        @raise ChatError: 502, the document or an event is too large.
        """
        if self.ended:
            return b""
        if self._decoder is None:
            self._document += data
            self._limits.check(len(self._document), 0)
            return b""
        try:
            events = self._decoder.feed(data)
        except EventTooLarge as error:
            raise answer_too_large(f"has {error}") from None
        return self._passed(events)

    def close(self) -> bytes:
        """
        The rest, at the end of the body.

        @raise ChatError: likewise.
        """
        if self.ended:
            return b""
        if self._decoder is None:
            document = bytes(self._document)
            self._limits.check_json(document)
            return b"".join(event.data for event in self._filter.feed(Event(document))) or document
        rest = self._passed(self._decoder.close())
        return rest + b"".join(map(encode, self._filter.flush()))

    def _passed(self, events: Sequence[Event]) -> bytes:
        passed: list[Event] = []
        for event in events:
            self._limits.check_json(event.data)
            passed += [event] if event.data == DONE else self._filter.feed(event)
            if self._filter.ended:
                self.ended = True
                passed.append(Event(DONE))
                break
        return b"".join(map(encode, passed))


def choices_in(request: bytes) -> int:
    """@param request: the body of one for completions."""
    try:
        body: Any = loads(request)
    except ValueError:
        return 1
    n, prompt = (body.get("n"), body.get("prompt")) if isinstance(body, dict) else (1, None)
    prompts = 1
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompts = len(prompt)
    return prompts * (n if isinstance(n, int) and n > 0 else 1)
