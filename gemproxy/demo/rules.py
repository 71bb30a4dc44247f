"""
What Google's API refuses, one rule a fault, each with its source.

The demo and the stand-in of the tests apply the same rules. They name the models by themselves and
ask nothing of the translation, so that a mistake there is seen here. The sources are reports that
quote Google's own words, as repository#number, or pages of ai.google.dev/gemini-api/docs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from attrs import field, frozen

from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.demo.spelling import canonical

Json = dict[str, Any]

DUMMY_SIGNATURE = "skip_thought_signature_validator"
"""Is taken for any signature: see the page thought-signatures."""

_INT32 = 2**31
_MOST_IN_A_BATCH = 100
_INVALID = "Request contains an invalid argument."
_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")

# The first match counts. A name without a version is a rolling one: it is the newest.
_VERSION = re.compile(r"gemini-(\d+)(?:\.(\d+))?(?:-|$)")
_NEWEST = (99, 0)


def _version(model: str) -> tuple[int, int]:
    match = _VERSION.match(model)
    return (int(match[1]), int(match[2] or 0)) if match else _NEWEST


def _is_gemini(model: str) -> bool:
    return model.startswith("gemini-")


def _any(model: str) -> bool:
    return True


def _from(*version: int) -> Callable[[str], bool]:
    return lambda model: _is_gemini(model) and _version(model) >= version


def _before(*version: int) -> Callable[[str], bool]:
    return lambda model: _is_gemini(model) and _version(model) < version


def _named(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda model: compiled.search(model) is not None


_IS_PRO_3 = _named(r"^gemini-(?:[3-9][.\d]*-)?pro\b")
_IS_LOW_AT_LEAST = _named(r"^gemini-(?:3\.[78]-flash(?!-lite)|flash-latest)")
_REFUSES_MODEL_TURN = _named(
    r"^gemini-(?:3\.[678]-|3\.5-flash-lite|flash-latest|flash-lite-latest)"
)
_IS_GEMMA_3 = _named(r"^gemma-3n?-")


@frozen
class Rule:
    """
    One kind of fault.

    @ivar name: what is at fault, in a word or two.
    @ivar source: where Google's refusal is reported.
    @ivar applies: whether a model refuses it, by the model's name.
    @ivar fault: Google's message if a request has the fault, otherwise None.
    """

    name: str
    source: str
    applies: Callable[[str], bool] = field(repr=False)
    fault: Callable[[Json], str | None] = field(repr=False)


def fault(model: str, request: Json) -> str | None:
    """
    Google's message for the first fault of a request; None if it would be served.

    @param model: the name of the model, without C{models/}.
    @param request: the body of a C{generateContent} request.
    """
    request = canonical(request)
    for rule in RULES:
        if rule.applies(model) and (message := rule.fault(request)) is not None:
            return message
    return None


def _config(request: Json) -> Json:
    return as_object(request.get("generationConfig"))


def _thinking(request: Json) -> Json:
    return as_object(_config(request).get("thinkingConfig"))


def _contents(request: Json) -> list[Json]:
    return objects_in(request.get("contents"))


def _parts(content: Json) -> list[Json]:
    return objects_in(content.get("parts"))


def _calls(content: Json) -> list[Json]:
    return [part for part in _parts(content) if "functionCall" in part]


def _responses(content: Json) -> list[Json]:
    return [part for part in _parts(content) if "functionResponse" in part]


def _functions(request: Json) -> list[Json]:
    tools = objects_in(request.get("tools"))
    return [function for tool in tools for function in objects_in(tool.get("functionDeclarations"))]


def _schema(function: Json) -> Json:
    return as_object(function.get("parametersJsonSchema") or function.get("parameters"))


def _nested(value: Any) -> Iterator[Json]:
    """An object and all objects in it."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _nested(item)
    elif isinstance(value, list):
        for item in value:
            yield from _nested(item)


# The shape of a request.

