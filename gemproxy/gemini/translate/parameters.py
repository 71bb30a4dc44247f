"""Translates and validates the parameters of a request, except its messages. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from gemproxy.chat.errors import bad_request
from gemproxy.gemini.translate.checks import flag, positive
from gemproxy.gemini.translate.extensions import NAMES, Extensions, extensions
from gemproxy.gemini.translate.families import Family
from gemproxy.gemini.translate.generation import SETTINGS, generation_config
from gemproxy.gemini.translate.json_answer import AnswerFunction, JsonAnswer, json_answer
from gemproxy.gemini.translate.leniency import Leniency
from gemproxy.gemini.translate.thinking import EFFORTS, thinking_config
from gemproxy.gemini.translate.tools import Tools, calling_config, read_tools

Json = dict[str, Any]

MAX_CHOICES = 4

# Parameters without effect on the response.
_WITHOUT_EFFECT = frozenset(
    {
        "messages",
        "metadata",
        "model",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    }
)

_UNDERSTOOD = (
    _WITHOUT_EFFECT
    | SETTINGS.keys()
    | NAMES
    | {"n", "parallel_tool_calls", "reasoning_effort", "response_format", "stop"}
    | {"tool_choice", "tools", "web_search_options"}
)


@frozen
class Defaults:
    """
    What applies unless a client says otherwise.

    @ivar lenient: whether parameters that Google cannot honour are left out instead of refused.
    @ivar thoughts: whether thoughts are part of an answer.
    @ivar safety: the threshold of Google's filters; None for the API's own.
    """

    lenient: bool = True
    thoughts: bool = True
    safety: str | None = None


@frozen
class Parameters:
    """
    @ivar choices: the number of choices requested.
    @ivar request: the fields of the API's request besides the conversation.
    @ivar one_call: whether a response may contain at most one function call.
    @ivar ignored: the client's parameters that were ignored.
    @ivar stops: stop sequences that the API is not told.
    @ivar client_names: the client's names of functions, by Gemini's.
    @ivar answer_function: the function whose call is the answer; None if there is none.
    @ivar instruction: an instruction to add to the conversation; None if there is none.
    @ivar shows_thoughts: whether thoughts are part of the answer.
    @ivar audio_format: how sound is to be encoded: C{wav} or C{pcm16}.
    """

    choices: int
    request: Json
    one_call: bool
    ignored: tuple[str, ...]
    stops: tuple[str, ...] = ()
    client_names: Mapping[str, str] = field(factory=dict)
    answer_function: AnswerFunction | None = None
    instruction: str | None = None
    shows_thoughts: bool = True
    audio_format: str = "wav"


def parameters(body: Mapping[str, Any], family: Family, defaults: Defaults) -> Parameters:
    """
    @param family: that of the requested model.
    @raise ChatError: 400, a parameter is invalid; the error names it.
    """
    leniency = Leniency(defaults.lenient)
    for name, value in body.items():
        if name not in _UNDERSTOOD and not _is_default(value):
            leniency.leave_out(name)
    config, more_stops = generation_config(body, family, leniency)
    extra = extensions(body, defaults.safety)
    config |= extra.config
    shown = defaults.thoughts if extra.thinking.shown is None else extra.thinking.shown
    if thinking := _thinking(body, family, extra, shown, leniency):
        config["thinkingConfig"] = thinking
    tools, calling, answer = _tools(body, family, leniency)
    config |= answer.config

    request: Json = {"generationConfig": config} if config else {}
    request |= extra.request | _tool_fields(tools, calling)
    if "cachedContent" in request and "tools" in request:
        raise bad_request("'tools' cannot be used with cached content.", "tools")
    return Parameters(
        _choices(body.get("n")),
        request,
        not flag("parallel_tool_calls", body.get("parallel_tool_calls"), True),
        tuple(leniency.ignored),
        more_stops,
        tools.client_names,
        answer.function,
        answer.instruction,
        shown,
        extra.audio_format,
    )


def _is_default(value: Any) -> bool:
    """Whether a value has no effect; many front ends send such values."""
    return value is None or value is False or value == {} or value == []


def _thinking(
    body: Mapping[str, Any],
    family: Family,
    extra: Extensions,
    shown: bool,
    leniency: Leniency,
) -> Json:
    effort = body.get("reasoning_effort")
    if effort is not None and effort not in EFFORTS:
        raise bad_request(
            f"'reasoning_effort' must be one of {', '.join(EFFORTS)}.", "reasoning_effort"
        )
    wanted = extra.thinking
    effort = wanted.effort or effort
    if effort not in (None, "none", "auto") and not family.thinks:
        leniency.leave_out("reasoning_effort")
        return {}
    if wanted.budget is None or not family.thinks:
        return thinking_config(family, effort, shown)
    budget = wanted.budget
    if family.budget is not None and budget > 0:
        budget = min(max(budget, family.budget.low), family.budget.high)
    elif family.budget is not None and budget == 0 and not family.budget.can_be_off:
        budget = family.budget.low
    return ({"includeThoughts": True} if shown and budget else {}) | {"thinkingBudget": budget}


def _tools(
    body: Mapping[str, Any], family: Family, leniency: Leniency
) -> tuple[Tools, Json | None, JsonAnswer]:
    tools = read_tools(body.get("tools"), leniency)
    if body.get("web_search_options") is not None:
        tools.add_own("googleSearch")
    choice = body.get("tool_choice")
    if tools.functions and not family.functions:
        leniency.leave_out("tools")
        tools, choice = Tools(own=tools.own), None
    calling = calling_config(choice, tools)
    if tools.functions and tools.own and not family.functions_with_search:
        leniency.leave_out(
            "web_search_options" if body.get("web_search_options") is not None else "tools",
            "cannot combine functions and Google's own tools for this model",
        )
        tools.own.clear()
    answer = json_answer(body.get("response_format"), family, tools, calling, leniency)
    return tools, answer.calling or calling, answer


def _tool_fields(tools: Tools, calling: Json | None) -> Json:
    listed: list[Json] = [{name: {}} for name in tools.own]
    if tools.functions:
        listed.append({"functionDeclarations": tools.functions})
    if not listed:
        return {}
    config: Json = {}
    if tools.functions and tools.own:
        # ai.google.dev/gemini-api/docs/tool-combination
        config["includeServerSideToolInvocations"] = True
        if calling is None or calling["mode"] == "AUTO":
            calling = {"mode": "VALIDATED"}
    if tools.functions and calling is not None:
        config["functionCallingConfig"] = calling
    return {"tools": listed} | ({"toolConfig": config} if config else {})


def _choices(value: Any) -> int:
    if value is None:
        return 1
    number = positive("n", value)
    if number > MAX_CHOICES:
        raise bad_request(f"'n' must be at most {MAX_CHOICES}.", "n")
    return number
