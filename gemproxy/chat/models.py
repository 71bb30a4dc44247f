"""The names of Gemini's models, as clients write them and as they are listed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from gemproxy.chat.chunks import model_object
from gemproxy.chat.errors import bad_request, model_not_found

OTHER_PREFIXES = ("gemma", "learnlm", "nano-banana")
"""What the names of Google's models for chat begin with that do not have C{gemini} in them."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


def plain_name(model: str) -> str:
    """
    Gemini's own name of a model. Clients write it in capitals, with white space around it, or with
    a vendor in front: C{models/}, C{google/}, C{openrouter/google/}.
    """
    return model.rpartition("/")[2].strip().lower()


def is_gemini(model: str) -> bool:
    """Whether a name says that the model is one of Gemini's."""
    return "gemini" in model.lower()


def by_name(models: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Model objects by their L{plain_name}."""
    return {plain_name(model["id"]): model for model in models}


def is_always_served(name: str) -> bool:
    """
    Whether a model is served even if it is not listed.

    @param name: a L{plain_name}.
    @raise ChatError: 400, the name is malformed.
    """
    if not _NAME.fullmatch(name):
        raise bad_request("'model' must consist of letters, digits, '.', '-' and '_'.", "model")
    return name.startswith("gemini-")


def served_model(name: str, listed: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """
    The model object of one of Gemini's models.

    @param name: a L{plain_name}.
    @param listed: see L{by_name}.
    @raise ChatError: 400, the name is malformed; 404, the model is not served.
    """
    always = is_always_served(name)
    model = listed.get(name)
    if model is not None:
        return model
    if not always:
        raise model_not_found(name, [model["id"] for model in listed.values()])
    return model_object(name)
