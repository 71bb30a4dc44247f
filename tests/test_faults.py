"""Which parameter an error of the Gemini API is about."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.gemini.translate.faults import fault_of
from tests.strategies import json_values


def violated(*fields: Any) -> list[dict[str, Any]]:
    """The details of an error that names these fields."""
    return [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": field, "description": "No."} for field in fields],
        },
    ]


FIELDS = {
    "generation_config.top_k": "top_k",
    "generationConfig.topK": "top_k",
    "GenerateContentRequest.generation_config.top_p": "top_p",
    "generation_config.max_output_tokens": "max_tokens",
    "generation_config.stop_sequences[5]": "stop",
    "generation_config.response_json_schema.properties[0].value": "response_format",
    "generationConfig.responseMimeType": "response_format",
    "generation_config.thinking_config.thinking_level": "reasoning_effort",
    "contents": "messages",
    "contents[3].parts[0].function_response.name": "messages",
    "systemInstruction.parts[0]": "messages",
    "tools[0].function_declarations[12].parameters.properties[a.b].type": "tools",
    "tool_config.function_calling_config.mode": "tool_choice",
    "model": "model",
}
STRANGE = (
    "",
    ".",
    "generation_config",
    "generation_config.frobnicate",
    "top_k",
    "x" * 10**6,
    "[" * 10**6,
)


@pytest.mark.parametrize(("field", "parameter"), FIELDS.items())
def test_the_field_of_a_violation_is_the_parameter_it_was_sent_for(
    field: str, parameter: str
) -> None:
    assert fault_of(violated(field), "No.") == parameter


@pytest.mark.parametrize("field", STRANGE, ids=lambda field: field[:30])
def test_a_field_that_clients_do_not_know_is_no_parameter(field: str) -> None:
    assert fault_of(violated(field), f"Invalid value at '{field}'.") is None


def test_the_first_that_is_known_counts() -> None:
    assert fault_of(violated("frobnicate", "tools[1]", "contents"), "No.") == "tools"


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        ("Invalid value at 'generation_config.top_k' (TYPE_INT32), 1e99", "top_k"),
        ("Unknown name \"x\" at 'tools[0].function_declarations[1]': Cannot find field.", "tools"),
        ("* GenerateContentRequest.contents: contents is not specified\n", "messages"),
        ("* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid.", "tools"),
        ("Request contains an invalid argument.", None),
        ("The contents, at least, are not valid.", None),
    ],
)
def test_without_details_the_message_may_name_it(message: str, parameter: str | None) -> None:
    assert fault_of([], message) == parameter


def test_details_count_more_than_the_message() -> None:
    assert fault_of(violated("tools[0]"), "Invalid value at 'contents'") == "tools"


@given(
    st.lists(st.dictionaries(st.just("fieldViolations"), json_values("field")), max_size=3),
    st.text(),
)
def test_any_details_will_do(details: list[dict[str, Any]], message: str) -> None:
    fault_of(details, message)
