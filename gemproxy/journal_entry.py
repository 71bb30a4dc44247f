"""Reads the files of the journal: what is known of an exchange, and what was said. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import loads

Part = tuple[str, bytes]

_SECTION = re.compile(rb"\n\n--- ([^\n]{1,120}) ---\n")
_CUT = b"\n\n--- truncated: the rest is not kept ---"
_CHOICE = re.compile(r"choice (\d{1,9}): (.*)", re.S)
_LEFT_OUT = re.compile(rb'"\[[^"\[\]\n]{1,130}, \d{1,12} bytes\]"')
# Parts that are texts even if they look like JSON.
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
# The field of the JSON that a request is in; it is the last one.
_REQUEST = re.compile(rb',\s*"request":')


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


_READ: dict[str, Callable[[str], Any]] = {
    "id": str,
    "time": _time,
    "path": str,
    "route": str,
    "model": str,
    "account": str,
    "upstream": str,
    "stream": lambda text: text == "True",
    "status": int,
    "finish_reason": str,
    "native_finish_reason": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "cost": float,
    "first_token": _seconds,
    "duration": _seconds,
    "retries": int,
    "upstream_request": str,
    "error": str,
}
NOTHING_KNOWN: dict[str, Any] = dict.fromkeys(_READ)


def facts_in_output(head: bytes) -> dict[str, Any]:
    """
    What an answer's file says of the exchange; None for what it does not say.

    @param head: the beginning of the file.
    """
    facts = dict(NOTHING_KNOWN)
    for name, text in _lines(head).items():
        if name in _READ:
            facts[name] = _value(_READ[name], text)
    return facts


def facts_in_input(head: bytes) -> dict[str, Any]:
    """What a request's file says, for answers of an older version, which do not."""
    match = _REQUEST.search(head)
    if match is None:
        return {}
    try:
        known = loads(head[: match.start()] + b"}")
    except ValueError:
        return {}
    if not isinstance(known, dict):
        return {}
    if isinstance(known.get("time"), str):
        known["time"] = _value(_time, known["time"])
    return {name: value for name, value in known.items() if name in _READ}


def _lines(head: bytes) -> dict[str, str]:
    lines = head.partition(b"\n\n")[0].decode("utf-8", "replace").split("\n")
    return {name: text for name, _, text in (line.partition(": ") for line in lines)}


def _value(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError:
        return None


def request_in(content: bytes) -> Any:
    """The request in its file; None if it is damaged."""
    try:
        document = loads(content)
    except ValueError:
        return None
    return document.get("request") if isinstance(document, dict) else None


def has_left_out(content: bytes) -> bool:
    """Whether the file of a request has the type and size of something that is not kept."""
    return _LEFT_OUT.search(content) is not None


def answer_in(output: bytes) -> tuple[list[dict[str, Any]], bool]:
    """
    The messages of the choices in an answer's file, in OpenAI's shape with the C{index} of the
    choice, and whether the answer was longer than what is kept.
    """
    head, _, text = output.partition(b"\n\n")
    parts, end = _parts(_lines(head).get("parts"), text)
    collector = CompletionCollector()
    for name, part in parts:
        match = _CHOICE.fullmatch(name)
        index, kind = (int(match[1]), match[2]) if match else (0, name)
        for delta in _deltas(kind, part):
            choice = {"index": index, "delta": {kind: delta}}
            try:
                collector.add_parsed({"choices": [choice]}, b"")
            except ChatError:
                # There are more calls than anybody looks at.
                break
    choices = collector.completion()["choices"]
    messages = [{"index": choice["index"]} | choice["message"] for choice in choices]
    return messages, text[end:].startswith(_CUT)


def _parts(places: str | None, text: bytes) -> tuple[list[Part], int]:
    """
    The parts of the text, and where the last one ends.

    @param places: see L{Exchange.output}; None in files of older versions, where an answer that
        has the line of a section in it cannot be told from the section.
    """
    try:
        known = [(str(name), int(at), int(length)) for name, at, length in json.loads(places or "")]
    except (TypeError, ValueError):
        known = _sections(text.removesuffix(b"\n").removesuffix(_CUT))
    parts = [(name, text[at : at + length]) for name, at, length in known if length > 0]
    return parts, max((at + length for _, at, length in known), default=0)


def _sections(text: bytes) -> list[tuple[str, int, int]]:
    """The name, the beginning and the length of each part, by the lines between them."""
    found = []
    name, start = "content", 0
    for match in _SECTION.finditer(text):
        found.append((name, start, match.start() - start))
        name, start = match[1].decode("utf-8", "replace"), match.end()
    return [*found, (name, start, len(text) - start)]


def _deltas(kind: str, part: bytes) -> list[Any]:
    """The values of a field that came one after the other."""
    text = part.decode("utf-8", "replace")
    if kind in _TEXTS:
        return [text]
    values = []
    for line in text.removesuffix("\n").split("\n"):
        try:
            value = loads(line.encode())
        except ValueError:
            continue
        if isinstance(value, dict | list):
            values.append(value)
    return values or [text]
