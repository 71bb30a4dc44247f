"""What only Vertex AI refuses, by its reference: projects.locations.publishers.models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gemproxy.chat.shapes import as_object, objects_in

_FIELDS = {
    "countTokens": {
        "model", "instances", "contents", "systemInstruction", "tools", "generationConfig"
    },
    "predict": {"instances", "parameters", "labels"},
    "embedContent": {
        "content", "title", "taskType", "outputDimensionality", "autoTruncate", "embedContentConfig"
    },
}  # fmt: skip


def vertex_fault(method: str, model: str, body: Mapping[str, Any]) -> str | None:
    """What is wrong with a request; None if nothing is."""
    known = _FIELDS.get(method)
    if known is not None and (unknown := sorted(body.keys() - known)):
        return f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.'
    if method == "batchEmbedContents" or (
        method in ("predict", "embedContent")
        and (method == "predict") != (model == "gemini-embedding-001" or "gemini" not in model)
    ):
        return f"{method} is not supported for {model}."
    if method == "predict":
        instances = objects_in(body.get("instances"))
        if model == "gemini-embedding-001" and len(instances) != 1:
            # "gemini-embedding-001 supports one instance per request"
            return f"The number of instances must be 1, and is {len(instances)}."
        if not all(instance.get("content") for instance in instances):
            return "The text content is empty."
    if method == "countTokens" and not all(
        content.get("role") in ("user", "model") for content in objects_in(body.get("contents"))
    ):
        return "Please use a valid role: user, model."
    if method == "embedContent" and not objects_in(as_object(body.get("content")).get("parts")):
        return "content has no parts."
    return None