_FIELDS = frozenset(
    [
        "contents",
        "systemInstruction",
        "tools",
        "toolConfig",
        "generationConfig",
        "safetySettings",
        "cachedContent",
        "labels",
    ]
)
_CONFIG_FIELDS = frozenset(
    [
        "stopSequences",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseModalities",
        "candidateCount",
        "maxOutputTokens",
        "temperature",
        "topP",
        "topK",
        "seed",
        "presencePenalty",
        "frequencyPenalty",
        "responseLogprobs",
        "logprobs",
        "enableEnhancedCivicAnswers",
        "speechConfig",
        "thinkingConfig",
        "imageConfig",
        "mediaResolution",
    ]
)
_PART_FIELDS = frozenset(
    [
        "text",
        "inlineData",
        "functionCall",
        "functionResponse",
        "fileData",
        "executableCode",
        "codeExecutionResult",
        "toolCall",
        "toolResponse",
        "thought",
        "thoughtSignature",
        "videoMetadata",
        "mediaResolution",
        "partMetadata",
    ]
)
_DATA = _PART_FIELDS - {"thought", "thoughtSignature", "videoMetadata", "mediaResolution"}
_TOOLS = frozenset(
    [
        "functionDeclarations",
        "googleSearch",
        "googleSearchRetrieval",
        "urlContext",
        "codeExecution",
        "computerUse",
        "fileSearch",
        "googleMaps",
        "mcpServers",
    ]
)
_BUILT_IN = _TOOLS - {"functionDeclarations", "computerUse"}


def _unknown(known: frozenset[str], *objects: Any) -> str | None:
    for item in objects:
        for name in as_object(item):
            if name not in known:
                return f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    return None


def _shape(request: Json) -> str | None:
    contents = request.get("contents")
    if not isinstance(contents, list) or not contents:
        return "* GenerateContentRequest.contents: contents is not specified"
    parts = [part for content in _contents(request) for part in _parts(content)]
    unknown = (
        _unknown(_FIELDS, request)
        or _unknown(_CONFIG_FIELDS, _config(request))
        or _unknown(_PART_FIELDS, *parts)
        or _unknown(_TOOLS, *objects_in(request.get("tools")))
    )
    if unknown:
        return unknown
    for number, content in enumerate(_contents(request)):
        if content.get("role") not in ("user", "model"):
            return "Please use a valid role: user, model."
        if not _parts(content):
            return f"* GenerateContentRequest.contents[{number}].parts: must not be empty"
        if any(len(_DATA & part.keys()) != 1 for part in _parts(content)):
            return (
                f"* GenerateContentRequest.contents[{number}].parts: contents.parts must have one"
                " initialized field"
            )
    return None


# Generation settings.


def _low_is_least(request: Json) -> str | None:
    level = _thinking(request).get("thinkingLevel")
    return (
        f"Thinking level {level} is not supported for this model." if level == "MINIMAL" else None
    )


def _low_and_high(request: Json) -> str | None:
    level = _thinking(request).get("thinkingLevel")
    if level in (None, "LOW", "HIGH"):
        return None
    return f"Thinking level {level} is not supported for this model."


def _levels(request: Json) -> str | None:
    level = _thinking(request).get("thinkingLevel")
    if level in (None, "MINIMAL", "LOW", "MEDIUM", "HIGH"):
        return None
    return f"Invalid value at 'generation_config.thinking_config.thinking_level': \"{level}\""


def _no_level(request: Json) -> str | None:
    if "thinkingLevel" in _thinking(request):
        return "Thinking level is not supported for this model."
    return None


def _on_or_off(request: Json) -> str | None:
    level = _thinking(request).get("thinkingLevel")
    if level in (None, "MINIMAL", "HIGH"):
        return None
    return f"Thinking level {level} is not supported for this model."


def _not_both(request: Json) -> str | None:
    if {"thinkingLevel", "thinkingBudget"} <= _thinking(request).keys():
        return "You can only set only one of thinking budget and thinking level."
    return None


