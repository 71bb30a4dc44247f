"""A value that fits a JSON schema, as far as the demo needs one."""

from __future__ import annotations

from typing import Any

_EMPTY: dict[str, Any] = {"string": "", "number": 0, "integer": 0, "boolean": False, "null": None}
_DEPTH = 12


def sample(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """
    @param schema: a JSON schema; what is no schema gives an empty text.
    @param root: the whole schema, in which references are looked up.
    """
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > _DEPTH:
        return ""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return sample(_referred(root, reference), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    for name in ("enum", "anyOf", "oneOf", "allOf"):
        options = schema.get(name)
        if isinstance(options, list) and options:
            return options[0] if name == "enum" else sample(options[0], root, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    kind = str(kind).lower()
    if kind == "array":
        shortest = schema.get("minItems")
        count = min(shortest, 3) if isinstance(shortest, int) and shortest > 0 else 0
        return [sample(schema.get("items"), root, depth + 1)] * count
    properties = schema.get("properties")
    if kind == "object" or isinstance(properties, dict):
        return _object(schema, properties, root, depth)
    return _EMPTY.get(kind, "")


def _object(schema: dict[str, Any], properties: Any, root: Any, depth: int) -> dict[str, Any]:
    known = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    return {
        name: sample(known.get(name), root, depth + 1) for name in names if isinstance(name, str)
    }


def _referred(root: Any, reference: str) -> Any:
    place = root
    for key in reference.split("/")[1:]:
        place = place.get(key) if isinstance(place, dict) else None
    return place
