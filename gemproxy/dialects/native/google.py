"""Responses of Google's API: their text, and several as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gemproxy.chat.chunks import index_of
from gemproxy.chat.shapes import as_object, objects_in

Json = dict[str, Any]


def text_of(response: Json) -> str:
    """The text of the first candidate, without its thoughts."""
    return "".join(part["text"] for part in _parts(response) if _is_text(part))


def with_text(responses: Sequence[Json], text: str) -> list[Json]:
    """
    The same responses with another text, after something was cut out of it, or had been held back.
    What comes after the text is kept: whoever ends the answer there sends no more of it.
    """
    left, changed = text, []
    for response in responses:
        parts = []
        for part in _parts(response):
            if not _is_text(part):
                parts.append(part)
            elif left:
                parts.append(part | {"text": left})
                left = ""
        changed.append(_with_parts(response, parts) if _parts(response) else response)
    if left:
        candidate = {"content": {"parts": [{"text": left}], "role": "model"}, "index": 0}
        changed.insert(0, {"candidates": [candidate]})
    return changed


def merged(responses: Sequence[Json]) -> Json:
    """
    The responses of a stream as one, as C{generateContent} would have answered. Parts are joined,
    and neighbouring texts of one kind are one part; of all else the last counts.
    """
    whole: Json = {}
    candidates: dict[int, Json] = {}
    for response in responses:
        for candidate in objects_in(response.get("candidates")):
            index = index_of(candidate.get("index")) or 0
            candidates[index] = _added(candidates.get(index, {}), candidate)
        whole |= {key: value for key, value in response.items() if key != "candidates"}
    if not candidates:
        return whole
    return {"candidates": [candidate for _, candidate in sorted(candidates.items())]} | whole


def _added(held: Json, candidate: Json) -> Json:
    content, more = as_object(held.get("content")), as_object(candidate.get("content"))
    parts = [*objects_in(content.get("parts"))]
    for part in objects_in(more.get("parts")):
        last = parts[-1] if parts else {}
        if _goes_on(last, part):
            parts[-1] = last | part | {"text": last["text"] + part["text"]}
        else:
            parts.append(part)
    both = held | candidate
    joined = content | more | ({"parts": parts} if parts else {})
    return {"content": joined} | both | {"content": joined} if joined else both


def _goes_on(last: Json, part: Json) -> bool:
    """
    Whether a text continues the one before it. A signature is the last that comes of a part, so
    that nothing continues it.
    """
    if not (isinstance(last.get("text"), str) and isinstance(part.get("text"), str)):
        return False
    added = part.keys() - {"text", "thoughtSignature"}
    return last.keys() - {"text"} == added and all(last[key] == part[key] for key in added)


def _is_text(part: Json) -> bool:
    return isinstance(part.get("text"), str) and not part.get("thought")


def _parts(response: Json) -> list[Json]:
    content = as_object(_first(response).get("content"))
    return objects_in(content.get("parts"))


def _first(response: Json) -> Json:
    """The first of the candidates; an empty object if it is not in this response."""
    found = objects_in(response.get("candidates"))
    return next((each for each in found if not index_of(each.get("index"))), {})


def _with_parts(response: Json, parts: list[Json]) -> Json:
    first = _first(response)
    changed = first | {"content": as_object(first.get("content")) | {"parts": parts}}
    return response | {
        "candidates": [changed if each is first else each for each in response["candidates"]]
    }
