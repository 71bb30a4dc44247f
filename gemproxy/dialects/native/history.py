"""The contents of a request to Google's API as the messages of chat completions."""

from __future__ import annotations

from collections import deque
from typing import Any

from gemproxy.chat.errors import bad_request
from gemproxy.chat.extra_content import extra_content
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.dialects.content import as_content
from gemproxy.dialects.native.fields import spelt

Json = dict[str, Any]

_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mp3": "mp3", "audio/mpeg": "mp3"}


def system_text(instruction: Any) -> str:
    """The text of a C{systemInstruction}: a content, or a string as SDKs take it."""
    if isinstance(instruction, str):
        return instruction
    texts = (part.get("text") for part in objects_in(as_object(instruction).get("parts")))
    return "\n\n".join(text for text in texts if isinstance(text, str) and text)


class History:
    """
    Translates contents, one after the other.

    @ivar messages: the messages of chat completions.
    """

    def __init__(self) -> None:
        self.messages: list[Json] = []
        self._calls = 0
        # The ids of calls without a result, by the names of their functions.
        self._open: dict[str, deque[str]] = {}

    def add(self, content: Any, where: str) -> None:
        """
        Translate one content.

        @param where: its place in the request, for errors.
        @raise ChatError: 400, it is invalid; the error names the place.
        """
        if not isinstance(content, dict):
            raise bad_request(f"'{where}' must be an object.", where)
        parts = content.get("parts")
        parts = [parts] if isinstance(parts, dict) else parts
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            at = f"{where}.parts"
            raise bad_request(f"'{at}' must be a list of objects.", at)
        spelt_parts = [spelt(part) for part in parts]
        if content.get("role") == "model":
            self._add_answer(spelt_parts, where)
        elif content.get("role") in (None, "", "user", "function", "tool"):
            self._add_user(spelt_parts, where)
        else:
            raise bad_request(f"'{where}.role' must be 'user' or 'model'.", f"{where}.role")

    def _add_user(self, parts: list[Json], where: str) -> None:
        said: list[Json] = []
        for number, part in enumerate(parts):
            if isinstance(response := part.get("functionResponse"), dict):
                self._add_result(spelt(response))
            else:
                said += _said(part, f"{where}.parts[{number}]")
        if said:
            self.messages.append({"role": "user", "content": as_content(said)})

    def _add_result(self, response: Json) -> None:
        name, id = str(response.get("name") or ""), response.get("id")
        waiting = self._open.get(name) or deque()
        if isinstance(id, str) and id:
            if id in waiting:
                waiting.remove(id)
        else:
            id = waiting.popleft() if waiting else f"call_{name}"
        result = response.get("response")
        output = result.get("output", result.get("result")) if isinstance(result, dict) else None
        is_plain = isinstance(output, str) and isinstance(result, dict) and len(result) == 1
        text = output if is_plain else dumps(result).decode()
        inside = [
            said
            for part in objects_in(response.get("parts"))
            for said in _said(spelt(part), "functionResponse.parts")
        ]
        content = text if not inside else [{"type": "text", "text": text}, *inside]
        self.messages.append({"role": "tool", "tool_call_id": id, "name": name, "content": content})

    def _add_answer(self, parts: list[Json], where: str) -> None:
        said: list[Json] = []
        thoughts: list[str] = []
        calls: list[Json] = []
        for number, part in enumerate(parts):
            signature = part.get("thoughtSignature")
            signed = extra_content(signature) if isinstance(signature, str) and signature else {}
            if part.get("thought"):
                thoughts += [part["text"]] if isinstance(part.get("text"), str) else []
            elif isinstance(call := part.get("functionCall"), dict):
                calls.append(self._call(call) | signed)
            else:
                said += [each | signed for each in _said(part, f"{where}.parts[{number}]")]
        if not (said or calls):
            return
        message: Json = {"role": "assistant", "content": as_content(said) if said else None}
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        if calls:
            message["tool_calls"] = calls
        self.messages.append(message)

    def _call(self, call: Json) -> Json:
        name, id = str(call.get("name") or ""), call.get("id")
        self._calls += 1
        if not isinstance(id, str) or not id:
            id = f"call_{self._calls}"
        self._open.setdefault(name, deque()).append(id)
        arguments = dumps(call.get("args") or {}).decode()
        return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _said(part: Json, where: str) -> list[Json]:
    """A part as parts of a message; none if it says nothing."""
    if isinstance(text := part.get("text"), str):
        return [{"type": "text", "text": text}] if text else []
    if isinstance(inline := part.get("inlineData"), dict):
        return [_media(spelt(inline), where)]
    if isinstance(file := part.get("fileData"), dict):
        return [_file(spelt(file))]
    code, result = part.get("executableCode"), part.get("codeExecutionResult")
    for holder, key in ((code, "code"), (result, "output")):
        if isinstance(written := as_object(holder).get(key), str):
            return [{"type": "text", "text": f"```\n{written}\n```\n"}]
    return []


def _media(inline: Json, where: str) -> Json:
    kind, data = inline.get("mimeType"), inline.get("data")
    if not isinstance(kind, str) or not isinstance(data, str):
        at = f"{where}.inlineData"
        raise bad_request(f"'{at}' must have 'mimeType' and 'data'.", at)
    if kind in _FORMATS:
        return {"type": "input_audio", "input_audio": {"data": data, "format": _FORMATS[kind]}}
    url = f"data:{kind};base64,{data}"
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    name = inline.get("displayName")
    named = name if isinstance(name, str) and name else "file"
    return {"type": "file", "file": {"filename": named, "file_data": url}}


def _file(file: Json) -> Json:
    url, kind = str(file.get("fileUri") or ""), str(file.get("mimeType") or "")
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": url.rpartition("/")[2], "file_data": url}}
