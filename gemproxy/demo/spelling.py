"""A request as Google reads it: protobuf's JSON allows two spellings of each name."""

from __future__ import annotations

import re
from typing import Any

_UNDERSCORE = re.compile(r"_([a-z])")
# What is in them is the client's own.
_FREE = frozenset({"args", "response", "parametersJsonSchema", "responseJsonSchema", "labels"})
# So are the names in these.
_NAMED = frozenset({"properties", "$defs"})


def canonical(value: Any) -> Any:
    """
    A part of a request with its names in camel case (protobuf.dev/programming-guides/json), and
    levels of thinking in capitals, which ai.google.dev/gemini-api/docs/gemini-3 has in small
    letters.
    """
    if isinstance(value, list):
        return [canonical(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: _field(name, each) for name, each in _camel(value).items()}


def _camel(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        _UNDERSCORE.sub(lambda match: match[1].upper(), name): value
        for name, value in fields.items()
    }


def _field(name: str, value: Any) -> Any:
    if name in _FREE:
        return value
    if name in _NAMED and isinstance(value, dict):
        return {key: canonical(each) for key, each in value.items()}
    if name == "thinkingLevel" and isinstance(value, str):
        return value.upper()
    return canonical(value)
