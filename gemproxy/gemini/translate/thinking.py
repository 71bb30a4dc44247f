"""Translates OpenAI's reasoning_effort to Gemini's thinkingConfig."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

EFFORTS = ("none", "minimal", "low", "medium", "high")

_VERSION = re.compile(r"gemini-(\d+)(?:\.(\d+))?(?:-|$)")
_NOT_FOR_CHAT = re.compile(r"image|tts|audio|live|embedding|robotics|computer-use")

# ai.google.dev/gemini-api/docs/openai#thinking
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
_LEAST_PRO_BUDGET = 128


class Family(Enum):
    """
    How the amount of thinking of a model is configured.

    @cvar NONE: not at all; the model does not think.
    @cvar BUDGET: as a number of tokens.
    @cvar LEVEL: as a named level.
    """

    NONE = "none"
    BUDGET = "budget"
    LEVEL = "level"


def family(model: str) -> Family:
    if _NOT_FOR_CHAT.search(model):
        return Family.NONE
    version = _VERSION.match(model)
    if version is None:
        # gemini-flash-latest and the like: the models behind these aliases accept both.
        return Family.BUDGET
    number = (int(version[1]), int(version[2] or 0))
    if number >= (3, 0):
        return Family.LEVEL
    return Family.BUDGET if number >= (2, 5) else Family.NONE


def thinking_config(model: str, effort: str | None) -> dict[str, Any] | None:
    """
    The C{thinkingConfig} of a request; None to omit it. Thoughts are requested from every model
    that can return them. The amount of thinking is left to the API unless the client set it.

    @param effort: one of EFFORTS; None if the client did not set it.
    """
    kind = family(model)
    is_pro = "pro" in model
    if kind is Family.NONE:
        return None
    if effort is None:
        # The 2.5 lite models think only on request, and otherwise reject a request for thoughts.
        shows = kind is Family.LEVEL or "lite" not in model
        return {"includeThoughts": True} if shows else None
    if kind is Family.LEVEL:
        if effort in ("none", "minimal"):
            # The minimum of the model: thinking cannot be turned off.
            effort = "low" if is_pro else "minimal"
        return {"includeThoughts": True, "thinkingLevel": effort.upper()}
    if effort == "none":
        return {"thinkingBudget": _LEAST_PRO_BUDGET if is_pro else 0}
    return {"includeThoughts": True, "thinkingBudget": _BUDGETS[effort]}
