"""How much a model is to think: OpenAI's reasoning_effort in Gemini's words."""

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
    How a model takes the wish for more or less thought.

    @cvar NONE: it does not think.
    @cvar BUDGET: as a number of tokens.
    @cvar LEVEL: as a word.
    """

    NONE = "none"
    BUDGET = "budget"
    LEVEL = "level"


def family(model: str) -> Family:
    if _NOT_FOR_CHAT.search(model):
        return Family.NONE
    version = _VERSION.match(model)
    if version is None:
        # gemini-flash-latest and the like: all that these names mean today take either.
        return Family.BUDGET
    number = (int(version[1]), int(version[2] or 0))
    if number >= (3, 0):
        return Family.LEVEL
    return Family.BUDGET if number >= (2, 5) else Family.NONE


def thinking_config(model: str, effort: str | None) -> dict[str, Any] | None:
    """
    The C{thinkingConfig} for a request; None for none. Thoughts are asked for wherever the model
    has any to show, but how much it thinks is left to the API unless the client said.

    @param effort: one of EFFORTS; None if the client did not say.
    """
    kind = family(model)
    is_pro = "pro" in model
    if kind is Family.NONE:
        return None
    if effort is None:
        # The lite models of 2.5 do not think unless told to, and refuse to show thoughts then.
        shows = kind is Family.LEVEL or "lite" not in model
        return {"includeThoughts": True} if shows else None
    if kind is Family.LEVEL:
        if effort in ("none", "minimal"):
            # As little as the model allows: it cannot be told not to think.
            effort = "low" if is_pro else "minimal"
        return {"includeThoughts": True, "thinkingLevel": effort.upper()}
    if effort == "none":
        return {"thinkingBudget": _LEAST_PRO_BUDGET if is_pro else 0}
    return {"includeThoughts": True, "thinkingBudget": _BUDGETS[effort]}
