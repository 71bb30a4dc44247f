"""Access to JSON whose shape is not known. Pure."""

from __future__ import annotations

from typing import Any


def as_object(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The JSON objects in a JSON array; whatever else it holds, or is, does not count."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
