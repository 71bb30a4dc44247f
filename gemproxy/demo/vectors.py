"""Vectors for texts that mean nothing, but are the same for the same text."""

from __future__ import annotations

import random
from typing import Any

from gemproxy.chat.jsontext import dumps
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.demo.echo import prompt_length

_DIMENSIONS = 3072


def vectors(body: dict[str, Any]) -> bytes:
    """The answer to C{batchEmbedContents}, as gemini-embedding-2 gives it."""
    asked = objects_in(body.get("requests"))
    embeddings = [{"values": _vector(one)} for one in asked]
    tokens = sum(prompt_length({"contents": [one.get("content")]}) for one in asked)
    usage = {"promptTokenCount": tokens}
    return dumps({"embeddings": embeddings, "usageMetadata": usage})


def _vector(asked: dict[str, Any]) -> list[float]:
    """Of length 1."""
    given = asked.get("outputDimensionality")
    number = given if isinstance(given, int) and 0 < given <= _DIMENSIONS else _DIMENSIONS
    texts = [part.get("text") for part in objects_in(as_object(asked.get("content")).get("parts"))]
    chance = random.Random("".join(map(str, texts)))  # noqa: S311 - to be the same again
    numbers = [chance.random() - 0.5 for _ in range(number)]
    length = sum(value * value for value in numbers) ** 0.5
    return [value / length for value in numbers]
