"""A client's parameters as what the API is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.gemini.translate.families import family_of
from gemproxy.gemini.translate.parameters import Defaults, Parameters
from gemproxy.gemini.translate.parameters import parameters as read_parameters
from tests.strategies import json_values
from tests.tables import each

MODEL = "gemini-2.5-flash"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
DECLARED = {"name": "f", "parametersJsonSchema": SCHEMA}


def parameters(lenient: bool = True, model: str = MODEL, **body: Any) -> Parameters:
    body = {"model": model, "messages": []} | body
    return read_parameters(body, family_of(model), Defaults(lenient))


def config(**body: Any) -> dict[str, Any]:
    """The generation settings, less the wish to see thoughts."""
    got = parameters(lenient=False, **body)
    assert got.ignored == ()
    settings = dict(got.request["generationConfig"])
    assert settings.pop("thinkingConfig") == {"includeThoughts": True}
    return settings


def refusal(**body: Any) -> ChatError:
    with pytest.raises(ChatError) as caught:
        parameters(**body)
    assert (caught.value.status, caught.value.type) == (400, "invalid_request_error")
    return caught.value


def test_nothing_is_sent_that_was_not_set():
    got = parameters()
    assert got == Parameters(
        1, {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}, False, ()
    )
    assert parameters(model="gemini-2.0-flash").request == {}


@pytest.mark.parametrize(
    ("name", "value", "setting", "sent"),
    [
        ("temperature", 0, "temperature", 0),
        ("temperature", 0.7, "temperature", 0.7),
        ("temperature", 2, "temperature", 2),
        ("top_p", 0.95, "topP", 0.95),
        ("top_p", 1, "topP", 1),
        ("top_k", 40, "topK", 40),
        ("top_k", 40.0, "topK", 40),
        ("max_tokens", 300, "maxOutputTokens", 300),
        ("max_tokens", 1, "maxOutputTokens", 1),
        ("max_completion_tokens", 300, "maxOutputTokens", 300),
        ("stop", "END", "stopSequences", ["END"]),
        ("stop", ["a", "b"], "stopSequences", ["a", "b"]),
        ("stop", ["", "\n"], "stopSequences", ["\n"]),
        ("seed", 0, "seed", 0),
        ("seed", -7, "seed", -7),
    ],
)
def test_a_setting_arrives_as_it_is(name: str, value: Any, setting: str, sent: Any):
    got = config(**{name: value})
    assert got == {setting: sent}
    assert type(got[setting]) is type(sent)


@each(
    ("name", "value"),
    [
        *(
            (name, None)
            for name in (
                *("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop"),
                *("seed", "presence_penalty", "frequency_penalty", "n", "response_format"),
                *("reasoning_effort", "tools", "tool_choice", "parallel_tool_calls"),
            )
        ),
        *(("stop", nothing) for nothing in ("", [], [""])),
        ("presence_penalty", 0),
        ("frequency_penalty", 0.0),
        ("modalities", ["text"]),
        ("image_config", {}),
        ("extra_body", {}),
        ("google", {"thinking_config": {}}),
        ("response_format", {"type": "text"}),
        ("tools", []),
        ("tool_choice", "auto"),
        ("tool_choice", "none"),
        ("parallel_tool_calls", True),
        ("n", 1),
        ("logprobs", False),
        ("logit_bias", {}),
        ("functions", []),
        ("user", "u"),
        ("metadata", {"a": "b"}),
        ("store", True),
        ("stream", True),
        ("stream_options", {"include_usage": True}),
        ("service_tier", "flex"),
        ("safety_identifier", "x"),
        ("prompt_cache_key", "x"),
    ],
)
def test_what_asks_for_nothing_is_not_sent(name: str, value: Any):
    assert parameters(lenient=False, **{name: value}) == parameters()


def test_the_newer_name_of_the_token_limit_wins():
    both = {"max_tokens": 1, "max_completion_tokens": 2}
    assert config(**both) == config(**dict(reversed(both.items()))) == {"maxOutputTokens": 2}


@each("name", ["temperature", "top_p", "presence_penalty", "frequency_penalty"])
@each("value", ["1", True, False, [], {}, [1], float("nan"), float("inf")])
def test_what_is_no_number_is_refused_by_name(name: str, value: Any):
    error = refusal(**{name: value})
    assert error.param == name
    assert name in error.message


@each(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("top_k", "max_tokens", "max_completion_tokens", "seed", "n")
            for value in ("1", True, 1.5, [], {}, [1])
        ),
        *((name, 0) for name in ("max_tokens", "max_completion_tokens", "n")),
        *((name, -1) for name in ("max_tokens", "max_completion_tokens", "n")),
        ("n", 5),
        ("n", 10**30),
        *(("stop", value) for value in (1, True, {}, [1], ["a", None], [["a"]])),
        *(("parallel_tool_calls", value) for value in (0, 1, "false", [])),
        *(("reasoning_effort", value) for value in ("", "Low", "most", 1, True, [], {}, ["low"])),
        *(("tools", value) for value in ({}, "f", 1, True)),
        *(("tool_choice", value) for value in ("any", "", 1, {}, [], {"type": "function"})),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        *(
            ("response_format", value)
            for value in ("json", 1, [], {}, {"type": "xml"}, {"type": ["json_object"]})
        ),
    ],
)
def test_a_malformed_value_is_refused_by_name(name: str, value: Any):
    error = refusal(**{name: value})
    assert error.param == name
    assert name in error.message


def test_json_can_be_requested():
    assert config(response_format={"type": "json_object"}) == {
        "responseMimeType": "application/json"
    }


@pytest.mark.parametrize("more", [{}, {"strict": True}, {"strict": False}, {"name": "n"}])
def test_a_schema_arrives_unchanged(more: dict[str, Any]):
    schema = {
        "$defs": {"x": {"type": "string", "enum": ["a"]}},
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/x"}, "y": {"anyOf": [{"type": "null"}]}},
        "additionalProperties": False,
        "title": "T",
    }
    wrapped = {"type": "json_schema", "json_schema": {"schema": schema} | more}
    assert config(response_format=wrapped) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }


def test_a_schema_may_be_left_out():
    assert config(response_format={"type": "json_schema", "json_schema": {"name": "n"}}) == {
        "responseMimeType": "application/json"
    }


@pytest.mark.parametrize("wrapper", [None, 1, "x", [], {"schema": 1}, {"schema": []}])
def test_a_malformed_schema_is_refused_by_name(wrapper: Any):
    error = refusal(response_format={"type": "json_schema", "json_schema": wrapper})
    assert error.param == "response_format.json_schema.schema"


@pytest.mark.parametrize("n", [1, 2, 3, 4, 4.0])
def test_up_to_four_answers_may_be_wanted(n: Any):
    assert parameters(n=n).choices == n


@pytest.mark.parametrize(
    ("choice", "mode"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "f"}},
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
    ],
)
def test_tools_and_the_choice_among_them_arrive(choice: Any, mode: Any):
    request = parameters(lenient=False, tools=[TOOL], tool_choice=choice).request
    assert request["tools"] == [{"functionDeclarations": [DECLARED]}]
    assert request.get("toolConfig") == (mode and {"functionCallingConfig": mode})


@pytest.mark.parametrize(("value", "one_call"), [(None, False), (True, False), (False, True)])
def test_one_call_alone_may_be_wanted(value: Any, one_call: bool):
    got = parameters(lenient=False, tools=[TOOL], parallel_tool_calls=value)
    assert got.one_call is one_call


UNKNOWN = {
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 3,
    "functions": [{"name": "f"}],
    "repetition_penalty": 1.1,
    "min_p": 0,
    "presence_penalty": -1.5,
    "frequency_penalty": 2,
    "temperature": 2.1,
    "top_p": -0.1,
    "top_k": 0,
    "seed": 2**31,
    "max_tokens": 2**31,
    "x\r\ny": "z",
}


def test_what_cannot_be_honoured_is_listed_where_that_is_allowed():
    got = parameters(**UNKNOWN, max_completion_tokens=1)
    assert sorted(got.ignored) == sorted(UNKNOWN)
    assert got.request["generationConfig"] == {
        "maxOutputTokens": 1,
        "thinkingConfig": {"includeThoughts": True},
    }


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_honoured_is_refused_by_name_where_it_is_not(name: str):
    error = refusal(lenient=False, **{name: UNKNOWN[name]})
    assert error.param == name
    assert name in error.message


def test_an_effort_for_a_model_that_does_not_think_is_not_honoured():
    old = "gemini-2.0-flash"
    assert parameters(model=old, reasoning_effort="high").ignored == ("reasoning_effort",)
    error = refusal(model=old, reasoning_effort="high", lenient=False)
    assert error.param == "reasoning_effort"
    # This much it can do.
    assert parameters(model=old, reasoning_effort="none", lenient=False).request == {}


# What depends on the family

SAMPLING = {"temperature": 1, "top_p": 0.5, "top_k": 40}


@pytest.mark.parametrize("model", ["gemini-3.6-flash", "gemini-3.8-flash", "gemini-pro-latest"])
def test_newer_models_take_no_sampling_parameters(model: str):
    got = parameters(model=model, **SAMPLING)
    assert got.ignored == tuple(SAMPLING)
    assert got.request["generationConfig"].keys() == {"thinkingConfig"}
    for name, value in SAMPLING.items():
        assert refusal(model=model, lenient=False, **{name: value}).param == name


def test_an_old_model_takes_penalties():
    got = parameters(model="gemini-2.0-flash", lenient=False, presence_penalty=-1.5)
    assert got.request == {"generationConfig": {"presencePenalty": -1.5}}


def test_five_stop_sequences_are_sent_and_the_others_kept():
    got = parameters(stop=[*"abcdefg", "a"])
    assert got.request["generationConfig"]["stopSequences"] == [*"abcde"]
    assert got.stops == ("f", "g")
    assert got.ignored == ()
    assert refusal(stop=[*"abcdef"], lenient=False).param == "stop"


def test_models_that_draw_or_are_old_take_no_functions():
    for model in ("gemini-3.1-flash-image", "gemma-3-27b-it"):
        got = parameters(model=model, tools=[TOOL], tool_choice="required")
        assert got.ignored == ("tools",)
        assert got.request == {}
        assert refusal(model=model, tools=[TOOL], lenient=False).param == "tools"


# Google's own tools


@pytest.mark.parametrize(
    ("body", "tools"),
    [
        *(
            ({"tools": [tool]}, [{"googleSearch": {}}])
            for tool in (
                *({"type": kind} for kind in ("google_search", "web_search", "googleSearch")),
                {"type": "web_search_2025_08_26"},
                {"type": "web_search_preview", "search_context_size": "low"},
                {"google_search": {}},
                {"googleSearch": {}},
            )
        ),
        ({"web_search_options": {}}, [{"googleSearch": {}}]),
        (
            {"web_search_options": {"search_context_size": "low"}, "tools": [{"web_search": {}}]},
            [{"googleSearch": {}}],
        ),
        ({"tools": [{"type": "url_context"}]}, [{"urlContext": {}}]),
        (
            {"tools": [{"type": "code_execution"}, {"url_context": {}}]},
            [{"codeExecution": {}}, {"urlContext": {}}],
        ),
    ],
)
def test_google_s_own_tools_have_the_names_that_clients_know(body: Any, tools: Any):
    got = parameters(lenient=False, **body)
    assert got.request["tools"] == tools
    assert "toolConfig" not in got.request


def test_newer_models_combine_functions_and_google_s_tools():
    both = {"tools": [TOOL, {"type": "google_search"}]}
    request = parameters(lenient=False, model="gemini-3.6-flash", **both).request
    assert request["tools"] == [{"googleSearch": {}}, {"functionDeclarations": [DECLARED]}]
    assert request["toolConfig"] == {
        "includeServerSideToolInvocations": True,
        "functionCallingConfig": {"mode": "VALIDATED"},
    }
    got = parameters(**both)
    assert got.request["tools"] == [{"functionDeclarations": [DECLARED]}]
    assert got.ignored == ("tools",)
    assert refusal(lenient=False, web_search_options={}, tools=[TOOL]).param == "web_search_options"


# JSON beside functions


JSON = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


def test_newer_models_take_json_beside_functions():
    got = parameters(model="gemini-3.6-flash", tools=[TOOL], response_format=JSON)
    assert got.answer_function is None
    assert got.request["generationConfig"]["responseJsonSchema"] == SCHEMA


def test_a_schema_beside_functions_is_one_more_function():
    got = parameters(lenient=False, tools=[TOOL], response_format=JSON)
    assert got.answer_function is not None
    assert "responseMimeType" not in got.request["generationConfig"]
    [tool] = got.request["tools"]
    function, answer = tool["functionDeclarations"]
    assert function == DECLARED
    assert answer["name"] == got.answer_function.name == "final_answer"
    assert answer["parametersJsonSchema"] == SCHEMA
    assert got.request["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert got.answer_function.content('{"a":1}') == '{"a":1}'


def test_a_schema_that_is_no_object_is_wrapped():
    listed = {"$defs": {"x": {"type": "string"}}, "type": "array", "items": {"$ref": "#/$defs/x"}}
    format = {"type": "json_schema", "json_schema": {"schema": listed}}
    taken = {"type": "function", "function": {"name": "final_answer"}}
    got = parameters(tools=[taken], tool_choice="none", response_format=format)
    [answer] = got.request["tools"][0]["functionDeclarations"]
    assert answer["name"] == "final_answer_"
    assert answer["parametersJsonSchema"]["required"] == ["answer"]
    assert answer["parametersJsonSchema"]["$defs"] == listed["$defs"]
    assert got.answer_function is not None
    assert got.answer_function.content('{"answer":["b",1]}') == '["b",1]'
    assert got.answer_function.content("{}") == "null"


def test_json_without_a_schema_beside_functions_is_an_instruction():
    got = parameters(lenient=False, tools=[TOOL], response_format={"type": "json_object"})
    assert got.instruction is not None
    assert "JSON" in got.instruction
    assert got.request["tools"] == [{"functionDeclarations": [DECLARED]}]


def test_where_a_call_is_required_there_is_no_content_to_be_json():
    got = parameters(tools=[TOOL], tool_choice="required", response_format=JSON)
    assert got.answer_function is None
    assert got.request["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert got.request["tools"] == [{"functionDeclarations": [DECLARED]}]


def test_gemma_3_is_told_about_json():
    got = parameters(model="gemma-3-27b-it", response_format=JSON)
    assert got.request == {}
    assert got.ignored == ("response_format",)
    assert got.instruction is not None
    assert '"integer"' in got.instruction


def test_an_object_may_have_its_schema_beside_it():
    assert config(response_format={"type": "json_object", "schema": SCHEMA}) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }
    wrong = {"type": "json_object", "schema": 1}
    assert refusal(response_format=wrong).param == "response_format.schema"


# Google's options

SAFETY = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}]


@pytest.mark.parametrize(
    "body",
    [
        {"safety_settings": SAFETY},
        {"safetySettings": SAFETY},
        {"google": {"safety_settings": SAFETY}},
        {"extra_body": {"google": {"safety_settings": SAFETY}}},
    ],
)
def test_safety_settings_arrive(body: dict[str, Any]):
    assert parameters(lenient=False, **body).request["safetySettings"] == SAFETY


def test_the_safety_of_the_daemon_applies_unless_a_client_has_its_own():
    defaults = Defaults(safety="OFF")
    settings = read_parameters({}, family_of(MODEL), defaults).request["safetySettings"]
    assert len({item["category"] for item in settings}) == 4
    assert {item["threshold"] for item in settings} == {"OFF"}
    own = read_parameters({"safety_settings": SAFETY}, family_of(MODEL), defaults)
    assert own.request["safetySettings"] == SAFETY
    assert "safetySettings" not in parameters().request


def test_cached_content_arrives():
    cached = {"cached_content": "cachedContents/x"}
    for body in ({"google": cached}, {"extra_body": {"google": cached}}, cached):
        assert parameters(lenient=False, **body).request["cachedContent"] == "cachedContents/x"
    assert refusal(google=cached, tools=[TOOL]).param == "tools"


def thinking(model: str, thoughts: bool = True, **body: Any) -> Any:
    got = read_parameters(body, family_of(model), Defaults(thoughts=thoughts))
    return got.request.get("generationConfig", {}).get("thinkingConfig"), got.shows_thoughts


@pytest.mark.parametrize(
    ("model", "config", "sent"),
    [
        (MODEL, {"thinking_budget": 500}, {"includeThoughts": True, "thinkingBudget": 500}),
        (MODEL, {"thinkingBudget": 99999}, {"includeThoughts": True, "thinkingBudget": 24576}),
        (MODEL, {"thinking_budget": 0}, {"thinkingBudget": 0}),
        (
            "gemini-2.5-pro",
            {"thinking_budget": 0},
            {"includeThoughts": True, "thinkingBudget": 128},
        ),
        (MODEL, {"thinking_level": "low"}, {"includeThoughts": True, "thinkingBudget": 1024}),
        (
            "gemini-3.8-flash",
            {"thinkingLevel": "MINIMAL"},
            {"includeThoughts": True, "thinkingLevel": "LOW"},
        ),
        (
            "gemini-3.8-flash",
            {"thinking_budget": -1},
            {"includeThoughts": True, "thinkingBudget": -1},
        ),
        ("gemini-2.0-flash", {"thinking_budget": 5}, None),
    ],
)
def test_google_s_thinking_config_is_what_the_model_takes(model: str, config: Any, sent: Any):
    assert thinking(model, google={"thinking_config": config}) == (sent, True)


def test_thoughts_may_be_kept_out():
    hidden = {"thinking_config": {"include_thoughts": False}}
    assert thinking(MODEL, google=hidden) == (None, False)
    assert thinking(MODEL, False) == (None, False)
    level = {"thinkingLevel": "LOW"}
    assert thinking("gemini-3.8-flash", False, reasoning_effort="none") == (level, False)
    shown = {"thinking_config": {"include_thoughts": True}}
    assert thinking(MODEL, False, google=shown) == ({"includeThoughts": True}, True)


@pytest.mark.parametrize(
    ("body", "config"),
    [
        ({"modalities": ["text", "image"]}, {"responseModalities": ["TEXT", "IMAGE"]}),
        ({"modalities": ["image"]}, {"responseModalities": ["IMAGE"]}),
        ({"modalities": ["text", "audio"]}, {"responseModalities": ["AUDIO"]}),
        (
            {"modalities": ["audio"], "audio": {"voice": "Kore", "format": "wav"}},
            {
                "responseModalities": ["AUDIO"],
                "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
            },
        ),
        (
            {"image_config": {"aspect_ratio": "16:9", "imageSize": "2K"}},
            {"imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"}},
        ),
    ],
)
def test_pictures_and_sound_can_be_requested(body: Any, config: Any):
    got = parameters(lenient=False, model="gemini-3.1-flash-image", **body)
    assert got.request == {"generationConfig": config}


@each(
    ("body", "param"),
    [
        ({"modalities": ["smell"]}, "modalities"),
        ({"modalities": "text"}, "modalities"),
        ({"image_config": {"aspect_ratio": 1}}, "image_config"),
        ({"image_config": []}, "image_config"),
        ({"audio": {"format": "mp3"}}, "audio.format"),
        ({"modalities": ["audio"], "audio": {"voice": 1}}, "audio.voice"),
        ({"google": 1}, "google"),
        ({"extra_body": 1}, "extra_body"),
        ({"extra_body": {"google": 1}}, "extra_body.google"),
        ({"google": {"thinking_config": 1}}, "google.thinking_config"),
        (
            {"google": {"thinking_config": {"thinking_level": "much"}}},
            "google.thinking_config.thinking_level",
        ),
        (
            {"google": {"thinking_config": {"thinking_budget": "much"}}},
            "google.thinking_config.thinking_budget",
        ),
        (
            {"google": {"thinking_config": {"include_thoughts": 1}}},
            "google.thinking_config.include_thoughts",
        ),
        ({"google": {"cached_content": 1}}, "cached_content"),
        ({"safety_settings": {}}, "safety_settings"),
        ({"safety_settings": [{"category": "x"}]}, "safety_settings"),
        ({"tools": [TOOL, TOOL | {"function": {"name": "f"}}]}, "tools[1].function.name"),
    ],
)
def test_a_malformed_extension_is_refused_by_name(body: Any, param: str):
    error = refusal(**body)
    assert error.param == param
    assert param in error.message


def test_a_function_that_is_declared_twice_alike_is_declared_once():
    got = parameters(tools=[TOOL, TOOL])
    assert got.request["tools"] == [{"functionDeclarations": [DECLARED]}]
    assert got.ignored == ("tools",)
    assert refusal(tools=[TOOL, TOOL], lenient=False).param == "tools"


NAMES = (
    *("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop", "seed"),
    *("presence_penalty", "frequency_penalty", "n", "response_format", "reasoning_effort"),
    *("tools", "tool_choice", "parallel_tool_calls", "logit_bias", "logprobs", "anything"),
    *("google", "extra_body", "modalities", "image_config", "audio", "safety_settings"),
    *("web_search_options", "cached_content"),
)


@given(
    st.dictionaries(st.sampled_from(NAMES), json_values("type", "json_schema", "function", "name")),
    st.booleans(),
    st.sampled_from([MODEL, "gemini-3-pro-preview", "gemini-2.0-flash", "gemma-3-27b-it"]),
)
def test_any_json_is_translated_or_refused_by_name(body: dict[str, Any], lenient: bool, model: str):
    try:
        got = read_parameters(body, family_of(model), Defaults(lenient))
    except ChatError as error:
        assert error.status == 400
        assert error.param
        assert error.param.startswith(tuple(body))
    else:
        assert 1 <= got.choices <= 4
        assert set(got.ignored) <= set(body)
        assert lenient or not got.ignored
        assert loads(dumps(got.request)) == got.request
