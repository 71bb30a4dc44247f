"""Translates OpenAI's reasoning_effort to Gemini's thinkingConfig."""

from __future__ import annotations

from typing import Any

from gemproxy.gemini.translate.families import LEVELS, Budget, Family

# OpenAI's values, and "auto", which leaves the amount to the model.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "auto")

_WANTED_LEVELS = {
    "none": "MINIMAL",
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}

# ai.google.dev/gemini-api/docs/openai#thinking
_WANTED_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
# The API's value for "as much as the model thinks fit".
_DYNAMIC = -1


def thinking_config(family: Family, effort: str | None, shown: bool = True) -> dict[str, Any]:
    """
    The C{thinkingConfig} of a request; empty to omit it. The amount of thinking is left to the API
    unless the client set it, and is the nearest that the model takes otherwise.

    @param effort: one of EFFORTS; None if the client did not set it.
    @param shown: whether the client wants to see the thoughts.
    """
    amount: dict[str, Any] = {}
    if effort is not None:
        if family.levels and effort != "auto":
            amount = {"thinkingLevel": _nearest_level(family, effort)}
        elif family.budget is not None:
            amount = {"thinkingBudget": _budget(family.budget, effort)}
    return ({"includeThoughts": True} if shown and _can_show(family, effort) else {}) | amount


def _can_show(family: Family, effort: str | None) -> bool:
    if family.budget is None:
        return bool(family.levels)
    return effort != "none" and (effort is not None or family.budget.by_default)


def _nearest_level(family: Family, effort: str) -> str:
    wanted = LEVELS.index(_WANTED_LEVELS[effort])
    # Of two that are equally near, the higher one.
    return min(reversed(family.levels), key=lambda level: abs(LEVELS.index(level) - wanted))


def _budget(budget: Budget, effort: str) -> int:
    if effort == "auto":
        return _DYNAMIC
    if effort == "none":
        return 0 if budget.can_be_off else budget.low
    return min(max(_WANTED_BUDGETS.get(effort, budget.high), budget.low), budget.high)
