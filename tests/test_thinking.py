"""reasoning_effort as each family of models takes it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.gemini.translate.thinking import EFFORTS, Family, family, thinking_config

FAMILIES = [
    ("gemini-1.5-pro", Family.NONE),
    ("gemini-2.0-flash", Family.NONE),
    ("gemini-2.0-flash-lite-001", Family.NONE),
    ("gemini-2.5-flash", Family.BUDGET),
    ("gemini-2.5-flash-preview-09-2025", Family.BUDGET),
    ("gemini-2.5-flash-lite", Family.BUDGET),
    ("gemini-2.5-pro", Family.BUDGET),
    ("gemini-flash-latest", Family.BUDGET),
    ("gemini-pro-latest", Family.BUDGET),
    ("gemini-3-pro-preview", Family.LEVEL),
    ("gemini-3-flash-preview", Family.LEVEL),
    ("gemini-3.1-pro-preview", Family.LEVEL),
    ("gemini-3", Family.LEVEL),
    ("gemini-4.5-flash", Family.LEVEL),
    ("gemini-10-flash", Family.LEVEL),
    ("gemini-2.5-flash-image", Family.NONE),
    ("gemini-2.5-flash-preview-tts", Family.NONE),
    ("gemini-3-pro-image-preview", Family.NONE),
    ("gemini-embedding-001", Family.NONE),
]


@pytest.mark.parametrize(("model", "kind"), FAMILIES)
def test_a_model_s_name_tells_its_family(model: str, kind: Family):
    assert family(model) is kind


def budget(tokens: int) -> dict[str, Any]:
    return {"includeThoughts": True, "thinkingBudget": tokens}


def level(word: str) -> dict[str, Any]:
    return {"includeThoughts": True, "thinkingLevel": word}


SHOWN = {"includeThoughts": True}


@pytest.mark.parametrize(
    ("model", "configs"),
    [
        (
            "gemini-2.5-flash",
            [SHOWN, {"thinkingBudget": 0}, *map(budget, (1024, 1024, 8192, 24576))],
        ),
        (
            "gemini-2.5-flash-lite",
            [None, {"thinkingBudget": 0}, *map(budget, (1024, 1024, 8192, 24576))],
        ),
        (
            # This one cannot be told not to think.
            "gemini-2.5-pro",
            [SHOWN, {"thinkingBudget": 128}, *map(budget, (1024, 1024, 8192, 24576))],
        ),
        (
            "gemini-3-flash-preview",
            [SHOWN, *map(level, ("MINIMAL", "MINIMAL", "LOW", "MEDIUM", "HIGH"))],
        ),
        (
            "gemini-3-pro-preview",
            [SHOWN, *map(level, ("LOW", "LOW", "LOW", "MEDIUM", "HIGH"))],
        ),
        ("gemini-2.0-flash", [None] * 6),
    ],
)
def test_an_effort_is_a_budget_or_a_level(model: str, configs: list[Any]):
    assert [thinking_config(model, effort) for effort in (None, *EFFORTS)] == configs


@given(st.from_regex(r"gemini-[A-Za-z0-9._-]*", fullmatch=True), st.sampled_from([None, *EFFORTS]))
def test_any_name_will_do(model: str, effort: str | None):
    config = thinking_config(model, effort)
    if family(model) is Family.NONE:
        assert config is None
    elif config is not None:
        # The API refuses both at once.
        assert not {"thinkingBudget", "thinkingLevel"} <= config.keys()
        assert (effort is None) == (config == SHOWN)
