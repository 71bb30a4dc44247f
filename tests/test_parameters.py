"""A client's parameters as what the API is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.gemini.translate.parameters import Parameters
from gemproxy.gemini.translate.parameters import parameters as read_parameters
from tests.strategies import json_values

MODEL = "gemini-2.5-flash"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


def parameters(lenient: bool = True, model: str = MODEL, **body: Any) -> Parameters:
    return read_parameters({"model": model, "messages": []} | body, model, lenient)


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
        ("presence_penalty", 0, "presencePenalty", 0),
        ("presence_penalty", -1.5, "presencePenalty", -1.5),
        ("frequency_penalty", 2, "frequencyPenalty", 2),
    ],
)
def test_a_setting_arrives_as_it_is(name: str, value: Any, setting: str, sent: Any):
    got = config(**{name: value})
    assert got == {setting: sent}
    assert type(got[setting]) is type(sent)


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("name", ["temperature", "top_p", "presence_penalty", "frequency_penalty"])
@pytest.mark.parametrize("value", ["1", True, False, [], {}, [1], float("nan"), float("inf")])
def test_what_is_no_number_is_refused_by_name(name: str, value: Any):
    error = refusal(**{name: value})
    assert error.param == name
    assert name in error.message


@pytest.mark.parametrize(
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
        *(("reasoning_effort", value) for value in ("", "Low", "max", 1, True, [], {}, ["low"])),
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
    declared = {"name": "f", "parametersJsonSchema": SCHEMA}
    assert request["tools"] == [{"functionDeclarations": [declared]}]
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
    "modalities": ["text", "audio"],
    "repetition_penalty": 1.1,
    "min_p": 0,
    "x\r\ny": "z",
}


def test_what_cannot_be_honoured_is_listed_where_that_is_allowed():
    got = parameters(**UNKNOWN, temperature=1)
    assert got.ignored == tuple(UNKNOWN)
    assert got.request["generationConfig"]["temperature"] == 1


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


NAMES = (
    *("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop", "seed"),
    *("presence_penalty", "frequency_penalty", "n", "response_format", "reasoning_effort"),
    *("tools", "tool_choice", "parallel_tool_calls", "logit_bias", "logprobs", "anything"),
)


@given(
    st.dictionaries(st.sampled_from(NAMES), json_values("type", "json_schema", "function", "name")),
    st.booleans(),
    st.sampled_from([MODEL, "gemini-3-pro-preview", "gemini-2.0-flash"]),
)
def test_any_json_is_translated_or_refused_by_name(body: dict[str, Any], lenient: bool, model: str):
    try:
        got = read_parameters(body, model, lenient)
    except ChatError as error:
        assert error.status == 400
        assert error.param
        assert error.param.startswith(tuple(body))
    else:
        assert 1 <= got.choices <= 4
        assert set(got.ignored) <= set(body)
        assert lenient or not got.ignored
        assert loads(dumps(got.request)) == got.request
