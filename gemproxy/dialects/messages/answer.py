"""A chat completion as a message, streamed or whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from gemproxy.chat.chunks import Usage, index_of
from gemproxy.chat.errors import ChatError, upstream_failed
from gemproxy.chat.form import ErrorResponse
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.chat.sse import Event
from gemproxy.dialects.messages.blocks import Blocks
from gemproxy.dialects.messages.display import Display
from gemproxy.dialects.messages.errors import error_object, error_response
from gemproxy.dialects.messages.writers import DocumentWriter, StreamWriter, event
from gemproxy.dialects.seal import Seal

Json = dict[str, Any]

_PING = event(b"ping", b'{"type":"ping"}')
_STOP = event(b"message_stop", b'{"type":"message_stop"}')
_GOES_ON: Json = {"stop_reason": None, "stop_sequence": None}


class MessagesForm:
    """The shape of one answer."""

    keeps_all = False
    stream_type: bytes = b"text/event-stream; charset=utf-8"

    def __init__(
        self,
        id: str,
        model: str,
        seal: Seal,
        display: Display,
        searches: bool,
        ignored: Sequence[str],
    ) -> None:
        """
        @param model: as the client calls it.
        @param display: how much of the thinking is shown.
        @param searches: whether the model may search the web.
        """
        self.ignored = ignored
        self._id = id
        self._model = model
        # No function of its own: a form that was made in another process comes from there.
        self._make_blocks = partial(Blocks, seal=seal, display=display, id=id, searches=searches)
        started = {"type": "message_start", "message": self._message([], _GOES_ON, {})}
        self._writer = StreamWriter(event(b"message_start", dumps(started)))
        self._blocks: Blocks = self._make_blocks(self._writer)
        self._ending = _Ending()
        self._usage: Json = {}
        self._has_failed = False

    def events(self, events: Sequence[Event]) -> bytes:
        for each in events:
            try:
                chunk = each.json()
            except ValueError:
                continue
            if isinstance(chunk, dict):
                self._add(chunk)
        return self._writer.take()

    def _add(self, chunk: Json) -> None:
        for choice in objects_in(chunk.get("choices")):
            if index_of(choice.get("index")):
                continue
            # Some upstreams send a whole message, in the end or instead of deltas.
            delta = choice.get("delta") or (choice.get("message") if self._writer.is_empty else {})
            self._blocks.add(as_object(delta))
            if choice.get("finish_reason"):
                self._ending.read(choice)
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        if error := chunk.get("error"):
            told = as_object(error).get("message", error)
            self._fail(upstream_failed(str(told)))

    def heartbeat(self, note: str) -> bytes:
        self._writer.begin()
        return self._writer.take() + _PING

    def end(self) -> bytes:
        if self._has_failed:
            return b""
        self._blocks.finish()
        delta = self._ending.fields(self._blocks)
        ended = {"type": "message_delta", "delta": delta, "usage": _usage(self._usage)}
        self._writer.write(b"message_delta", dumps(ended))
        return self._writer.take() + _STOP

    def failure(self, error: ChatError) -> bytes:
        self._fail(error)
        return self._writer.take()

    def _fail(self, error: ChatError) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._writer.write(b"error", dumps(error_object(error)))

    def error(self, error: ChatError) -> ErrorResponse:
        return error_response(error)

    def failed_document(self, error: ChatError) -> Any:
        return error_object(error)

    def document(self, completion: Json) -> Any:
        writer = DocumentWriter()
        blocks = self._make_blocks(writer)
        ending = _Ending()
        for choice in objects_in(completion.get("choices"))[:1]:
            blocks.add(as_object(choice.get("message")))
            ending.read(choice)
        blocks.finish()
        usage = as_object(completion.get("usage"))
        return self._message(writer.blocks, ending.fields(blocks), usage)

    def _message(self, content: list[Json], ending: Json, usage: Json) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            **ending,
            "usage": _usage(usage),
        }


class _Ending:
    """Why an answer ended."""

    def __init__(self) -> None:
        self._reason: Any = None
        self._native: Any = None
        self._stop: Any = None

    def read(self, choice: Json) -> None:
        """@param choice: one with a C{finish_reason}."""
        self._reason = choice.get("finish_reason")
        self._native = choice.get("native_finish_reason")
        self._stop = choice.get("stop_reason")

    def fields(self, blocks: Blocks) -> Json:
        """The fields of a message, or of the event that ends it."""
        if isinstance(self._stop, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": self._stop}
        if blocks.refusal or self._reason == "content_filter":
            told = blocks.refusal or f"The answer was cut ({self._native or 'content_filter'})."
            details = {"type": "refusal", "category": None, "explanation": told}
            return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
        if self._reason == "length":
            reason = "max_tokens"
        else:
            reason = "tool_use" if blocks.has_calls else "end_turn"
        return {"stop_reason": reason, "stop_sequence": None}


def _usage(usage: Json) -> Json:
    """Token counts; what came from a cache is counted apart, and no cache is written for money."""
    given = Usage.of_json(usage)
    details = {"output_tokens_details": {"thinking_tokens": given.reasoning}}
    return {
        "input_tokens": max(0, given.prompt - given.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": given.cached,
        "output_tokens": given.completion,
        **(details if given.reasoning else {}),
    }
