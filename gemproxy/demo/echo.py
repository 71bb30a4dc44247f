"""The answers of the demo: each repeats the message."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from attrs import frozen

from gemproxy.chat.jsontext import dumps
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.demo.samples import sample

PACE = 0.02
"""Seconds between two words."""

CHARACTERS_PER_TOKEN = 4

MOST_TOKENS = 65_536
"""Of an answer; so many have Gemini's models (ai.google.dev/gemini-api/docs/models)."""

_CHUNKS_LIMIT = 250
# Gemini begins its thoughts with a title.
_THOUGHT = "**Being a demo**\n\nNobody thinks here."
_WORD = re.compile(r"\S+\s*|\s+")

Part = dict[str, Any]


@frozen
class Echo:
    """
    The answer to one request.

    @ivar chunks: the parts of each streamed response.
    """

    chunks: tuple[tuple[Part, ...], ...]
    finish_reason: str = "STOP"


def echo(model: str, request: dict[str, Any]) -> Echo:
    """
    Repeat the last message: as JSON if JSON is requested, and as a call if the message names one
    of the declared functions, or if a call is required. A schema gets a value that fits it.

    @param request: the body of a C{generateContent} request.
    """
    parts = _last_parts(request)
    message = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    if functions := _functions_to_call(request, "" if results else message):
        return Echo((tuple(map(_call, functions)),))
    if results and not message:
        message = dumps(results).decode()
    config = as_object(request.get("generationConfig"))
    if schema := as_object(config.get("responseJsonSchema")):
        text = dumps(sample(schema)).decode()
    elif config.get("responseMimeType") == "application/json":
        document: dict[str, Any] = {"demo": True, "model": model, "echo": message}
        text = dumps(document).decode()
    else:
        text = (
            f"This is the demo of gemproxy: no Gemini model was used. {model} would have"
            f" received your message:\n\n{message}"
        )
    text, finish_reason = _limited(text, config)
    chunks: list[tuple[Part, ...]] = [({"text": words},) for words in word_chunks(text)]
    if as_object(config.get("thinkingConfig")).get("includeThoughts") is True:
        chunks.insert(0, ({"text": _THOUGHT, "thought": True},))
    return Echo(tuple(chunks), finish_reason)


def word_chunks(text: str, limit: int = _CHUNKS_LIMIT) -> list[str]:
    """The text cut after words, into C{limit} pieces at most."""
    words = _WORD.findall(text)
    step = -(-len(words) // limit) or 1
    return ["".join(words[start : start + step]) for start in range(0, len(words), step)]


def _last_parts(request: dict[str, Any]) -> list[Part]:
    contents = objects_in(request.get("contents"))
    return objects_in(contents[-1].get("parts")) if contents else []


def _functions(request: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for tool in objects_in(request.get("tools")):
        yield from objects_in(tool.get("functionDeclarations"))


def _functions_to_call(request: dict[str, Any], message: str) -> list[dict[str, Any]]:
    """The functions that a message names; or the last one, if a call is required."""
    calling = as_object(as_object(request.get("toolConfig")).get("functionCallingConfig"))
    allowed = calling.get("allowedFunctionNames")
    functions = [
        function
        for function in _functions(request)
        if not isinstance(allowed, list) or function.get("name") in allowed
    ]
    named = [function for function in functions if _is_named(function, message)]
    return named or (functions[-1:] if calling.get("mode") == "ANY" else [])


def _is_named(function: dict[str, Any], message: str) -> bool:
    name = function.get("name")
    if not isinstance(name, str):
        return False
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) is not None


def _call(function: dict[str, Any]) -> Part:
    """A call with a value of the right type for each argument that is required."""
    schema = as_object(function.get("parametersJsonSchema") or function.get("parameters"))
    args = sample(schema)
    return {"functionCall": {"name": function["name"], "args": as_object(args)}}


def _limited(text: str, config: dict[str, Any]) -> tuple[str, str]:
    """The text up to the first stop sequence and the limit of tokens, and the finish reason."""
    stops = config.get("stopSequences")
    for stop in stops if isinstance(stops, list) else ():
        if isinstance(stop, str) and stop:
            text = text.partition(stop)[0]
    limit = config.get("maxOutputTokens")
    limit = min(limit, MOST_TOKENS) if isinstance(limit, int) else MOST_TOKENS
    if len(text) > limit * CHARACTERS_PER_TOKEN:
        return text[: max(0, limit) * CHARACTERS_PER_TOKEN], "MAX_TOKENS"
    return text, "STOP"


def prompt_length(request: dict[str, Any]) -> int:
    """The tokens of a prompt."""
    return len(dumps(request.get("contents"))) // CHARACTERS_PER_TOKEN


def responses(model: str, request: dict[str, Any]) -> Iterable[bytes]:
    """The responses of a streamed answer, as JSON."""
    answer = echo(model, request)
    prompt_tokens = prompt_length(request)
    sent = 0
    for number, parts in enumerate(answer.chunks, 1):
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if number == len(answer.chunks):
            candidate["finishReason"] = answer.finish_reason
        sent += sum(len(str(part.get("text", part))) for part in parts)
        tokens = -(-sent // CHARACTERS_PER_TOKEN)
        usage = {
            "promptTokenCount": prompt_tokens,
            "candidatesTokenCount": tokens,
            "totalTokenCount": prompt_tokens + tokens,
        }
        yield dumps({"candidates": [candidate], "usageMetadata": usage, "modelVersion": model})
