"""Translates and validates the parameters of a request, except its messages. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.gemini.translate.thinking import EFFORTS, thinking_config
from gemproxy.gemini.translate.tools import declarations, tool_config

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


@frozen
class Parameters:
    """
    @ivar choices: the number of choices requested.
    @ivar request: the fields of the API's request besides the conversation.
    @ivar one_call: whether a response may contain at most one function call.
    @ivar ignored: the client's parameters that were ignored.
    """

    choices: int
    request: dict[str, Any]
    one_call: bool
    ignored: tuple[str, ...]


def parameters(body: Mapping[str, Any], model: str, lenient: bool) -> Parameters:
    """
    @param lenient: whether unsupported parameters are ignored instead of rejected.
    @raise ChatError: 400, a parameter is invalid; the error names it.
    """
    config: dict[str, Any] = {}
    for name, (setting, read) in _SETTINGS.items():
        if body.get(name) is not None and (value := read(name, body[name])) != []:
            config[setting] = value
    config.update(_response_format(body.get("response_format")))
    effort = _effort(body.get("reasoning_effort"))
    if (thinking := thinking_config(model, effort)) is not None:
        config["thinkingConfig"] = thinking

    request: dict[str, Any] = {}
    if config:
        request["generationConfig"] = config
    tools = declarations(body.get("tools"))
    choice = tool_config(body.get("tool_choice"), tools)
    if tools:
        request["tools"] = [{"functionDeclarations": tools}]
        if choice is not None:
            request["toolConfig"] = choice

    ignored = tuple(
        name for name, value in body.items() if name not in _UNDERSTOOD and not _is_default(value)
    )
    if effort not in (None, "none") and thinking is None:
        ignored += ("reasoning_effort",)
    if ignored and not lenient:
        raise bad_request(f"'{ignored[0]}' is not supported for this model.", ignored[0])
    one_call = not _flag("parallel_tool_calls", body.get("parallel_tool_calls"), True)
    return Parameters(_choices(body.get("n")), request, one_call, ignored)


def _is_default(value: Any) -> bool:
    """Whether a value has no effect; many front ends send such values."""
    return value is None or value is False or value == {} or value == []


def _flag(name: str, value: Any, default: bool) -> bool:
    if value is None:
        return default
    if not isinstance(value, bool):
        raise bad_request(f"'{name}' must be true or false.", name)
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise bad_request(f"'{name}' must be a number.", name)
    return value


def _whole(name: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_request(f"'{name}' must be a whole number.", name)
    return value


def _positive(name: str, value: Any) -> int:
    number = _whole(name, value)
    if number < 1:
        raise bad_request(f"'{name}' must be at least 1.", name)
    return number


def _stop(name: str, value: Any) -> list[str]:
    sequences = [value] if isinstance(value, str) else value
    if not isinstance(sequences, list) or not all(isinstance(item, str) for item in sequences):
        raise bad_request(f"'{name}' must be a string or a list of strings.", name)
    return [sequence for sequence in sequences if sequence]


# Maps the client's parameter to the API's name and a parser. If two parameters have the same API
# name, the later one wins.
_SETTINGS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "temperature": ("temperature", _number),
    "top_p": ("topP", _number),
    "top_k": ("topK", _whole),
    "max_tokens": ("maxOutputTokens", _positive),
    "max_completion_tokens": ("maxOutputTokens", _positive),
    "stop": ("stopSequences", _stop),
    "seed": ("seed", _whole),
    "presence_penalty": ("presencePenalty", _number),
    "frequency_penalty": ("frequencyPenalty", _number),
}

_UNDERSTOOD = (
    _WITHOUT_EFFECT
    | _SETTINGS.keys()
    | {"n", "parallel_tool_calls", "reasoning_effort", "response_format", "tools", "tool_choice"}
)


def _response_format(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"responseMimeType": "application/json"}
    if kind != "json_schema":
        raise bad_request(
            "'response_format.type' must be 'text', 'json_object' or 'json_schema'.",
            "response_format",
        )
    wrapper = value.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if schema is None and isinstance(wrapper, dict):
        return {"responseMimeType": "application/json"}
    if not isinstance(schema, dict):
        raise bad_request(
            "'response_format.json_schema.schema' must be an object.",
            "response_format.json_schema.schema",
        )
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}


def _effort(value: Any) -> str | None:
    if value is None:
        return None
    if value not in EFFORTS:
        raise bad_request(
            f"'reasoning_effort' must be one of {', '.join(EFFORTS)}.", "reasoning_effort"
        )
    return str(value)


def _choices(value: Any) -> int:
    if value is None:
        return 1
    number = _positive("n", value)
    if number > MAX_CHOICES:
        raise _too_many_choices()
    return number


def _too_many_choices() -> ChatError:
    return bad_request(f"'n' must be at most {MAX_CHOICES}.", "n")
