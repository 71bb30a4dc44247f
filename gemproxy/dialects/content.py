"""The content of a message of chat completions."""

from __future__ import annotations

from typing import Any


def as_content(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as a content; a text alone is a string, which every server takes."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return str(parts[0]["text"])
    return parts
