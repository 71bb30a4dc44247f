"""What other models answer, in the words of Google's API."""

from __future__ import annotations

import re
from typing import Any

from gemproxy.chat.chunks import Usage, count_of
from gemproxy.chat.deltas import MESSAGE, add, settled
from gemproxy.chat.extra_content import given_signature
from gemproxy.chat.jsontext import loads
from gemproxy.chat.shapes import as_object, objects_in

Json = dict[str, Any]

_DATA = re.compile(r"data:([^;,]+)[^,]*;base64,(.*)", re.S)
_REASONS = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "function_call": "STOP",
    "content_filter": "SAFETY",
}


def finish_reason(reason: str, native: Any = None) -> str:
    """@param native: the word of the API that has answered, if it says more."""
    if isinstance(native, str) and native.isupper():
        return native
    return _REASONS.get(reason, "OTHER")


def usage_metadata(usage: Json) -> Json:
    """Token counts; Google counts thoughts apart."""
    given = Usage.of_json(usage)
    metadata = {
        "promptTokenCount": given.prompt,
        "candidatesTokenCount": max(0, given.completion - given.reasoning),
        "totalTokenCount": count_of(usage, "total_tokens") or given.prompt + given.completion,
    }
    if given.reasoning:
        metadata["thoughtsTokenCount"] = given.reasoning
    return metadata | ({"cachedContentTokenCount": given.cached} if given.cached else {})


class Parts:
    """The parts of one candidate. Calls come at the end, since Google has them whole."""

    def __init__(self) -> None:
        self._kept: Json = {}
        self._signature: str | None = None

    def added(self, delta: Json) -> list[Json]:
        """What to send of a delta."""
        parts: list[Json] = []
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        signature = given_signature(delta)
        if isinstance(thought, str) and thought:
            signed = {"thoughtSignature": signature} if signature else {}
            parts.append({"text": thought, "thought": True} | signed)
            signature = None
        text = _text_in(delta.get("content"))
        if text:
            parts.append({"text": text})
        if isinstance(refusal := delta.get("refusal"), str) and refusal:
            parts.append({"text": refusal})
        for picture in objects_in(delta.get("images")):
            url = as_object(picture.get("image_url")).get("url")
            if isinstance(url, str) and (data := _DATA.fullmatch(url)):
                parts.append({"inlineData": {"mimeType": data[1], "data": data[2]}})
        self._signature = signature or self._signature
        if calls := delta.get("tool_calls"):
            add(self._kept, {"tool_calls": calls}, MESSAGE)
        return parts

    def rest(self) -> list[Json]:
        """The parts that come at the end."""
        calls = [_call(each) for each in objects_in(settled(self._kept).get("tool_calls"))]
        if self._signature is None:
            return calls
        return [{"text": "", "thoughtSignature": self._signature}, *calls]


def _text_in(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in objects_in(content))
    return "".join(text for text in texts if isinstance(text, str))


def _call(call: Json) -> Json:
    function = as_object(call.get("function"))
    try:
        arguments = loads(str(function.get("arguments") or "{}").encode())
    except ValueError:
        arguments = {}
    called: Json = {"name": str(function.get("name") or ""), "args": as_object(arguments)}
    if isinstance(id := call.get("id"), str) and id:
        called["id"] = id
    signature = given_signature(call)
    return {"functionCall": called} | ({"thoughtSignature": signature} if signature else {})
