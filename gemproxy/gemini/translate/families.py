"""
What each family of Google's models takes, as one table.

Translation asks this table and never looks at a name itself, so that a change of Google's is a
change of a row. The facts are from ai.google.dev/gemini-api/docs (models, thinking,
thought-signatures, function-calling, tool-combination, image-generation) and
ai.google.dev/gemma/docs/core/gemma_on_gemini_api, and from the reports that
C{gemproxy/demo/rules.py} names beside each refusal.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import field, frozen


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


# Levels of thinking, from the least to the most.
LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH")
_FROM_LOW = LEVELS[1:]


@frozen
class Budget:
    """
    Thinking that is configured as a number of tokens.

    @ivar low: the least number of tokens, unless thinking is off.
    @ivar high: the greatest number.
    @ivar can_be_off: whether 0 turns thinking off.
    @ivar by_default: whether the model thinks without being told to; if not, it rejects a request
        for thoughts without a budget.
    """

    low: int
    high: int
    can_be_off: bool = True
    by_default: bool = True


@frozen
class Family:
    """
    What the models of one family take. The defaults are those of the third generation.

    @ivar title: as in the documentation.
    @ivar names: matches the beginning of the models' names.
    @ivar levels: the levels of thinking, in the order of LEVELS; empty if there are none.
    @ivar budget: thinking as a number of tokens; None for levels, or for no thinking at all.
    @ivar model_turn_last: whether a conversation may end with the model's turn.
    @ivar penalties: whether presence and frequency penalties other than 0 are taken.
    @ivar sampling: whether temperature, topP and topK are taken.
    @ivar functions: whether functions are taken.
    @ivar json: whether JSON can be requested.
    @ivar functions_with_json: whether both are taken in one request.
    @ivar functions_with_search: whether functions are taken beside Google's own tools.
    @ivar signatures: whether calls in the history must be signed.
    @ivar media_results: whether results of functions may contain pictures.
    @ivar system_instruction: whether there may be one.
    @ivar pictures: whether answers may contain pictures.
    """

    title: str
    names: re.Pattern[str] = field(converter=_pattern, repr=False)
    levels: tuple[str, ...] = ()
    budget: Budget | None = None
    model_turn_last: bool = True
    penalties: bool = False
    sampling: bool = True
    functions: bool = True
    json: bool = True
    functions_with_json: bool = True
    functions_with_search: bool = True
    signatures: bool = True
    media_results: bool = True
    system_instruction: bool = True
    pictures: bool = False

    @property
    def thinks(self) -> bool:
        """Whether the amount of thinking can be set."""
        return bool(self.levels) or self.budget is not None


def _second_generation(
    title: str,
    names: str,
    budget: Budget | None = None,
    *,
    penalties: bool = False,
    functions: bool = True,
    pictures: bool = False,
) -> Family:
    return Family(
        title,
        names,
        budget=budget,
        penalties=penalties,
        functions=functions,
        functions_with_json=False,
        functions_with_search=False,
        signatures=False,
        media_results=False,
        pictures=pictures,
    )


NEWEST = Family(
    "newer, rolling (`-latest`) and unknown names",
    "",
    levels=_FROM_LOW,
    model_turn_last=False,
    sampling=False,
)

# The first row that includes a name counts.
FAMILIES: tuple[Family, ...] = (
    Family(
        "Gemma 3",
        r"gemma-3n?-",
        functions=False,
        json=False,
        signatures=False,
        media_results=False,
        system_instruction=False,
    ),
    Family(
        "Gemma 4 and later",
        r"gemma-",
        levels=("MINIMAL", "HIGH"),
        signatures=False,
        media_results=False,
    ),
    _second_generation("2.x, pictures", r"gemini-2\.\d-.*image", functions=False, pictures=True),
    Family("3 and later, pictures", r"gemini-.*image|nano-banana", functions=False, pictures=True),
    _second_generation(
        "speech, robotics, computer use", r"gemini-.*(?:tts|audio|live|robotics|computer-use)"
    ),
    _second_generation("2.5 Pro", r"gemini-2\.5-pro", Budget(128, 32768, can_be_off=False)),
    _second_generation(
        "2.5 Flash-Lite", r"gemini-2\.5-flash-lite", Budget(512, 24576, by_default=False)
    ),
    _second_generation("2.5 Flash", r"gemini-2\.[5-9](?:-|$)", Budget(1, 24576)),
    _second_generation(
        "2.0 and older, LearnLM", r"gemini-[12](?:\.\d)?(?:-|$)|learnlm-", penalties=True
    ),
    Family("3 Pro", r"gemini-3-pro", levels=("LOW", "HIGH")),
    Family("3.1 Pro to 3.5 Pro", r"gemini-3\.[1-5]-pro", levels=_FROM_LOW),
    Family("3.5 Flash-Lite", r"gemini-3\.5-flash-lite", levels=LEVELS, model_turn_last=False),
    Family("3 Flash to 3.5 Flash, 3.1 Flash-Lite", r"gemini-3(?:\.[1-5])?-flash", levels=LEVELS),
    Family("3.6 Flash", r"gemini-3\.6-flash", levels=LEVELS, model_turn_last=False, sampling=False),
    NEWEST,
)


@lru_cache(1024)
def family_of(model: str) -> Family:
    """The family of a model, by its name without C{models/}."""
    return next(family for family in FAMILIES if family.names.match(model))
