"""How requests of Google's API are spelt."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]

_UNDERSCORE = re.compile(r"_([a-z])")


def spelt(fields: Json) -> Json:
    """
    An object with its names in camel case: protobuf.dev/programming-guides/json allows both. What
    is in it is as it was.
    """
    if not any("_" in name for name in fields):
        return fields
    return {
        _UNDERSCORE.sub(lambda match: match[1].upper(), name): value
        for name, value in fields.items()
    }


def json_schema(schema: Any) -> Any:
    """
    Google's kind of schema as JSON Schema: ai.google.dev/api/caching#Schema. Types are in capitals
    there, and may be C{nullable}.
    """
    if isinstance(schema, list):
        return [json_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    converted: Json = {}
    for name, value in spelt(schema).items():
        if name == "properties" and isinstance(value, dict):
            converted[name] = {key: json_schema(each) for key, each in value.items()}
        elif name in ("items", "anyOf", "additionalProperties"):
            converted[name] = json_schema(value)
        elif name == "type" and isinstance(value, str):
            converted[name] = value.lower()
        elif name in ("minItems", "maxItems", "minLength", "maxLength") and isinstance(value, str):
            # 64-bit integers are strings in protobuf's JSON.
            converted[name] = int(value) if value.isascii() and value.isdigit() else value
        elif name not in ("nullable", "propertyOrdering"):
            converted[name] = value
    if schema.get("nullable") is True and isinstance(converted.get("type"), str):
        converted["type"] = [converted["type"], "null"]
    return converted
