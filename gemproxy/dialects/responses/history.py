"""The input of a Responses request as the messages of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field

from gemproxy.chat.errors import bad_request
from gemproxy.chat.extra_content import extra_content
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.dialects.content import as_content
from gemproxy.dialects.responses.tools import custom_arguments, function_name
from gemproxy.dialects.seal import Seal

Json = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
# What other clients' tools have done: the model is told in words.
_OUTPUTS = frozenset({"local_shell_call_output", "shell_call_output", "apply_patch_call_output"})


@define
class History:
    """
    Messages made of items, one after the other. Items of the assistant that follow each other are
    one message.

    @ivar messages: as chat completions have them.
    @ivar ignored: what could not be used.
    """

    _seal: Seal
    messages: list[Json] = field(factory=list, init=False)
    ignored: list[str] = field(factory=list, init=False)
    _signatures: dict[str, str] = field(factory=dict, init=False)

    def add(self, items: Sequence[Any], field: str = "input") -> None:
        """
        @param field: where the items are.
        @raise ChatError: 400, an item is invalid; the error names it.
        """
        for position, item in enumerate(items):
            where = f"{field}[{position}]"
            if not isinstance(item, dict):
                raise bad_request(f"'{where}' must be an object.", where)
            self._add(item, where)

    def _add(self, item: Json, where: str) -> None:
        kind = item.get("type")
        if kind in (None, "message"):
            self._add_message(item, where)
        elif kind in ("function_call", "custom_tool_call"):
            self._add_call(item, where)
        elif kind in ("function_call_output", "custom_tool_call_output") or kind in _OUTPUTS:
            self._add_output(item, where)
        elif kind == "reasoning":
            self._add_reasoning(item)
        elif kind == "image_generation_call" and isinstance(item.get("result"), str):
            encoding = item.get("output_format") or "png"
            url = f"data:image/{encoding};base64,{item['result']}"
            image = {"type": "image_url", "image_url": {"url": url}}
            self._answer().setdefault("images", []).append(image)
        elif kind == "item_reference":
            self._add_reference(item, where)
        elif isinstance(kind, str):
            # Calls of tools that OpenAI runs: their results are in the answer's text.
            self.ignored.append(f"input.{kind}")
        else:
            raise bad_request(f"'{where}.type' must be a string.", f"{where}.type")

    def _answer(self) -> Json:
        """The message of the assistant to which the next item belongs."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        return self.messages[-1]

    def _add_message(self, item: Json, where: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise bad_request(
                f"'{where}.role' must be one of {', '.join(_ROLES)}.", f"{where}.role"
            )
        content = _content(item.get("content"), f"{where}.content")
        if role != "assistant":
            self.messages.append({"role": role, "content": content})
            return
        answer = self._answer()
        before = answer["content"]
        answer["content"] = content if before is None else [*_as_parts(before), *_as_parts(content)]

    def _add_call(self, item: Json, where: str) -> None:
        id, name, namespace = item.get("call_id"), item.get("name"), item.get("namespace")
        for key, value in (("call_id", id), ("name", name)):
            if not isinstance(value, str) or not value:
                raise bad_request(f"'{where}.{key}' must be a string.", f"{where}.{key}")
        arguments = item.get("arguments")
        if item["type"] == "custom_tool_call":
            arguments = dumps(custom_arguments(str(item.get("input", "")))).decode()
        namespace = namespace if isinstance(namespace, str) else None
        function = {"name": function_name(str(name), namespace), "arguments": arguments}
        call: Json = {"id": id, "type": "function", "function": function}
        if signature := self._signatures.get(str(id)):
            call |= extra_content(signature)
        self._answer().setdefault("tool_calls", []).append(call)

    def _add_output(self, item: Json, where: str) -> None:
        id = item.get("call_id") or item.get("id")
        if not isinstance(id, str):
            raise bad_request(f"'{where}.call_id' must be a string.", f"{where}.call_id")
        output = item.get("output")
        if isinstance(output, list) and item.get("type") in (
            "function_call_output",
            "custom_tool_call_output",
        ):
            content = _content(output, f"{where}.output")
        else:
            content = output if isinstance(output, str) else dumps(output).decode()
        self.messages.append({"role": "tool", "tool_call_id": id, "content": content})

    def _add_reasoning(self, item: Json) -> None:
        sealed = item.get("encrypted_content")
        kept = as_object(self._seal.open(sealed))
        if sealed and not kept:
            # Made by another: by OpenAI, or with other keys.
            self.ignored.append("input.encrypted_content")
        self._signatures |= {
            id: text for id, text in as_object(kept.get("calls")).items() if isinstance(text, str)
        }
        parts = [*objects_in(item.get("summary")), *objects_in(item.get("content"))]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        answer = self._answer()
        if texts:
            before = answer.get("reasoning_content")
            answer["reasoning_content"] = "\n\n".join([before, *texts] if before else texts)
        if isinstance(signature := kept.get("text"), str):
            answer |= extra_content(signature)

    def _add_reference(self, item: Json, where: str) -> None:
        id = item.get("id")
        if isinstance(id, str) and id.startswith("rs_"):
            # Reasoning helps, but nothing is wrong without it.
            return
        raise bad_request(
            f"'{where}' refers to an item that is not kept here: send the items themselves.", where
        )


def _content(content: Any, where: str) -> str | list[Json]:
    """The content of a chat message: a text if there is nothing else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad_request(f"'{where}' must be a string or a list.", where)
    return as_content(
        [_part(part, f"{where}[{position}]") for position, part in enumerate(content)]
    )


def _as_parts(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _part(part: Any, where: str) -> Json:
    if not isinstance(part, dict):
        raise bad_request(f"'{where}' must be an object.", where)
    kind = part.get("type")
    if kind in _TEXTS or kind == "refusal":
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise bad_request(f"'{where}.text' must be a string.", f"{where}.text")
        return {"type": "text", "text": text}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        image = {"url": part["image_url"]}
        if isinstance(part.get("detail"), str):
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_file":
        return {"type": "file", "file": {key: part[key] for key in part if key != "type"}}
    # Whoever answers knows it, or says that it does not.
    return part
