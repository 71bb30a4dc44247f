"""Google's models as OpenAI's model objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gemproxy.chat.chunks import model_object
from gemproxy.chat.shapes import as_object, objects_in

FIRST_MODELS = (
    "gemini-3-pro-preview",
    "gemini-3-flash-preview",
    "gemini-2.5-pro",
    "gemini-2.5-flash",
    "gemini-2.0-flash",
)
"""What the list begins with, of what Google has."""

BUILT_IN_MODELS = (
    "gemini-3.8-flash",
    "gemini-3.6-flash",
    "gemini-3.5-flash-lite",
    "gemini-3.1-pro-preview",
    "gemini-3.1-flash-lite",
    "gemini-3.1-flash-image",
    "gemini-flash-latest",
    "gemini-pro-latest",
    "gemini-flash-lite-latest",
)
"""The list where Google cannot be asked: alive in November 2026, ai.google.dev/gemini-api/docs."""

_NAME = re.compile(r"models/([A-Za-z0-9._-]{1,200})")
_PUBLISHED = re.compile(r"publishers/google/models/(gemini-[A-Za-z0-9._-]{1,200})")
# Kinds that generateContent does not answer in text or pictures, whatever their methods say. Deep
# Research: "This model only supports Interactions API".
_NOT_FOR_CHAT = re.compile(
    r"embedding|(?:^|-)"
    r"(?:tts|live|native-audio|robotics|computer-use|deep-research|aqa)(?:-|$)"
)


def chat_models(document: Any) -> list[dict[str, Any]]:
    """
    The models for chat in one page of C{GET /v1beta/models}, as model objects that are created at
    0, with Google's own description as C{google}. What is malformed is left out. See
    ai.google.dev/api/models.
    """
    page = as_object(document)
    # Vertex AI's list has no methods, and other makers' models in it.
    found = [*map(_converted, objects_in(page.get("models")))]
    found += [*map(_published, objects_in(page.get("publisherModels")))]
    return [model for model in found if model is not None]


def _published(model: dict[str, Any]) -> dict[str, Any] | None:
    name = _PUBLISHED.fullmatch(str(model.get("name")))
    if name is None or _NOT_FOR_CHAT.search(name[1]):
        return None
    return model_object(name[1]) | {"google": model}


def next_page(document: Any) -> str | None:
    """The token of the page after this one; None after the last."""
    token = document.get("nextPageToken") if isinstance(document, dict) else None
    return token if token and isinstance(token, str) else None


def _converted(model: Any) -> dict[str, Any] | None:
    if not isinstance(model, dict):
        return None
    name = _NAME.fullmatch(str(model.get("name")))
    methods = model.get("supportedGenerationMethods")
    if name is None or not isinstance(methods, list) or "generateContent" not in methods:
        return None
    if _NOT_FOR_CHAT.search(name[1]):
        return None
    converted = model_object(name[1]) | {"google": model}
    if isinstance(model.get("displayName"), str):
        converted["display_name"] = model["displayName"]
    for field, ours in (
        ("inputTokenLimit", ("input_token_limit", "context_length")),
        ("outputTokenLimit", ("output_token_limit",)),
    ):
        limit = model.get(field)
        if isinstance(limit, int) and not isinstance(limit, bool):
            converted |= dict.fromkeys(ours, limit)
    return converted


def union(lists: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each model once, L{FIRST_MODELS} first and the others in the order in which they come."""
    models: dict[str, dict[str, Any]] = {}
    for model in (model for models_of_key in lists for model in models_of_key):
        models.setdefault(model["id"], model)
    first = [models.pop(name) for name in FIRST_MODELS if name in models]
    return [*first, *models.values()]
