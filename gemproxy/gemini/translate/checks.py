"""Checks of single values of a request."""

from __future__ import annotations

import math
from typing import Any

from gemproxy.chat.errors import bad_request


def flag(name: str, value: Any, default: bool) -> bool:
    """@raise ChatError: 400, like those below: the value is of another type."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad_request(f"'{name}' must be true or false.", name)
    return value


def number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise bad_request(f"'{name}' must be a number.", name)
    return value


def whole(name: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_request(f"'{name}' must be a whole number.", name)
    return value


def positive(name: str, value: Any) -> int:
    checked = whole(name, value)
    if checked < 1:
        raise bad_request(f"'{name}' must be at least 1.", name)
    return checked


def mapping(name: str, value: Any) -> dict[str, Any]:
    """An object; empty if there is none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"'{name}' must be an object.", name)
    return value


def either(options: dict[str, Any], snake: str) -> Any:
    """A field of Google's by its name in JSON or in Python: C{imageSize} or C{image_size}."""
    if not options:
        return None
    value = options.get(snake)
    return options.get(_in_camel_case(snake)) if value is None else value


def _in_camel_case(snake: str) -> str:
    head, *rest = snake.split("_")
    return head + "".join(map(str.capitalize, rest))
