"""reasoning_effort as each family of models takes it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.demo import rules
from gemproxy.gemini.translate.families import LEVELS, family_of
from gemproxy.gemini.translate.thinking import EFFORTS, thinking_config
from tests.tables import each

SHOWN = {"includeThoughts": True}


def budget(tokens: int) -> dict[str, Any]:
    return SHOWN | {"thinkingBudget": tokens}


def level(word: str) -> dict[str, Any]:
    return SHOWN | {"thinkingLevel": word}


def levels(*words: str) -> list[dict[str, Any]]:
    """Of all efforts, and of none."""
    return [SHOWN, *map(level, words), SHOWN]


FROM_MINIMAL = levels("MINIMAL", *LEVELS, "HIGH", "HIGH")
FROM_LOW = levels("LOW", "LOW", *LEVELS[1:], "HIGH", "HIGH")
BUDGETS = [budget(tokens) for tokens in (1024, 1024, 8192, 24576)]


@each(
    ("model", "configs"),
    [
        ("gemini-3.8-flash", FROM_LOW),
        ("gemini-3.7-flash", FROM_LOW),
        ("gemini-flash-latest", FROM_LOW),
        ("gemini-3.1-pro-preview", FROM_LOW),
        ("gemini-pro-latest", FROM_LOW),
        ("gemini-9-ultra", FROM_LOW),
        ("gemini-3-pro-preview", levels("LOW", "LOW", "LOW", *["HIGH"] * 4)),
        ("gemini-3.6-flash", FROM_MINIMAL),
        ("gemini-3.5-flash", FROM_MINIMAL),
        ("gemini-3.5-flash-lite", FROM_MINIMAL),
        ("gemini-3.1-flash-lite", FROM_MINIMAL),
        ("gemini-3-flash-preview", FROM_MINIMAL),
        ("gemma-4-31b-it", levels("MINIMAL", "MINIMAL", "MINIMAL", *["HIGH"] * 4)),
        (
            "gemini-2.5-flash",
            [SHOWN, {"thinkingBudget": 0}, *BUDGETS, budget(24576), budget(24576), budget(-1)],
        ),
        (
            "gemini-2.5-flash-lite",
            [{}, {"thinkingBudget": 0}, *BUDGETS, budget(24576), budget(24576), budget(-1)],
        ),
        (
            # This one cannot be told not to think.
            "gemini-2.5-pro",
            [SHOWN, {"thinkingBudget": 128}, *BUDGETS, budget(32768), budget(32768), budget(-1)],
        ),
        *((model, [{}] * 9) for model in ("gemini-2.0-flash", "gemma-3-27b-it")),
        *((model, [{}] * 9) for model in ("gemini-3.1-flash-image", "gemini-2.5-flash-image")),
    ],
)
def test_an_effort_is_the_nearest_that_the_model_takes(model: str, configs: list[Any]):
    family = family_of(model)
    assert [thinking_config(family, effort) for effort in (None, *EFFORTS)] == configs


@pytest.mark.parametrize("effort", [None, *EFFORTS])
def test_thoughts_are_not_requested_where_they_are_not_wanted(effort: str | None):
    for model in ("gemini-3.8-flash", "gemini-2.5-flash"):
        assert "includeThoughts" not in thinking_config(family_of(model), effort, shown=False)


NAMES = st.from_regex(r"gemini-([1-4](\.[0-9])?-)?[a-z-]{0,9}", fullmatch=True)


@given(NAMES, st.sampled_from([None, *EFFORTS]))
def test_whatever_the_name_google_takes_it(model: str, effort: str | None):
    config = {"thinkingConfig": thinking_config(family_of(model), effort)}
    contents = [{"role": "user", "parts": [{"text": "x"}]}]
    assert rules.fault(model, {"contents": contents, "generationConfig": config}) is None
