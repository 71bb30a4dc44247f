"""What the demo answers: that it is the demo, and what it was asked."""

from __future__ import annotations

import re
from typing import Any

import orjson
from attrs import evolve

from gemproxy.standin.asked import ReceivedRequest
from gemproxy.standin.plays import Play, answer, calls, thinking
from gemproxy.standin.responses import CHARACTERS_PER_TOKEN

PACE = 0.02
"""Seconds between two words."""

_MOST_CHUNKS = 250
# Gemini begins its thoughts with a title.
_THOUGHT = "**Being a demo**\n\nNobody thinks here."
_WORD = re.compile(r"\S+\s*|\s+")
# The CLI puts this in front of the names of a client's functions.
_CLI_PREFIX = re.compile(r"mcp_[^_]+_")
_SAMPLES: dict[str, Any] = {
    "string": "",
    "number": 0,
    "integer": 0,
    "boolean": False,
    "array": [],
    "object": {},
}


def demo_play(request: ReceivedRequest) -> Play:
    """
    An echo: as JSON where JSON was asked for, and a call where the last message names one of the
    declared functions.
    """
    told = request.texts[-1][1] if request.texts else ""
    results = [part["functionResponse"] for part in request.parts if "functionResponse" in part]
    if not results:
        wanted = [function for function in request.functions if _named(function, told)]
        if wanted:
            return calls(*((function["name"], _sample_args(function)) for function in wanted))
    elif not told:
        told = orjson.dumps(results).decode()
    config = request.generation_config
    if config.get("responseMimeType") == "application/json":
        echo = {"demo": True, "model": request.model, "echo": told}
        words = orjson.dumps(echo).decode()
    else:
        words = (
            f"This is the demo of gemproxy: no Gemini model was asked. {request.model} would have"
            f" been given your message:\n\n{told}"
        )
    words, finish_reason = _limited(words, config)
    chunks = word_chunks(words)
    play = thinking(_THOUGHT, *chunks) if _wants_thoughts(config) else answer(*chunks)
    return evolve(play, pace=PACE, finish_reason=finish_reason)


def word_chunks(words: str, most: int = _MOST_CHUNKS) -> list[str]:
    """The text cut after words, into no more than C{most} pieces."""
    pieces = _WORD.findall(words)
    step = -(-len(pieces) // most) or 1
    return ["".join(pieces[start : start + step]) for start in range(0, len(pieces), step)]


def _limited(words: str, config: dict[str, Any]) -> tuple[str, str]:
    stops = config.get("stopSequences")
    for stop in stops if isinstance(stops, list) else ():
        if isinstance(stop, str) and stop:
            words = words.partition(stop)[0]
    limit = config.get("maxOutputTokens")
    if isinstance(limit, int) and len(words) > limit * CHARACTERS_PER_TOKEN:
        return words[: max(0, limit) * CHARACTERS_PER_TOKEN], "MAX_TOKENS"
    return words, "STOP"


def _wants_thoughts(config: dict[str, Any]) -> bool:
    thinking_config = config.get("thinkingConfig")
    return isinstance(thinking_config, dict) and thinking_config.get("includeThoughts") is True


def _named(function: dict[str, Any], told: str) -> bool:
    name = function.get("name")
    if not isinstance(name, str):
        return False
    names = {name, _CLI_PREFIX.sub("", name, count=1)}
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", told) for word in names)


def _sample_args(function: dict[str, Any]) -> dict[str, Any]:
    """A value of the right type, and an empty one, for each argument that is required."""
    schema = function.get("parametersJsonSchema") or function.get("parameters")
    if not isinstance(schema, dict):
        return {}
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    return {name: _sample(properties.get(name)) for name in required if isinstance(name, str)}


def _sample(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return ""
    options = schema.get("enum")
    if isinstance(options, list) and options:
        return options[0]
    return _SAMPLES.get(str(schema.get("type")).lower(), "")
