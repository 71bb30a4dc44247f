"""Changes JSON schemas to what Gemini takes of them. They are otherwise passed on as they are."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote

Schema = dict[str, Any]

# A schema that is nested more deeply is passed on as it is, for the API to judge.
_DEPTH = 100
# References may multiply what they refer to.
_NODES = 20_000


def inlined(schema: Schema) -> Schema:
    """
    Replace each C{$ref} that has siblings, such as a description, by what it refers to, since the
    API takes none beside a C{$ref}. A C{$ref} that is alone is taken and stays; one that is
    recursive loses its siblings instead.
    """
    return cast("Schema", _Inliner(schema).inlined(schema, (), 0))


def with_object_root(schema: Schema | None) -> Schema:
    """A schema whose root is an object, which the API requires of the parameters of a function."""
    if schema is None:
        return {"type": "object", "properties": {}}
    seen: set[str] = set()
    root = schema
    while isinstance(reference := root.get("$ref"), str) and reference not in seen:
        seen.add(reference)
        root = _resolved(schema, reference) or {"type": "object"}
    if "$ref" in schema:
        kept = {key: value for key, value in schema.items() if key != "$ref"}
        root = {key: value for key, value in root.items() if key != "$ref"} | kept
    if root.get("type") == "object":
        return root
    return {"type": "object", "properties": {}} | root | {"type": "object"}


class _Inliner:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._nodes = 0

    def inlined(self, value: Any, open_references: tuple[str, ...], depth: int) -> Any:
        """@param open_references: the references that led here, to notice recursion."""
        self._nodes += 1
        if depth > _DEPTH:
            return value
        if isinstance(value, list):
            return [self.inlined(item, open_references, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref")
        if isinstance(reference, str) and any(not key.startswith("$") for key in value):
            return self._without_reference(value, reference, open_references, depth)
        return {key: self.inlined(item, open_references, depth + 1) for key, item in value.items()}

    def _without_reference(
        self, value: Schema, reference: str, open_references: tuple[str, ...], depth: int
    ) -> Schema:
        siblings = {key: item for key, item in value.items() if key != "$ref"}
        target = _resolved(self._root, reference)
        if target is None:
            # It would be refused. Anything goes in its place.
            return cast("Schema", self.inlined(siblings, open_references, depth + 1))
        if reference in open_references or self._nodes > _NODES:
            return {
                key: item if key == "$ref" else self.inlined(item, open_references, depth + 1)
                for key, item in value.items()
                if key.startswith("$")
            }
        return cast(
            "Schema",
            self.inlined(target | siblings, (*open_references, reference), depth + 1),
        )


def _resolved(root: Schema, reference: str) -> Schema | None:
    """What a reference within a schema refers to (RFC 6901); None if there is no such schema."""
    if not reference.startswith("#"):
        return None
    place: Any = root
    for token in unquote(reference[1:]).split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
            place = place[int(key)]
        elif isinstance(place, dict) and key in place:
            place = place[key]
        else:
            return None
    return place if isinstance(place, dict) else None
