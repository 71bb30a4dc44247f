"""An answer as a response: a stream of events, or one document, made in the same way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain
from typing import Any

from gemproxy.chat.chunks import Usage
from gemproxy.chat.deltas import text_of
from gemproxy.chat.errors import ChatError
from gemproxy.chat.extra_content import given_signature
from gemproxy.chat.form import ChatForm
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.chat.sse import DONE, Event, encode
from gemproxy.dialects.calls import Calls
from gemproxy.dialects.responses.items import (
    Call,
    CustomCall,
    FunctionCall,
    Item,
    Message,
    Picture,
    Reasoning,
)
from gemproxy.dialects.responses.kept import record_of, response_id
from gemproxy.dialects.responses.request import ResponsesRequest
from gemproxy.dialects.seal import Seal

Json = dict[str, Any]
Events = Iterator[Json]

# The finish reasons of an answer that was cut off.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
# The code of an error that has none.
_SERVER_ERROR = "server_error"
# Fields of the request that the response repeats, and what it has where the request has none.
_REPEATED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


class ResponseBuilder:
    """Makes a response of chunks, and tells what happens to it as events."""

    def __init__(self, id: str, now: int, asked: ResponsesRequest, seal: Seal) -> None:
        """
        @param id: what all ids of the response are made of.
        @param now: the time, in seconds since the epoch.
        """
        self._id = id
        self._tools = asked.tools
        self._wants_signatures = asked.wants_signatures
        self._input = asked.items
        self._seal = seal
        self._output: dict[int, Json] = {}
        self._open: Reasoning | Message | None = None
        self._calls: Calls[Call] = Calls()
        # Those for which the client has not seen a place yet.
        self._signatures: Json = {}
        self._items = 0
        self._finish_reason: str | None = None
        self._usage: Json | None = None
        self._complete: Json | None = None
        sent = asked.sent
        self._response: Json = {
            "id": response_id(id),
            "object": "response",
            "created_at": now,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": asked.chat.model,
            "output": [],
            "previous_response_id": sent.get("previous_response_id"),
            "usage": None,
        } | {
            name: default if sent.get(name) is None else sent[name]
            for name, default in _REPEATED.items()
        }

    def begin(self) -> Events:
        yield {"type": "response.created", "response": self._response}
        yield {"type": "response.in_progress", "response": self._response}

    def add(self, chunk: Json) -> Events:
        """@param chunk: a chat.completion.chunk, or a chat.completion."""
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        for choice in objects_in(chunk.get("choices"))[:1]:
            said = choice.get("delta")
            yield from self._add(
                said if isinstance(said, dict) else as_object(choice.get("message"))
            )
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    @property
    def text_under_way(self) -> Message | None:
        """The message whose text goes on if the next chunk has nothing but text."""
        message = self._open
        is_one = isinstance(message, Message) and message.delta_head and not self._signatures
        return message if is_one else None  # type: ignore[return-value]

    def _add(self, delta: Json) -> Events:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought and isinstance(thought, str):
            reasoning = yield from self._reasoning()
            yield from self._in(reasoning, reasoning.add(thought))
        if content := delta.get("content"):
            text = content if isinstance(content, str) else text_of(content)
            if text:
                yield from self._in_message(Message.text, text)
        if isinstance(refusal := delta.get("refusal"), str) and refusal:
            yield from self._in_message(Message.refusal, refusal)
        for annotation in objects_in(delta.get("annotations")):
            flat = {"type": annotation.get("type")} | as_object(annotation.get("url_citation"))
            yield from self._in_message(Message.annotation, flat)
        for image in objects_in(delta.get("images")):
            yield from self._close()
            picture = Picture(*self._place("ig"), image)
            yield from self._in(picture, picture.open())
            yield from self._done(picture, "completed")
        if signature := given_signature(delta):
            self._signatures["text"] = signature
        for call in objects_in(delta.get("tool_calls")):
            yield from self._call(call)

    def _call(self, delta: Json) -> Events:
        function = as_object(delta.get("function"))
        known = self._calls.of(delta)
        if known is None:
            id = delta.get("id")
            call_id = id if isinstance(id, str) and id else f"call_{self._id}_{len(self._calls)}"
            if signature := given_signature(delta):
                self._signatures["calls"] = {call_id: signature}
            yield from self._close()
            tool = self._tools.called(str(function.get("name", "")))
            kind, prefix = (CustomCall, "ctc") if tool.is_custom else (FunctionCall, "fc")
            known = kind(*self._place(prefix), call_id, tool)
            self._calls.add(delta, call_id, known)
            yield from self._in(known, known.open())
        arguments = function.get("arguments")
        if isinstance(arguments, str) and arguments:
            yield from self._in(known, known.add(arguments))

    def end(self) -> Events:
        """The answer is complete."""
        reason = _INCOMPLETE.get(self._finish_reason or "")
        status = "completed" if reason is None else "incomplete"
        yield from self._close_all(status)
        response = self._ended(status)
        if reason is not None:
            response["incomplete_details"] = {"reason": reason}
        self._complete = response
        yield {"type": f"response.{status}", "response": response}

    def record(self) -> tuple[str, Json] | None:
        """What is to be kept of the response; None if nothing is."""
        if self._complete is None or not self._input:
            return None
        return record_of(self._id, self._input, self._complete)

    def fail(self, error: ChatError) -> Events:
        """There will be no more of the answer."""
        yield from self._close_all("incomplete")
        code = error.code or _SERVER_ERROR
        yield {"type": "error", "code": code, "message": error.message, "param": error.param}
        failed = {"error": {"code": code, "message": error.message}}
        yield {"type": "response.failed", "response": self._ended("failed") | failed}

    def _ended(self, status: str) -> Json:
        usage = None if self._usage is None else _usage(self._usage)
        output = [item for _, item in sorted(self._output.items())]
        return self._response | {"status": status, "output": output, "usage": usage}

    def _in_message(self, add: Callable[[Message, Any], Events], what: Any) -> Events:
        message = self._open
        if not isinstance(message, Message):
            yield from self._close()
            message = self._open = Message(*self._place("msg"))
            yield from self._in(message, message.open())
        yield from self._in(message, add(message, what))

    def _reasoning(self) -> Generator[Json, None, Reasoning]:
        """The item of thoughts that is open, or another one."""
        if isinstance(self._open, Reasoning):
            return self._open
        yield from self._close()
        opened = self._open = Reasoning(*self._place("rs"))
        yield from self._in(opened, opened.open())
        return opened

    def _close(self, status: str = "completed") -> Events:
        """End the item that is being said, with the signatures that belong after it."""
        signatures, self._signatures = self._signatures, {}
        if signatures and self._wants_signatures:
            reasoning = yield from self._reasoning()
            reasoning.sealed = self._seal.close(signatures)
        if self._open is not None:
            item, self._open = self._open, None
            yield from self._done(item, status)

    def _close_all(self, status: str) -> Events:
        yield from self._close(status)
        for call in self._calls.all():
            yield from self._done(call, status)
        self._calls = Calls()

    def _done(self, item: Item, status: str) -> Events:
        yield from self._in(item, item.close(status))
        self._output[item.index] = item.shown(status)

    def _in(self, item: Item, events: Events) -> Events:
        for event in events:
            event["output_index"] = item.index
            yield event

    def _place(self, prefix: str) -> tuple[int, str]:
        """The index and id of another item."""
        index = self._items
        self._items += 1
        return index, f"{prefix}_{self._id}_{index}"


def _usage(usage: Json) -> Json:
    """The token counts in the words of the Responses API."""
    given = Usage.of_json(usage)
    return {
        "input_tokens": given.prompt,
        "input_tokens_details": {"cached_tokens": given.cached, "cache_write_tokens": 0},
        "output_tokens": given.completion,
        "output_tokens_details": {"reasoning_tokens": given.reasoning},
        "total_tokens": given.prompt + given.completion,
    }


class ResponsesForm(ChatForm):
    """The shape of one answer. The last event has all of it."""

    keeps_all = True

    def __init__(self, builder: ResponseBuilder, ignored: Sequence[str]) -> None:
        self.ignored = ignored
        self._builder = builder
        self._sent = 0

    def events(self, events: Sequence[Event]) -> bytes:
        pieces: list[bytes] = []
        for event in events:
            if event.data == DONE or self._goes_on(event.text, pieces):
                continue
            try:
                chunk = event.json()
            except ValueError:
                continue
            if isinstance(chunk, dict):
                pieces.append(self._encoded(self._builder.add(chunk)))
        return b"".join(pieces)

    def _goes_on(self, text: str | None, pieces: list[bytes]) -> bool:
        """Most chunks have more of the same text: those take a short way."""
        message = self._builder.text_under_way
        if message is None or text is None:
            return False
        message.more_text(text)
        data = dumps(text, keep_halves=True)
        pieces.append(b'%b%d,"delta":%b}\n\n' % (message.delta_head, self._sent, data))
        self._sent += 1
        return True

    def _encoded(self, events: Events) -> bytes:
        begin = () if self._sent else self._builder.begin()
        return b"".join(map(encode, self._numbered(chain(begin, events))))

    def _numbered(self, events: Events) -> Iterator[Event]:
        for event in events:
            event["sequence_number"] = self._sent
            self._sent += 1
            yield Event.of(event, event["type"].encode())

    def end(self) -> bytes:
        return self._encoded(self._builder.end())

    def failure(self, error: ChatError) -> bytes:
        return self._encoded(self._builder.fail(error))

    def document(self, completion: Json) -> Any:
        for _ in self._builder.add(completion):
            pass
        *_, last = self._builder.end()
        return last["response"]
