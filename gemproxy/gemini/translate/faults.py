"""Which of the client's parameters an error of the Gemini API is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gemproxy.chat.shapes import objects_in

# The parameters by the fields that they are sent as.
_PARAMETERS = {
    "contents": "messages",
    "system_instruction": "messages",
    "model": "model",
    "tools": "tools",
    "tool_config": "tool_choice",
    "generation_config.temperature": "temperature",
    "generation_config.top_p": "top_p",
    "generation_config.top_k": "top_k",
    "generation_config.seed": "seed",
    "generation_config.presence_penalty": "presence_penalty",
    "generation_config.frequency_penalty": "frequency_penalty",
    "generation_config.max_output_tokens": "max_tokens",
    "generation_config.stop_sequences": "stop",
    "generation_config.response_mime_type": "response_format",
    "generation_config.response_schema": "response_format",
    "generation_config.response_json_schema": "response_format",
    "generation_config.response_modalities": "modalities",
    "generation_config.thinking_config": "reasoning_effort",
}

# "Invalid value at 'tools[0].name' (TYPE_STRING)", "* GenerateContentRequest.contents: contents is
# not specified".
_NAMED = re.compile(r"\bat '([\w.\[\]]{1,300})'|\bGenerateContentRequest\.([\w.\[\]]{1,300})")
_INDEX = re.compile(r"\[[^\]]*\]")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def fault_of(details: list[dict[str, Any]], message: str) -> str | None:
    """
    The parameter that an error names; None if it names none that clients know.

    @param details: of the error; a C{google.rpc.BadRequest} among them has the fields at fault.
    @param message: Google's; it names a field in some errors without such details.
    """
    for path in (*_violated(details), *(a or b for a, b in _NAMED.findall(message))):
        if (name := _parameter_of(path)) is not None:
            return name
    return None


def _violated(details: list[dict[str, Any]]) -> Iterator[str]:
    for detail in details:
        for violation in objects_in(detail.get("fieldViolations")):
            yield str(violation.get("field", ""))


def _parameter_of(path: str) -> str | None:
    """The parameter for a field or for what it is in: C{generationConfig.topK} is C{top_k}."""
    path = _INDEX.sub("", path[:300].removeprefix("GenerateContentRequest."))
    names = _HUMP.sub("_", path).lower().split(".")
    wholes = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((_PARAMETERS[whole] for whole in wholes if whole in _PARAMETERS), None)
