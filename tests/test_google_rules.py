"""What Google refuses: each rule has a request that breaks it, and one that hardly does not."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.errors import ChatError
from gemproxy.demo import rules
from gemproxy.demo.spelling import canonical
from gemproxy.gemini.translate.families import FAMILIES, family_of
from gemproxy.gemini.translate.messages import translate_messages
from gemproxy.gemini.translate.parameters import Defaults, parameters
from gemproxy.gemini.translate.signatures import Signatures
from tests.tables import each

NEW, SECOND = "gemini-3.8-flash", "gemini-2.5-flash"
USER = {"role": "user", "parts": [{"text": "x"}]}
MODEL = {"role": "model", "parts": [{"text": "y"}]}
OBJECT = {"type": "object", "properties": {}}


def request(*contents: Any, **more: Any) -> dict[str, Any]:
    return {"contents": list(contents) or [USER]} | more


def config(**settings: Any) -> dict[str, Any]:
    return request(generationConfig=settings)


def thinking(**settings: Any) -> dict[str, Any]:
    return config(thinkingConfig=settings)


def functions(*names: str, schema: Any = OBJECT, **more: Any) -> dict[str, Any]:
    declared = [{"name": name, "parametersJsonSchema": schema} for name in names]
    return request(tools=[{"functionDeclarations": declared}], **more)


def call(name: str = "f", **more: Any) -> dict[str, Any]:
    part = {"functionCall": {"name": name, "args": {}}, "thoughtSignature": "c2ln"}
    return {"role": "model", "parts": [part | more]}


def response(*names: str, response: Any = None) -> dict[str, Any]:
    parts = [{"functionResponse": {"name": name, "response": response or {}}} for name in names]
    return {"role": "user", "parts": parts}


def mode(**calling: Any) -> dict[str, Any]:
    return {"toolConfig": {"functionCallingConfig": calling}}


JSON = {"responseMimeType": "application/json"}
SEARCH = {"googleSearch": {}}
CIRCULATION = {"toolConfig": {"includeServerSideToolInvocations": True}}
UNSIGNED = {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}
BOTH = [SEARCH, *functions("f")["tools"]]

# The rule, a model, what it refuses, and what the same or another model takes.
BROKEN: list[tuple[str, str, dict[str, Any], str, dict[str, Any]]] = [
    ("shape", NEW, {"contents": []}, NEW, request()),
    ("shape", NEW, request(x=1), NEW, request(safetySettings=[])),
    ("shape", NEW, request({"role": "assistant", "parts": [{"text": "x"}]}), NEW, request(USER)),
    ("shape", NEW, request({"role": "user", "parts": []}), NEW, request(USER)),
    ("shape", NEW, request({"role": "user", "parts": [{"x": 1}]}), NEW, request(USER)),
    ("shape", NEW, request({"role": "user", "parts": [{}]}), NEW, request(USER)),
    ("shape", NEW, config(top_k=1), SECOND, config(topK=1)),
    ("MINIMAL", NEW, thinking(thinkingLevel="MINIMAL"), NEW, thinking(thinkingLevel="LOW")),
    (
        "MINIMAL on Pro",
        "gemini-3.1-pro-preview",
        thinking(thinkingLevel="MINIMAL"),
        "gemini-3.6-flash",
        thinking(thinkingLevel="MINIMAL"),
    ),
    (
        "MEDIUM on 3 Pro",
        "gemini-3-pro-preview",
        thinking(thinkingLevel="MEDIUM"),
        "gemini-3.1-pro-preview",
        thinking(thinkingLevel="MEDIUM"),
    ),
    (
        "thinkingLevel",
        SECOND,
        thinking(thinkingLevel="LOW"),
        SECOND,
        thinking(thinkingBudget=1024),
    ),
    ("level names", NEW, thinking(thinkingLevel="MOST"), NEW, thinking(thinkingLevel="HIGH")),
    (
        "level and budget",
        NEW,
        thinking(thinkingLevel="LOW", thinkingBudget=1),
        NEW,
        thinking(thinkingBudget=1),
    ),
    (
        "budget of 2.5 Pro",
        "gemini-2.5-pro",
        thinking(thinkingBudget=0),
        "gemini-2.5-pro",
        thinking(thinkingBudget=128),
    ),
    (
        "budget of 2.5 Flash",
        SECOND,
        thinking(thinkingBudget=24577),
        SECOND,
        thinking(thinkingBudget=0),
    ),
    (
        "budget of 2.5 Flash-Lite",
        "gemini-2.5-flash-lite",
        thinking(thinkingBudget=511),
        "gemini-2.5-flash-lite",
        thinking(thinkingBudget=0),
    ),
    (
        "thinking of old models",
        "gemini-2.0-flash",
        thinking(includeThoughts=True),
        SECOND,
        thinking(includeThoughts=True),
    ),
    (
        "thinking of Gemma",
        "gemma-3-27b-it",
        thinking(includeThoughts=True),
        "gemma-4-31b-it",
        thinking(includeThoughts=True),
    ),
    (
        "levels of Gemma",
        "gemma-4-31b-it",
        thinking(thinkingLevel="LOW"),
        "gemma-4-31b-it",
        thinking(thinkingLevel="HIGH"),
    ),
    (
        "model turn at the end",
        "gemini-3.5-flash-lite",
        request(USER, MODEL),
        "gemini-3.5-flash",
        request(USER, MODEL),
    ),
    ("penalties", SECOND, config(presencePenalty=1), SECOND, config(presencePenalty=0)),
    ("sampling", "gemini-3.6-flash", config(temperature=1), "gemini-3.5-flash", config(topP=0.5)),
    ("ranges", SECOND, config(seed=2**31), SECOND, config(seed=2**31 - 1)),
    ("ranges", SECOND, config(topK=0), SECOND, config(topK=1)),
    ("ranges", SECOND, config(temperature=2.1), SECOND, config(temperature=2)),
    ("ranges", SECOND, config(topP=1.1), SECOND, config(topP=1)),
    ("ranges", SECOND, config(maxOutputTokens=0), SECOND, config(maxOutputTokens=1)),
    (
        "stop sequences",
        NEW,
        config(stopSequences=[*"abcdef"]),
        NEW,
        config(stopSequences=[*"abcde"]),
    ),
    ("schema without JSON", NEW, config(responseJsonSchema={}), NEW, config(**JSON)),
    (
        "functions with JSON",
        SECOND,
        functions("f", generationConfig=JSON),
        NEW,
        functions("f", generationConfig=JSON),
    ),
    ("double functions", NEW, functions("f", "f"), NEW, functions("f", "g")),
    ("function names", NEW, functions("1f"), NEW, functions("f1")),
    ("function names", NEW, request(USER, call("f g"), response("f")), NEW, functions("f_g")),
    (
        "ANY without an object",
        NEW,
        functions("f", schema={}, **mode(mode="ANY")),
        NEW,
        functions("f", **mode(mode="ANY")),
    ),
    (
        "allowed functions",
        NEW,
        functions("f", **mode(mode="AUTO", allowedFunctionNames=["f"])),
        NEW,
        functions("f", **mode(mode="VALIDATED", allowedFunctionNames=["f"])),
    ),
    (
        "$ref with siblings",
        NEW,
        functions("f", schema=OBJECT | {"items": {"$ref": "#", "title": "T"}}),
        NEW,
        functions("f", schema=OBJECT | {"items": {"$ref": "#"}}),
    ),
    (
        "$ref in a result",
        NEW,
        request(USER, call(), response("f", response={"a": [{"$ref": 1}]})),
        NEW,
        request(USER, call(), response("f", response={"output": '{"$ref": 1}'})),
    ),
    ("search with functions", SECOND, request(tools=BOTH), SECOND, request(tools=[SEARCH])),
    ("no circulation", NEW, request(tools=BOTH), NEW, request(tools=BOTH, **CIRCULATION)),
    (
        "calls in place",
        NEW,
        request(call(), response("f")),
        NEW,
        request(USER, call(), response("f")),
    ),
    (
        "calls in place",
        NEW,
        request(USER, MODEL, call(), response("f")),
        NEW,
        request(USER, MODEL, USER),
    ),
    ("results of calls", NEW, request(USER, call(), USER), NEW, request(USER)),
    ("results of calls", NEW, request(USER, call(), response("f", "g")), NEW, request(USER)),
    ("results of calls", SECOND, request(USER, call()), SECOND, request(USER, MODEL)),
    (
        "signatures",
        NEW,
        request(USER, UNSIGNED, response("f")),
        NEW,
        request(USER, UNSIGNED, response("f"), MODEL, USER),
    ),
    (
        "cache with instruction",
        NEW,
        request(cachedContent="c", systemInstruction={"parts": [{"text": "x"}]}),
        NEW,
        request(cachedContent="c"),
    ),
    *(
        (f"{rule} of Gemma", "gemma-3-27b-it", refused, "gemma-4-31b-it", refused)
        for rule, refused in (
            ("system instruction", request(systemInstruction={"parts": [{"text": "x"}]})),
            ("functions", functions("f")),
            ("JSON", config(**JSON)),
        )
    ),
]


@each(("rule", "model", "refused", "other", "taken"), BROKEN)
def test_each_rule_refuses_what_breaks_it(
    rule: str, model: str, refused: Any, other: str, taken: Any
):
    [known] = [known for known in rules.RULES if known.name == rule]
    assert known.applies(model)
    assert known.fault(refused)
    assert rules.fault(model, refused)
    assert rules.fault(other, taken) is None


def test_each_rule_is_tested_and_has_a_source():
    assert {rule.name for rule in rules.RULES} == {rule for rule, *_ in BROKEN}
    assert all(rule.source for rule in rules.RULES)


MODELS = st.sampled_from(
    [
        *("gemini-3.8-flash", "gemini-3.6-flash", "gemini-3.5-flash", "gemini-3.5-flash-lite"),
        *("gemini-3.1-pro-preview", "gemini-3-pro-preview", "gemini-3-flash-preview"),
        *("gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.0-flash"),
        *("gemini-flash-latest", "gemini-pro-latest", "gemma-3-27b-it", "gemma-4-31b-it"),
        *("gemini-3.1-flash-image", "gemini-2.5-flash-image", "gemini-2.5-flash-preview-tts"),
    ]
)


def test_each_family_is_among_the_models():
    names = {family_of(model).title for model in MODELS.elements}  # type: ignore[attr-defined]
    assert names == {family.title for family in FAMILIES}


SCHEMAS = st.sampled_from(
    [
        *(None, {}, OBJECT, {"type": "string"}, {"$ref": "#/$defs/a"}),
        {"$defs": {"a": OBJECT}, "$ref": "#/$defs/a", "description": "d"},
        {"type": "object", "properties": {"a": {"$ref": "#", "default": 1}}},
    ]
)


def tool(name: str, schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


TOOLS = st.builds(tool, st.sampled_from(["f", "1 f", "x" * 200]), SCHEMAS)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(-1, 3),
        "top_p": st.floats(-1, 2),
        "top_k": st.integers(-1, 2**33),
        "seed": st.integers(-(2**33), 2**33),
        "max_tokens": st.integers(1, 2**33),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.sampled_from([0, 0.5]),
        "stop": st.lists(st.sampled_from([*"abcdefgh"])),
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "high", "max", "auto"]),
        "response_format": SCHEMAS.map(schema_format) | st.just({"type": "json_object"}),
        "tools": st.lists(
            TOOLS | st.sampled_from([{"type": "google_search"}, {"type": "url_context"}]),
            max_size=3,
        ),
        "tool_choice": st.sampled_from(["auto", "none", "required"])
        | st.just({"type": "function", "function": {"name": "f"}}),
        "google": st.fixed_dictionaries(
            {},
            optional={
                "thinking_config": st.sampled_from(
                    [{"thinking_level": "minimal"}, {"thinking_budget": 0}, {"thinking_budget": 7}]
                )
            },
        ),
        "web_search_options": st.just({}),
    },
)
MESSAGES = st.sampled_from(
    [
        [{"role": "user", "content": "u"}],
        [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}],
        [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    ]
)


@given(BODIES, MESSAGES, MODELS)
def test_google_takes_what_a_client_may_send(body: Any, messages: Any, model: str):
    """Whatever a client sends, Google takes it, or the client is told which parameter is wrong."""
    family = family_of(model)
    try:
        wanted = parameters(body, family, Defaults())
        talk = translate_messages(messages, family, Signatures(), wanted.instruction)
    except ChatError as error:
        assert error.param
        return
    contents = [{"role": turn.role, "parts": list(turn.parts)} for turn in talk.turns]
    sent = {"contents": contents} | wanted.request
    if talk.system is not None:
        sent["systemInstruction"] = {"parts": [{"text": talk.system}]}
    assert rules.fault(model, sent) is None


def test_names_may_be_spelt_with_underscores():
    """litellm and google-genai send such names."""
    sent = {
        "system_instruction": {"parts": [{"text": "x"}]},
        "contents": [
            {"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": "eA=="}}]}
        ],
        "tools": [
            {
                "function_declarations": [
                    {"name": "f", "parameters": {"type": "object", "properties": {"a_b": {}}}}
                ]
            }
        ],
        "generation_config": {"thinking_config": {"thinking_level": "low"}},
    }
    assert rules.fault(NEW, sent) is None
    told = canonical(sent)
    [function] = told["tools"][0]["functionDeclarations"]
    assert list(function["parameters"]["properties"]) == ["a_b"]
    assert told["contents"][0]["parts"][0]["inlineData"]["mimeType"] == "image/png"
    call = {"function_call": {"name": "f", "args": {"a_b": 1}}}
    assert canonical(call) == {"functionCall": {"name": "f", "args": {"a_b": 1}}}
    assert rules.fault(NEW, sent | {"generation_config": {"x_y": 1}})