def _budget(low: int, high: int, off: bool) -> Callable[[Json], str | None]:
    def check(request: Json) -> str | None:
        budget = _thinking(request).get("thinkingBudget")
        if budget is None or budget == -1 or (off and budget == 0) or low <= budget <= high:
            return None
        return (
            f"The thinking budget {budget} is invalid. Please choose a value between {low} and"
            f" {high}."
        )

    return check


def _no_thinking(request: Json) -> str | None:
    return "Thinking is not enabled for this model." if _thinking(request) else None


def _penalties(request: Json) -> str | None:
    config = _config(request)
    if config.get("presencePenalty") or config.get("frequencyPenalty"):
        return "Penalty is not enabled for this model"
    return None


def _sampling(request: Json) -> str | None:
    for name in ("temperature", "topP", "topK"):
        if name in _config(request):
            return f"{name} is not supported for this model."
    return None


def _ranges(request: Json) -> str | None:
    config = _config(request)
    for name in ("seed", "topK", "maxOutputTokens"):
        value = config.get(name, 1)
        if not isinstance(value, int) or not -_INT32 <= value < _INT32:
            return f"Invalid value at 'generation_config.{name}' (TYPE_INT32), {value}"
    if config.get("topK", 1) < 1:
        return "* GenerateContentRequest.generation_config.top_k: top_k must be positive"
    if config.get("maxOutputTokens", 1) < 1:
        return "max_output_tokens must be positive."
    if not 0 <= config.get("temperature", 1) <= 2:
        return "temperature must be in the range [0.0, 2.0]."
    if not 0 <= config.get("topP", 1) <= 1:
        return "top_p must be in the range [0.0, 1.0]."
    return None


def _stops(request: Json) -> str | None:
    stops = _config(request).get("stopSequences") or []
    if len(stops) > 5:
        return f"The number of stop sequences must not exceed 5, but it is {len(stops)}."
    return "Stop sequences must not be empty." if "" in stops else None


def _schema_without_json(request: Json) -> str | None:
    config = _config(request)
    if "responseJsonSchema" in config and config.get("responseMimeType") != "application/json":
        return "response_schema needs response_mime_type: application/json"
    return None


# Functions.


def _functions_with_json(request: Json) -> str | None:
    if _functions(request) and _config(request).get("responseMimeType") == "application/json":
        return "Function calling with a response mime type: 'application/json' is unsupported"
    return None


def _function_names(request: Json) -> str | None:
    names = [function.get("name") for function in _functions(request)]
    for content in _contents(request):
        names += [as_object(part["functionCall"]).get("name") for part in _calls(content)]
        names += [as_object(part["functionResponse"]).get("name") for part in _responses(content)]
    if all(isinstance(name, str) and _FUNCTION_NAME.fullmatch(name) for name in names):
        return None
    return (
        "Invalid function name. Must start with a letter or an underscore. Must be alphameric"
        " (a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum"
        " length of 128."
    )


def _double_names(request: Json) -> str | None:
    names = [function.get("name") for function in _functions(request)]
    for name in names:
        if names.count(name) > 1:
            return f"Duplicate function declaration found: {name}"
    return None


def _calling(request: Json) -> Json:
    return as_object(as_object(request.get("toolConfig")).get("functionCallingConfig"))


def _any_without_object(request: Json) -> str | None:
    if _calling(request).get("mode") != "ANY":
        return None
    schemas = map(_schema, _functions(request))
    return None if all(schema.get("type") == "object" for schema in schemas) else _INVALID


def _allowed_names(request: Json) -> str | None:
    calling = _calling(request)
    allowed = calling.get("allowedFunctionNames")
    if not allowed:
        return None
    if calling.get("mode") not in ("ANY", "VALIDATED"):
        return "allowed_function_names should only be set when the mode is ANY or VALIDATED."
    known = {function.get("name") for function in _functions(request)}
    if not known.issuperset(allowed):
        return "allowed_function_names names a function that is not declared."
    return None


def _reference_with_siblings(request: Json) -> str | None:
    schemas = [*map(_schema, _functions(request)), _config(request).get("responseJsonSchema")]
    for schema in _nested(schemas):
        if "$ref" in schema and any(not name.startswith("$") for name in schema):
            return "JSON schema with $ref can only contain properties starting with '$'."
    return None


