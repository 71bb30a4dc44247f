"""
Answers in JSON: C{response_format}, and its emulation where the API does not take it.

Models of the second generation take no JSON beside functions. There, the schema is declared as the
parameters of one more function, one of the functions must be called, and the arguments of this one
become the content. Without a schema, JSON is requested by an instruction.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from gemproxy.chat.errors import bad_request
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.gemini.translate.families import Family
from gemproxy.gemini.translate.leniency import Leniency
from gemproxy.gemini.translate.schemas import inlined, with_object_root
from gemproxy.gemini.translate.tools import Tools

Json = dict[str, Any]

_INSTRUCTION = "Write your answer as one JSON object, without any other text and without a fence."
_DESCRIPTION = (
    "Gives the final answer to the user. Call it alone, once no other function is needed any more."
)
_WRAPPED = "answer"


@frozen
class AnswerFunction:
    """
    The function whose call is the answer.

    @ivar is_wrapped: whether the answer is no object, and is the only argument therefore.
    """

    name: str
    is_wrapped: bool

    def content(self, arguments: str) -> str:
        """The answer that a call with these arguments gives, as JSON."""
        if not self.is_wrapped:
            return arguments
        return dumps(loads(arguments.encode("utf-8", "replace")).get(_WRAPPED)).decode()


@frozen
class JsonAnswer:
    """
    How JSON is requested.

    @ivar config: fields of the generation settings.
    @ivar function: the function whose call is the answer; None if there is none.
    @ivar calling: the mode of calling functions, in place of the client's; None to keep it.
    @ivar instruction: the instruction to answer in JSON; None if there is none.
    """

    config: Json
    function: AnswerFunction | None = None
    calling: Json | None = None
    instruction: str | None = None


_PLAIN = JsonAnswer({})


def json_answer(
    response_format: Any, family: Family, tools: Tools, calling: Json | None, leniency: Leniency
) -> JsonAnswer:
    """
    @param tools: the function whose call is the answer is added to it.
    @param calling: the mode of calling functions that the client requested.
    @raise ChatError: 400, the format is invalid.
    """
    if response_format is None:
        return _PLAIN
    is_json, schema = _wanted(response_format)
    if not is_json:
        return _PLAIN
    if not family.json:
        leniency.leave_out("response_format")
        about = (
            "" if schema is None else f" It must match this JSON schema: {dumps(schema).decode()}"
        )
        return JsonAnswer({}, instruction=_INSTRUCTION + about)
    if tools.functions and not family.functions_with_json:
        return _beside_functions(schema, tools, (calling or {}).get("mode"))
    config: Json = {"responseMimeType": "application/json"}
    if schema is not None:
        config["responseJsonSchema"] = inlined(schema)
    return JsonAnswer(config)


def _wanted(response_format: Any) -> tuple[bool, Json | None]:
    """Whether JSON is requested, and its schema."""
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "text":
        return False, None
    if kind == "json_object":
        where, schema = "response_format.schema", response_format.get("schema")
    elif kind == "json_schema":
        wrapper = response_format.get("json_schema")
        where = "response_format.json_schema.schema"
        schema = wrapper.get("schema") if isinstance(wrapper, dict) else wrapper or False
    else:
        raise bad_request(
            "'response_format.type' must be 'text', 'json_object' or 'json_schema'.",
            "response_format",
        )
    if schema is not None and not isinstance(schema, dict):
        raise bad_request(f"'{where}' must be an object.", where)
    return True, schema


def _beside_functions(schema: Json | None, tools: Tools, mode: str | None) -> JsonAnswer:
    if mode == "ANY":
        # There will be calls, and no content that could be JSON.
        return _PLAIN
    if schema is None:
        return JsonAnswer({}, instruction=_INSTRUCTION)
    is_wrapped = schema.get("type", "object") != "object"
    if is_wrapped:
        schema = {"type": "object", "properties": {_WRAPPED: schema}, "required": [_WRAPPED]}
        schema |= {
            name: schema["properties"][_WRAPPED][name]
            for name in ("$defs", "definitions")
            if name in schema["properties"][_WRAPPED]
        }
    name = "final_answer"
    while any(function["name"] == name for function in tools.functions):
        name += "_"
    if mode == "NONE":
        tools.functions.clear()
    tools.functions.append(
        {
            "name": name,
            "description": _DESCRIPTION,
            "parametersJsonSchema": inlined(with_object_root(schema)),
        }
    )
    return JsonAnswer({}, AnswerFunction(name, is_wrapped), {"mode": "ANY"})
