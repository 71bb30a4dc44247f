"""The tools of a Responses request as functions of chat completions, and calls of them back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from attrs import define, field, frozen

from gemproxy.chat.errors import bad_request
from gemproxy.chat.jsontext import loads
from gemproxy.chat.shapes import as_object, objects_in

Json = dict[str, Any]

# Of the tools that OpenAI runs itself: what others may have too.
_SEARCH = re.compile(r"web_search(_preview)?(_\d{4}_?\d\d_?\d\d)?")
_HOSTED = {"code_interpreter": "code_interpreter"}
# What a function takes in the place of a custom tool's free text.
_INPUT = "input"
_LONGEST_NAME = 64


@frozen
class ToolName:
    """
    A tool as its client knows it.

    @ivar is_custom: whether it takes free text instead of JSON.
    @ivar namespace: that of the name; None if it is in none.
    """

    name: str
    is_custom: bool = False
    namespace: str | None = None


@define
class Tools:
    """
    The tools of a request.

    @ivar functions: as chat completions have them.
    @ivar names: the client's names, by those of the functions.
    @ivar ignored: the tools that nobody here can run.
    """

    functions: list[Json] = field(factory=list)
    names: dict[str, ToolName] = field(factory=dict)
    ignored: list[str] = field(factory=list)

    def called(self, function: str) -> ToolName:
        """The client's tool that the model has called."""
        return self.names.get(function) or ToolName(function)

    def add(self, name: ToolName, function: Json) -> None:
        flat = function_name(name.name, name.namespace)
        self.functions.append({"type": "function", "function": {"name": flat} | function})
        self.names[flat] = name


def read_tools(value: Any, has_hosted: bool) -> Tools:
    """
    @param has_hosted: whether whoever answers has tools of its own: a search of the web, and the
        execution of code.
    @raise ChatError: 400, a tool is invalid; the error names it.
    """
    tools = Tools()
    if value is None:
        return tools
    if not isinstance(value, list):
        raise bad_request("'tools' must be a list.", "tools")
    for where, tool, namespace in _flattened(value):
        kind = tool.get("type")
        if kind == "function":
            tools.add(ToolName(_name(tool, where), namespace=namespace), _function(tool))
        elif kind == "custom":
            tools.add(ToolName(_name(tool, where), True, namespace), _custom(tool))
        elif not isinstance(kind, str):
            raise bad_request(f"'{where}.type' must be a string.", f"{where}.type")
        elif has_hosted and (hosted := _hosted(kind)):
            tools.functions.append({"type": hosted})
        else:
            tools.ignored.append(f"tools.{kind}")
    return tools


def _flattened(tools: list[Any]) -> Iterator[tuple[str, Json, str | None]]:
    """The tools with those in namespaces: where each is, and the name of its namespace."""
    for position, tool in enumerate(tools):
        where = f"tools[{position}]"
        if not isinstance(tool, dict):
            raise bad_request(f"'{where}' must be an object.", where)
        if tool.get("type") != "namespace":
            yield where, tool, None
            continue
        namespace = _name(tool, where)
        for inner, nested in enumerate(objects_in(tool.get("tools"))):
            yield f"{where}.tools[{inner}]", nested, namespace


def _name(tool: Json, where: str) -> str:
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise bad_request(f"'{where}.name' must be a non-empty string.", f"{where}.name")
    return name


def function_name(name: str, namespace: str | None) -> str:
    """The function for a tool of the client's, be it in this request or not."""
    return name if namespace is None else f"{namespace}__{name}"[-_LONGEST_NAME:].lstrip("_")


def _function(tool: Json) -> Json:
    return {
        key: tool[key]
        for key in ("description", "parameters", "strict")
        if tool.get(key) is not None
    }


def _custom(tool: Json) -> Json:
    """A function with one text, whose grammar the model is told in words."""
    grammar = as_object(tool.get("format"))
    about = [tool["description"]] if isinstance(tool.get("description"), str) else []
    if isinstance(grammar.get("definition"), str):
        about.append(
            f"'{_INPUT}' must match this {grammar.get('syntax', '')} grammar:\n"
            f"{grammar['definition']}"
        )
    schema = {
        "type": "object",
        "properties": {_INPUT: {"type": "string"}},
        "required": [_INPUT],
    }
    return {"description": "\n\n".join(about), "parameters": schema}


def _hosted(kind: str) -> str | None:
    return "web_search" if _SEARCH.fullmatch(kind) else _HOSTED.get(kind)


def custom_input(arguments: str) -> str:
    """The free text in the arguments of a custom tool's function; all of them without it."""
    try:
        value = loads(arguments.encode("utf-8", "replace"))
    except ValueError:
        return arguments
    text = as_object(value).get(_INPUT)
    return text if isinstance(text, str) else arguments


def custom_arguments(text: str) -> Json:
    """The opposite of L{custom_input}."""
    return {_INPUT: text}


def chat_tool_choice(choice: Any, tools: Tools) -> Any:
    """
    C{tool_choice} of chat completions; None to leave it to the model.

    @raise ChatError: 400, it is not a choice.
    """
    if choice is None or isinstance(choice, str):
        # Without anything to choose from, some refuse a choice.
        return choice if tools.functions else None
    if not isinstance(choice, dict):
        raise bad_request("'tool_choice' must be a string or an object.", "tool_choice")
    if choice.get("type") == "allowed_tools":
        chosen = [
            one for tool in objects_in(choice.get("tools")) if (one := _chosen(tool)) is not None
        ]
        if not chosen:
            return None
        allowed = {"mode": choice.get("mode", "auto"), "tools": chosen}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    return _chosen(choice)


def _chosen(tool: Json) -> Json | None:
    name, namespace = tool.get("name"), tool.get("namespace")
    if tool.get("type") not in ("function", "custom") or not isinstance(name, str):
        # A hosted tool: the model uses it when it needs it.
        return None
    namespace = namespace if isinstance(namespace, str) else None
    return {"type": "function", "function": {"name": function_name(name, namespace)}}
