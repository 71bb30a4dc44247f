"""The tools of Google's API as those of chat completions."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from gemproxy.chat.errors import bad_request
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.dialects.native.fields import json_schema, spelt

Json = dict[str, Any]

# Gemini's own tools, by the names that chat completions to Gemini take.
_OWN = {
    "googleSearch": "google_search",
    "googleSearchRetrieval": "google_search",
    "codeExecution": "code_execution",
    "urlContext": "url_context",
}
_MODES = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto"}


@frozen
class Tools:
    """
    @ivar fields: of a chat completion request.
    @ivar ignored: the names of tools that are left out.
    """

    fields: Json = field(factory=dict)
    ignored: tuple[str, ...] = ()


def read_tools(tools: Any, config: Any, is_gemini: bool) -> Tools:
    """
    @param config: C{toolConfig}.
    @raise ChatError: 400, a declaration has no name.
    """
    listed: list[Json] = []
    ignored: list[str] = []
    for number, tool in enumerate(objects_in(tools)):
        for name, value in spelt(tool).items():
            if name == "functionDeclarations":
                at = f"tools[{number}].functionDeclarations"
                listed += [_function(each, at) for each in objects_in(value)]
            elif is_gemini and name in _OWN:
                listed.append({"type": _OWN[name]})
            elif value is not None:
                ignored.append(f"tools.{name}")
    if not listed:
        return Tools(ignored=tuple(ignored))
    return Tools({"tools": listed} | _choice(config, listed), tuple(ignored))


def _function(declaration: Json, where: str) -> Json:
    fields = spelt(declaration)
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        raise bad_request(f"'{where}.name' must be a non-empty string.", f"{where}.name")
    function: Json = {"name": name}
    if isinstance(fields.get("description"), str):
        function["description"] = fields["description"]
    parameters = fields.get("parametersJsonSchema")
    if parameters is None:
        parameters = json_schema(fields.get("parameters"))
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


def _choice(config: Any, listed: list[Json]) -> Json:
    calling = spelt(as_object(spelt(as_object(config)).get("functionCallingConfig")))
    mode, allowed = calling.get("mode"), calling.get("allowedFunctionNames")
    functions = [tool for tool in listed if "function" in tool]
    if not functions or not isinstance(mode, str) or mode.upper() not in _MODES:
        return {}
    choice = _MODES[mode.upper()]
    names = [tool["function"]["name"] for tool in functions]
    if choice == "required" and isinstance(allowed, list) and allowed:
        names = [name for name in names if name in allowed]
        if len(names) == 1:
            return {"tool_choice": {"type": "function", "function": {"name": names[0]}}}
        kept = [t for t in listed if "function" not in t or t["function"]["name"] in names]
        return {"tools": kept, "tool_choice": choice}
    return {"tool_choice": choice}
