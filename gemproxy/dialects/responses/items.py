"""The items of a response, while they grow: each one tells what happens to it as events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gemproxy.chat.shapes import as_object
from gemproxy.dialects.responses.tools import ToolName, custom_input

Json = dict[str, Any]
Events = Iterator[Json]


class Item:
    """
    One item of the output.

    @ivar index: its place in the output.
    @ivar id: its id.
    """

    def __init__(self, index: int, id: str) -> None:
        self.index = index
        self.id = id

    def open(self) -> Events:
        """Its beginning."""
        yield {"type": "response.output_item.added", "item": self.shown("in_progress")}

    def close(self, status: str) -> Events:
        """
        Its end.

        @param status: C{completed}, or C{incomplete} if the answer was cut off there.
        """
        yield {"type": "response.output_item.done", "item": self.shown(status)}

    def shown(self, status: str) -> Json:
        """The item as it is now."""
        raise NotImplementedError


class Reasoning(Item):
    """Thoughts. They are a summary, since that is what models show of them."""

    def __init__(self, index: int, id: str) -> None:
        super().__init__(index, id)
        self.sealed: str | None = None
        self._text: list[str] = []

    def add(self, text: str) -> Events:
        if not self._text:
            yield self._part("added", "")
        self._text.append(text)
        yield {
            "type": "response.reasoning_summary_text.delta",
            "item_id": self.id,
            "summary_index": 0,
            "delta": text,
        }

    def close(self, status: str) -> Events:
        if self._text:
            text = "".join(self._text)
            yield {
                "type": "response.reasoning_summary_text.done",
                "item_id": self.id,
                "summary_index": 0,
                "text": text,
            }
            yield self._part("done", text)
        yield from super().close(status)

    def _part(self, what: str, text: str) -> Json:
        return {
            "type": f"response.reasoning_summary_part.{what}",
            "item_id": self.id,
            "summary_index": 0,
            "part": {"type": "summary_text", "text": text},
        }

    def shown(self, status: str) -> Json:
        texts = ["".join(self._text)] if self._text and status != "in_progress" else []
        item: Json = {
            "id": self.id,
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": text} for text in texts],
        }
        return item if self.sealed is None else item | {"encrypted_content": self.sealed}


class Message(Item):
    """
    A message of the assistant: texts, and refusals.

    @ivar delta_head: what is in front of the sequence number of the next event of a text, as it
        goes over the wire; empty if the next one is not of the text that is being said.
    """

    def __init__(self, index: int, id: str) -> None:
        super().__init__(index, id)
        self.delta_head = b""
        self._parts: list[Json] = []
        self._kind = ""
        self._texts: list[str] = []
        self._annotations: list[Json] = []

    def text(self, text: str) -> Events:
        if self._kind != "output_text":
            yield from self._begin("output_text")
        self._texts.append(text)
        yield self._event("response.output_text.delta") | {"delta": text, "logprobs": []}

    def more_text(self, text: str) -> None:
        """Take more of the text that is being said; whoever calls writes the event."""
        self._texts.append(text)

    def refusal(self, text: str) -> Events:
        if self._kind != "refusal":
            yield from self._begin("refusal")
        self._texts.append(text)
        yield self._event("response.refusal.delta") | {"delta": text}

    def annotation(self, annotation: Json) -> Events:
        if self._kind != "output_text":
            yield from self._begin("output_text")
        event = self._event("response.output_text.annotation.added")
        yield event | {"annotation": annotation, "annotation_index": len(self._annotations)}
        self._annotations.append(annotation)

    def close(self, status: str) -> Events:
        yield from self._end()
        yield from super().close(status)

    def shown(self, status: str) -> Json:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [*self._parts] if status != "in_progress" else [],
        }

    def _event(self, kind: str) -> Json:
        return {"type": kind, "item_id": self.id, "content_index": len(self._parts)}

    def _part(self, text: str) -> Json:
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {
            "type": "output_text",
            "text": text,
            "annotations": [*self._annotations],
            "logprobs": [],
        }

    def _begin(self, kind: str) -> Events:
        yield from self._end()
        self._kind = kind
        if kind == "output_text":
            self.delta_head = (
                b"event: response.output_text.delta\ndata: "
                b'{"type":"response.output_text.delta","item_id":"%b","output_index":%d,'
                b'"content_index":%d,"logprobs":[],"sequence_number":'
                % (self.id.encode(), self.index, len(self._parts))
            )
        yield self._event("response.content_part.added") | {"part": self._part("")}

    def _end(self) -> Events:
        if not self._kind:
            return
        text = "".join(self._texts)
        if self._kind == "refusal":
            yield self._event("response.refusal.done") | {"refusal": text}
        else:
            yield self._event("response.output_text.done") | {"text": text, "logprobs": []}
        part = self._part(text)
        yield self._event("response.content_part.done") | {"part": part}
        self._parts.append(part)
        self._kind, self.delta_head = "", b""
        self._texts, self._annotations = [], []


class Call(Item):
    """A call of a tool."""

    def __init__(self, index: int, id: str, call_id: str, tool: ToolName) -> None:
        super().__init__(index, id)
        self._call_id = call_id
        self._tool = tool
        self._pieces: list[str] = []

    @property
    def _arguments(self) -> str:
        return "".join(self._pieces)

    def add(self, arguments: str) -> Events:
        """More of the arguments, as JSON."""
        self._pieces.append(arguments)
        yield from ()

    def _named(self, item: Json) -> Json:
        """An item with what all calls have."""
        named = item | {"call_id": self._call_id, "name": self._tool.name}
        space = self._tool.namespace
        return named if space is None else named | {"namespace": space}


class FunctionCall(Call):
    """A call of a function."""

    def add(self, arguments: str) -> Events:
        yield from super().add(arguments)
        yield {
            "type": "response.function_call_arguments.delta",
            "item_id": self.id,
            "delta": arguments,
        }

    def close(self, status: str) -> Events:
        yield {
            "type": "response.function_call_arguments.done",
            "item_id": self.id,
            "arguments": self._arguments,
        }
        yield from super().close(status)

    def shown(self, status: str) -> Json:
        item = {"id": self.id, "type": "function_call", "status": status}
        return self._named(item) | {"arguments": self._arguments}


class CustomCall(Call):
    """A call of a tool that takes free text; it is known when its arguments are complete."""

    def __init__(self, index: int, id: str, call_id: str, tool: ToolName) -> None:
        super().__init__(index, id, call_id, tool)
        self._input = ""

    def close(self, status: str) -> Events:
        self._input = custom_input(self._arguments)
        event = {"item_id": self.id}
        yield {"type": "response.custom_tool_call_input.delta", "delta": self._input} | event
        yield {"type": "response.custom_tool_call_input.done", "input": self._input} | event
        yield from super().close(status)

    def shown(self, status: str) -> Json:
        item = {"id": self.id, "type": "custom_tool_call"}
        return self._named(item) | {"input": self._input}


class Picture(Item):
    """A picture, which is whole from the beginning."""

    def __init__(self, index: int, id: str, image: Json) -> None:
        """@param image: as C{message.images} of chat completions has it."""
        super().__init__(index, id)
        url = str(as_object(image.get("image_url")).get("url", ""))
        head, _, self._data = url.partition(",")
        self._format = head.partition(";")[0].rpartition("/")[2] or "png"

    def open(self) -> Events:
        yield from super().open()
        for state in ("in_progress", "generating", "completed"):
            yield {"type": f"response.image_generation_call.{state}", "item_id": self.id}

    def shown(self, status: str) -> Json:
        item: Json = {"id": self.id, "type": "image_generation_call", "status": status}
        if status == "in_progress":
            return item | {"result": None}
        return item | {"result": self._data, "output_format": self._format}
