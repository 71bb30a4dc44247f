"""The tools of a Messages request as those of chat completions."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from gemproxy.chat.errors import bad_request
from gemproxy.chat.shapes import as_object

Json = dict[str, Any]

_PLACES = ("city", "region", "country", "timezone")
# Tools that are done by servers, by the beginnings of their dated types.
_SEARCH = "web_search_"
_OWN = {"web_fetch_": "url_context", "code_execution_": "code_execution"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


@define
class Tools:
    """
    @ivar fields: those of a chat completion request.
    @ivar own: the names of tools that are done by servers.
    @ivar ignored: what was left out, for the client.
    """

    fields: Json = field(factory=dict)
    own: set[str] = field(factory=set)
    ignored: list[str] = field(factory=list)

    @property
    def searches(self) -> bool:
        return "web_search_options" in self.fields


def read_tools(tools: Any, choice: Any, has_hosted_tools: bool) -> Tools:
    """
    @param has_hosted_tools: whether there are tools that are done by servers.
    @raise ChatError: 400, a tool or the choice is invalid; the error names it.
    """
    read = Tools()
    if tools is not None and not isinstance(tools, list):
        raise bad_request("'tools' must be a list.", "tools")
    listed = []
    for number, tool in enumerate(tools or ()):
        if not isinstance(tool, dict):
            raise bad_request(f"'tools[{number}]' must be an object.", f"tools[{number}]")
        kind = tool.get("type")
        if kind in (None, "custom"):
            listed.append(_function(tool))
            continue
        own = next((own for start, own in _OWN.items() if str(kind).startswith(start)), None)
        is_search = str(kind).startswith(_SEARCH)
        if not has_hosted_tools or not (is_search or own):
            read.ignored.append(f"tools.{kind}")
        elif is_search:
            read.fields["web_search_options"] = _search_options(tool)
        else:
            listed.append({"type": own})
        read.own.add(str(tool.get("name")))
    if listed:
        read.fields["tools"] = listed
    _choose(read, choice)
    return read


def _function(tool: Json) -> Json:
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema")}
    for key in ("description", "strict"):
        if tool.get(key) is not None:
            function[key] = tool[key]
    return {"type": "function", "function": function}


def _search_options(tool: Json) -> Json:
    location = as_object(tool.get("user_location"))
    place = {key: location[key] for key in _PLACES if isinstance(location.get(key), str)}
    if not place:
        return {}
    return {"user_location": {"type": "approximate", "approximate": place}}


def _choose(read: Tools, choice: Any) -> None:
    if choice is None:
        return
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in (*_CHOICES, "tool"):
        raise bad_request(
            "'tool_choice.type' must be 'auto', 'any', 'tool' or 'none'.", "tool_choice.type"
        )
    if choice.get("disable_parallel_tool_use"):
        read.fields["parallel_tool_calls"] = False
    if kind == "tool" and choice.get("name") in read.own:
        # Whether to use them is for the servers to decide.
        return
    functions = [tool for tool in read.fields.get("tools", ()) if "function" in tool]
    if not functions and (read.own or kind != "any"):
        return
    if kind == "tool":
        function = {"name": choice.get("name")}
        read.fields["tool_choice"] = {"type": "function", "function": function}
    else:
        read.fields["tool_choice"] = _CHOICES[kind]
