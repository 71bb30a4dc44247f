"""JSON parsing and rendering; lenient about lone surrogates, strict about nesting and numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

import orjson

# Low enough for dumps and all other recursive functions.
_MOST_LEVELS = 200


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _in_range(make: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if math.isinf(float(text)):
            raise ValueError("a number is out of range")
        return make(text)

    return parse


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        # json can return the two halves of a surrogate pair separately; join them first.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_MOST_LEVELS):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def loads(text: bytes) -> Any:
    """
    Parse JSON. Lone surrogates, escaped or encoded, become U+FFFD.

    @raise ValueError: not JSON, not UTF-8, nested too deeply, or a number that is NaN, infinite
        or out of range.
    """
    parsed = peek(text)
    if text.count(b"[") + text.count(b"{") > _MOST_LEVELS and _is_deep(parsed):
        raise ValueError("nested too deeply")
    return parsed


def peek(text: bytes) -> Any:
    """
    The same for what is only glanced at: its depth, which takes time to find out, is not limited.

    @raise ValueError: see L{loads}.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _loads_leniently(text)


def _loads_leniently(text: bytes) -> Any:
    # orjson rejects lone surrogates, which are valid JSON.
    try:
        parsed = json.loads(
            text.decode("utf-8", "surrogatepass"),
            parse_constant=_reject_constant,
            parse_float=_in_range(float),
            parse_int=_in_range(int),
        )
        return _without_surrogates(parsed)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(value: Any) -> bytes:
    """
    Render JSON in one line, as UTF-8. Lone surrogates become question marks.

    @raise TypeError: the value contains something that JSON cannot represent.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        # orjson rejects integers beyond 64 bits; a client may send them, and they are passed on.
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")
