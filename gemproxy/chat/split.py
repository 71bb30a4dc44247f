"""Converts a whole completion into chunks."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.jsontext import dumps


def chunks_of(completion: dict[str, Any], include_usage: bool) -> list[bytes]:
    """
    One chunk with everything but the usage, and a usage chunk if requested.

    @param completion: a chat.completion object.
    """
    frame = {key: value for key, value in completion.items() if key not in ("choices", "usage")}
    frame["object"] = "chat.completion.chunk"
    choices = completion.get("choices")
    split = [
        {key: value for key, value in choice.items() if key != "message"}
        | {"index": choice.get("index", number), "delta": _delta(choice.get("message"))}
        for number, choice in enumerate(choices if isinstance(choices, list) else [])
        if isinstance(choice, dict)
    ]
    chunks = [dumps(frame | {"choices": split})]
    if include_usage and completion.get("usage") is not None:
        chunks.append(dumps(frame | {"choices": [], "usage": completion["usage"]}))
    return chunks


def _delta(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        return {}
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    numbered = [
        {"index": number} | call if isinstance(call, dict) else call
        for number, call in enumerate(calls)
    ]
    return message | {"tool_calls": numbered}