def _reference_in_result(request: Json) -> str | None:
    for content in _contents(request):
        for part in _responses(content):
            for item in _nested(as_object(part["functionResponse"]).get("response")):
                if "$ref" in item:
                    return (
                        f"The referenced name `{item['$ref']}` does not match to a display_name in"
                        " the function response parts."
                    )
    return None


def _built_in(request: Json) -> set[str]:
    return {name for tool in objects_in(request.get("tools")) for name in tool if name in _BUILT_IN}


def _search_with_functions(request: Json) -> str | None:
    if _functions(request) and _built_in(request):
        return "Tool use with function calling is unsupported by the model."
    return None


def _search_without_circulation(request: Json) -> str | None:
    config = as_object(request.get("toolConfig"))
    if _search_with_functions(request) and not config.get("includeServerSideToolInvocations"):
        return (
            "Please enable tool_config.include_server_side_tool_invocations to use Built-in tools"
            " with Function calling."
        )
    return None


def _no_functions(request: Json) -> str | None:
    return "Function calling is not enabled for this model" if _functions(request) else None


# The conversation.


def _model_turn_last(request: Json) -> str | None:
    if _contents(request)[-1].get("role") == "model":
        return "Requests ending with a model turn are not supported."
    return None


def _calls_in_place(request: Json) -> str | None:
    before: Json = {}
    for content in _contents(request):
        if _calls(content) and before.get("role") != "user":
            return (
                "Please ensure that function call turn comes immediately after a user turn or"
                " after a function response turn."
            )
        before = content
    return None


def _responses_match(request: Json) -> str | None:
    contents = _contents(request)
    for number, content in enumerate(contents):
        responses = len(_responses(content))
        calls = len(_calls(contents[number - 1])) if number else 0
        if responses != calls:
            return (
                "Please ensure that the number of function response parts is equal to the number"
                " of function call parts of the function call turn."
            )
    if _calls(contents[-1]):
        return (
            "Please ensure that function call turn comes immediately before a function response"
            " turn."
        )
    return None


def _signatures(request: Json) -> str | None:
    """The first call of each step of the current turn must be signed."""
    for content in reversed(_contents(request)):
        if content.get("role") == "user" and not _responses(content):
            return None
        for part in _calls(content)[:1]:
            if not part.get("thoughtSignature"):
                return (
                    "Function call is missing a thought_signature in functionCall parts. This is"
                    " required for tools to work correctly."
                )
    return None


def _system_instruction(request: Json) -> str | None:
    if request.get("systemInstruction"):
        return "Developer instruction is not enabled for this model"
    return None


def _json_mode(request: Json) -> str | None:
    if "responseMimeType" in _config(request):
        return "JSON mode is not enabled for this model"
    return None


def _cached_with_instruction(request: Json) -> str | None:
    if "cachedContent" in request and request.keys() & {"systemInstruction", "tools", "toolConfig"}:
        return (
            "CachedContent can not be used with GenerateContent request setting"
            " system_instruction, tools or tool_config."
        )
    return None


