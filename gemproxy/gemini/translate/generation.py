"""Translates the settings of a generation: sampling, limits, stop sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import bad_request
from gemproxy.gemini.translate.checks import number, positive, whole
from gemproxy.gemini.translate.families import Family
from gemproxy.gemini.translate.leniency import Leniency

# continuedev/continue#2702, #7849
_STOPS = 5
_INT32 = 2**31


@frozen
class _Setting:
    """
    A number.

    @ivar google: the API's name.
    @ivar check: raises a ChatError for a value of another type.
    @ivar low: the least value that the API takes; likewise C{high}.
    """

    google: str
    check: Callable[[str, Any], float]
    low: float
    high: float


# If two parameters have the same name in the API, the later one wins.
SETTINGS: dict[str, _Setting] = {
    "temperature": _Setting("temperature", number, 0, 2),
    "top_p": _Setting("topP", number, 0, 1),
    "top_k": _Setting("topK", whole, 1, _INT32 - 1),
    "max_tokens": _Setting("maxOutputTokens", positive, 1, _INT32 - 1),
    "max_completion_tokens": _Setting("maxOutputTokens", positive, 1, _INT32 - 1),
    "seed": _Setting("seed", whole, -_INT32, _INT32 - 1),
    "presence_penalty": _Setting("presencePenalty", number, -2, 2),
    "frequency_penalty": _Setting("frequencyPenalty", number, -2, 2),
}
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})


def generation_config(
    body: Mapping[str, Any], family: Family, leniency: Leniency
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """
    @return: the settings for the API, and the stop sequences that are too many for it.
    @raise ChatError: 400, a parameter is invalid; the error names it.
    """
    config: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        if body.get(name) is None:
            continue
        value = setting.check(name, body[name])
        if name in _PENALTIES and not family.penalties:
            if value:
                leniency.leave_out(name)
        elif name in _SAMPLING and not family.sampling:
            leniency.leave_out(name)
        elif not setting.low <= value <= setting.high:
            leniency.leave_out(name, f"must be from {setting.low} to {setting.high}")
        else:
            config[setting.google] = value
    stops = _stops(body.get("stop"))
    if len(stops) > _STOPS and not leniency.lenient:
        leniency.leave_out("stop", f"may have at most {_STOPS} sequences")
    if stops:
        config["stopSequences"] = stops[:_STOPS]
    return config, tuple(stops[_STOPS:])


def _stops(value: Any) -> list[str]:
    if value is None:
        return []
    sequences = [value] if isinstance(value, str) else value
    if not isinstance(sequences, list) or not all(isinstance(item, str) for item in sequences):
        raise bad_request("'stop' must be a string or a list of strings.", "stop")
    return [sequence for sequence in dict.fromkeys(sequences) if sequence]
