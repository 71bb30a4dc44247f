"""A chat completion as Google's API answers: a stream of responses, or one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from gemproxy.chat.chunks import index_of
from gemproxy.chat.errors import ChatError, upstream_failed
from gemproxy.chat.form import ErrorResponse
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.chat.sse import Event
from gemproxy.dialects.native.errors import error_object, error_response
from gemproxy.dialects.native.google import merged, text_of, with_text
from gemproxy.dialects.native.parts import Parts, finish_reason, usage_metadata

Json = dict[str, Any]


@frozen
class Framing:
    """
    How the responses of a stream are told apart, as Google does it.

    @ivar silence: what means nothing. It is no comment: google-genai takes one for broken JSON.
    """

    content_type: bytes
    opening: bytes
    before: bytes
    after: bytes
    between: bytes
    closing: bytes
    silence: bytes


SSE = Framing(
    b"text/event-stream; charset=utf-8", b"", b"data: ", b"\r\n\r\n", b"", b"", b"\r\n\r\n"
)
ARRAY = Framing(b"application/json; charset=UTF-8", b"[", b"", b"", b",\r\n", b"]", b"\r\n")


class NativeForm:
    """
    The shape of one answer. What Google said is passed on as it came, unless a stop tag has cut
    its text.
    """

    keeps_all = False

    def __init__(
        self, id: str, model: str, framing: Framing, stream: bool, ignored: Sequence[str] = ()
    ) -> None:
        """
        @param id: of the response, if it is not Google's own.
        @param model: as the client calls it, likewise.
        """
        self.ignored = ignored
        self.stream_type = framing.content_type
        self._frame: Json = {"modelVersion": model, "responseId": id}
        self._framing = framing
        self._is_array = stream and framing is ARRAY
        self._before = framing.opening
        self._has_failed = False
        self._answer = _Answer()
        # What is around the text in a response that has nothing else.
        around = dumps(_response([{"text": ""}], 0)["candidates"])
        before, _, after = around.partition(b'""')
        self._before_text = b'{"candidates":' + before
        self._after_text = after + b"," + dumps(self._frame)[1:]

    def events(self, events: Sequence[Event]) -> bytes:
        if len(events) == 1 and (text := self._answer.plain_text(events[0])) is not None:
            # Most chunks of other models.
            return self._framed_bytes(self._before_text + dumps(text) + self._after_text)
        responses: list[Json] = []
        for event in events:
            try:
                chunk = event.json()
            except ValueError:
                continue
            if not isinstance(chunk, dict):
                continue
            if error := chunk.get("error"):
                told = str(as_object(error).get("message", error))
                return self._written(responses) + self.failure(upstream_failed(told))
            responses += self._answer.responses(chunk)
        return self._written(responses)

    def _written(self, responses: Sequence[Json]) -> bytes:
        return b"".join(self._framed(response | self._frame_of(response)) for response in responses)

    def _frame_of(self, response: Json) -> Json:
        return {} if "responseId" in response or "modelVersion" in response else self._frame

    def _framed(self, document: Json) -> bytes:
        return self._framed_bytes(dumps(document))

    def _framed_bytes(self, document: bytes) -> bytes:
        before, self._before = self._before, self._framing.between
        framing = self._framing
        return before + framing.before + document + framing.after

    def heartbeat(self, note: str) -> bytes:
        if self._before is not self._framing.opening:
            return self._framing.silence
        # An array has begun, and its first element needs no comma.
        opening, self._before = self._before, b""
        return opening + self._framing.silence

    def end(self) -> bytes:
        if self._has_failed:
            return b""
        return self._written(self._answer.last()) + self._closing()

    def _closing(self) -> bytes:
        is_begun = self._before is not self._framing.opening
        return self._framing.closing if is_begun else self._framing.opening + self._framing.closing

    def failure(self, error: ChatError) -> bytes:
        if self._has_failed:
            return b""
        self._has_failed = True
        return self._framed(error_object(error)) + self._closing()

    def error(self, error: ChatError) -> ErrorResponse:
        answer = error_response(error)
        if not self._is_array:
            return answer
        # As Google does where the answer would have been an array.
        return ErrorResponse(answer.status, answer.content_type, b"[%b]" % answer.body)

    def failed_document(self, error: ChatError) -> Any:
        return error_object(error)

    def document(self, completion: Json) -> Any:
        answer = _Answer()
        choices = [
            choice | {"delta": as_object(choice.get("message"))}
            for choice in objects_in(completion.get("choices"))
        ]
        whole = merged([*answer.responses(completion | {"choices": choices}), *answer.last()])
        return whole | self._frame_of(whole)


class _Answer:
    """What has been said so far."""

    def __init__(self) -> None:
        self._is_google = False
        self._usage: Json | None = None
        self._parts: dict[int, Parts] = {}
        self._reasons: dict[int, str] = {}
        # Of the candidates to which Google has given a reason.
        self._finished: set[int] = set()

    def plain_text(self, event: Event) -> str | None:
        """The text of a chunk that has nothing else for a client; None of all others."""
        return None if self._is_google else event.text

    def responses(self, chunk: Json) -> list[Json]:
        """What to send of a chunk."""
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage_metadata(usage)
        sent: list[Json] = []
        for choice in objects_in(chunk.get("choices")):
            delta, index = as_object(choice.get("delta")), index_of(choice.get("index")) or 0
            google = objects_in(delta.get("google_responses"))
            self._is_google = self._is_google or bool(google)
            reason = choice.get("finish_reason")
            if self._is_google:
                sent += self._google(google, delta, index)
            else:
                sent += self._translated(delta, index)
            if isinstance(reason, str):
                self._reasons[index] = finish_reason(reason, choice.get("native_finish_reason"))
        return sent

    def _google(self, google: list[Json], delta: Json, index: int) -> list[Json]:
        content = delta.get("content")
        text = content if isinstance(content, str) else ""
        if text != "".join(map(text_of, google)):
            google = with_text(google, text)
        for response in google:
            for candidate in objects_in(response.get("candidates")):
                if candidate.get("finishReason"):
                    self._finished.add(index_of(candidate.get("index")) or 0)
            self._finished |= {index} if "promptFeedback" in response else set()
        return google

    def _translated(self, delta: Json, index: int) -> list[Json]:
        parts = self._parts.setdefault(index, Parts()).added(delta)
        return [_response(parts, index)] if parts else []

    def last(self) -> list[Json]:
        """What comes at the end: the calls, why the answer ended, and the token counts."""
        candidates = []
        for index, reason in self._reasons.items():
            if index not in self._finished:
                parts = self._parts[index].rest() if index in self._parts else []
                [candidate] = _response(parts, index)["candidates"]
                candidates.append(candidate | {"finishReason": reason})
        if not candidates:
            return []
        usage = {} if self._usage is None else {"usageMetadata": self._usage}
        return [{"candidates": candidates} | usage]


def _response(parts: list[Json], index: int) -> Json:
    content = {"parts": parts, "role": "model"}
    return {"candidates": [{"content": content, "index": index}]}