RULES: tuple[Rule, ...] = (
    Rule("shape", "api/generate-content", _any, _shape),
    Rule("MINIMAL", "req_llm#971, bifrost#6280", _IS_LOW_AT_LEAST, _low_is_least),
    Rule("MINIMAL on Pro", "litellm-docs#1505, kiss-translator#1048", _IS_PRO_3, _low_is_least),
    Rule("MEDIUM on 3 Pro", "bifrost#6280", _named("^gemini-3-pro"), _low_and_high),
    Rule("thinkingLevel", "thinking", _before(3), _no_level),
    Rule("level names", "thinking", _from(3), _levels),
    Rule("level and budget", "thinking", _any, _not_both),
    Rule("budget of 2.5 Pro", "thinking", _named("^gemini-2.5-pro"), _budget(128, 32768, False)),
    Rule(
        "budget of 2.5 Flash",
        "thinking",
        _named("^gemini-2.5-flash(?!-lite)"),
        _budget(0, 24576, True),
    ),
    Rule(
        "budget of 2.5 Flash-Lite",
        "thinking",
        _named("^gemini-2.5-flash-lite"),
        _budget(512, 24576, True),
    ),
    Rule("thinking of old models", "thinking", _before(2, 5), _no_thinking),
    Rule("thinking of Gemma", "gemma_on_gemini_api", _IS_GEMMA_3, _no_thinking),
    Rule("levels of Gemma", "gemma_on_gemini_api", _named("^gemma-4"), _on_or_off),
    Rule(
        "model turn at the end",
        "LibreChat-AI/agents#323, cline#12521, opencode#45359, pipecat#5821",
        _REFUSES_MODEL_TURN,
        _model_turn_last,
    ),
    Rule("penalties", "google-gemini/cookbook#1290, vercel/ai#8943", _from(2, 5), _penalties),
    Rule("sampling", "LibreChat#14367", _from(3, 6), _sampling),
    Rule("ranges", "pollinations#6867, genkit#1397", _any, _ranges),
    Rule("stop sequences", "continue#2702, #7849", _any, _stops),
    Rule("schema without JSON", "structured-output", _any, _schema_without_json),
    Rule(
        "functions with JSON",
        "python-genai#867, openai-agents-python#656",
        _before(3),
        _functions_with_json,
    ),
    Rule("double functions", "lobehub#12604", _any, _double_names),
    Rule("function names", "cherry-studio#4087", _any, _function_names),
    Rule(
        "ANY without an object",
        "python-genai#981, pydantic-ai#1990, livekit#2689",
        _any,
        _any_without_object,
    ),
    Rule("allowed functions", "function-calling", _any, _allowed_names),
    Rule("$ref with siblings", "gemini-cli#4758, opencode#12295", _any, _reference_with_siblings),
    Rule("$ref in a result", "Roo-Code#11430, hermes-agent#100441", _any, _reference_in_result),
    Rule("search with functions", "celeste-python#197", _before(3), _search_with_functions),
    Rule("no circulation", "ag2#3145, vercel/ai#13920", _from(3), _search_without_circulation),
    Rule("calls in place", "gemini-cli#11814, OmniRoute#13573", _any, _calls_in_place),
    Rule("results of calls", "eino-ext#571, vscode#299295", _any, _responses_match),
    Rule("signatures", "thought-signatures", _from(3), _signatures),
    Rule("cache with instruction", "caching", _any, _cached_with_instruction),
    Rule("system instruction of Gemma", "rig#788, lobehub#7128", _IS_GEMMA_3, _system_instruction),
    Rule("functions of Gemma", "agno#3505, litellm#10313", _IS_GEMMA_3, _no_functions),
    Rule("JSON of Gemma", "truefoundry/models#608", _IS_GEMMA_3, _json_mode),
)


def embedding_fault(body: Json, model: str) -> str | None:
    """What is wrong with a request of C{embedContent} or C{batchEmbedContents}."""
    is_batch = "requests" in body
    asked = objects_in(body["requests"]) if is_batch else [body]
    if len(asked) > _MOST_IN_A_BATCH:
        # langchainjs#4491, vercel/ai#16101
        return (
            "* BatchEmbedContentsRequest.requests: at most "
            f"{_MOST_IN_A_BATCH} requests can be in one batch\n"
        )
    for number, one in enumerate(asked):
        where = (
            f"BatchEmbedContentsRequest.requests[{number}]" if is_batch else "EmbedContentRequest"
        )
        named = one.get("model", "" if is_batch else f"models/{model}")
        if not str(named).startswith("models/"):
            # agent-zero#372, openhuman#4178
            return f"* {where}.model: unexpected model name format\n"
        parts = objects_in(as_object(one.get("content")).get("parts"))
        if not parts or any(part.get("text") == "" for part in parts):
            # webnovel-writer#51
            return "EmbedContentRequest.content contains an empty Part."
    return None
