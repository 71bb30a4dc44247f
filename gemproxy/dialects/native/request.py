"""A request to C{generateContent} as a chat completion request, for whoever does not take it."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.errors import bad_request
from gemproxy.chat.shapes import as_object
from gemproxy.dialects.native.fields import json_schema, spelt
from gemproxy.dialects.native.history import History, system_text
from gemproxy.dialects.native.tools import read_tools

Json = dict[str, Any]

_SETTINGS = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxOutputTokens": "max_tokens",
    "candidateCount": "n",
    "stopSequences": "stop",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "seed": "seed",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
}
_FORMATS = ("responseMimeType", "responseSchema", "responseJsonSchema", "responseFormat")
_CONFIG = {*_SETTINGS, *_FORMATS, "thinkingConfig", "responseModalities"}
_READ = {"contents", "systemInstruction", "generationConfig", "tools", "toolConfig"}
# They say nothing about the answer, or nothing that others could heed.
_WITHOUT_EFFECT = {"model", "labels", "store", "serviceTier"}
# ai.google.dev/gemini-api/docs/openai#thinking, the other way round: the most tokens of each.
_BUDGETS = ((0, "none"), (1024, "low"), (8192, "medium"))


def read_request(sent: Json, model: str, is_gemini: bool) -> tuple[Json, tuple[str, ...]]:
    """
    The body of a chat completion request, and the names of the fields that are left out.

    @param sent: with names in camel case or with underscores, as protobuf's JSON may have them.
    @param is_gemini: whether Gemini's own tools and options are understood.
    @raise ChatError: 400, the request cannot be understood; the error names the field.
    """
    fields = spelt(sent)
    config = spelt(as_object(fields.get("generationConfig")))
    history = History()
    if system := system_text(fields.get("systemInstruction")):
        history.messages.append({"role": "system", "content": system})
    contents = fields.get("contents")
    if not isinstance(contents, list) or not contents:
        raise bad_request("'contents' must be a non-empty list.", "contents")
    for number, content in enumerate(contents):
        history.add(content, f"contents[{number}]")
    tools = read_tools(fields.get("tools"), fields.get("toolConfig"), is_gemini)
    body: Json = {"model": model, "messages": history.messages}
    body |= {ours: config[name] for name, ours in _SETTINGS.items() if config.get(name) is not None}
    body |= tools.fields | _format(config) | _thinking(config, is_gemini)
    modalities = config.get("responseModalities")
    if isinstance(modalities, list) and modalities not in ([], ["TEXT"]):
        body["modalities"] = [str(each).lower() for each in modalities]
    ignored = [*tools.ignored]
    for given, known in ((fields, _READ | _WITHOUT_EFFECT), (config, _CONFIG)):
        ignored += [name for name, value in given.items() if name not in known and value]
    if is_gemini:
        for theirs, ours in (
            ("safetySettings", "safety_settings"),
            ("cachedContent", "cached_content"),
        ):
            if theirs in fields:
                body[ours] = fields[theirs]
                ignored.remove(theirs)
    return body, tuple(ignored)


def _format(config: Json) -> Json:
    """The JSON that is wanted."""
    schema = config.get("responseJsonSchema")
    if schema is None and config.get("responseSchema") is not None:
        schema = json_schema(config["responseSchema"])
    if schema is not None:
        named = {"name": "answer", "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    if config.get("responseMimeType") == "application/json":
        return {"response_format": {"type": "json_object"}}
    return {}


def _thinking(config: Json, is_gemini: bool) -> Json:
    thinking = spelt(as_object(config.get("thinkingConfig")))
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    if is_gemini and thinking:
        names = (
            ("thinking_level", level),
            ("thinking_budget", budget),
            ("include_thoughts", thinking.get("includeThoughts")),
        )
        wanted = {name: value for name, value in names if value is not None}
        return {"google": {"thinking_config": wanted}}
    if isinstance(level, str) and level.lower() in ("minimal", "low", "medium", "high"):
        return {"reasoning_effort": level.lower()}
    if isinstance(budget, int) and budget >= 0:
        return {"reasoning_effort": next((e for most, e in _BUDGETS if budget <= most), "high")}
    return {}
