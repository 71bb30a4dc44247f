"""Translates tools: OpenAI's functions and calls to Gemini's, and back."""

from __future__ import annotations

import re
import secrets
from typing import Any

from attrs import define, field, frozen

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.chat.extra_content import extra_content
from gemproxy.chat.jsontext import dumps
from gemproxy.gemini.translate.leniency import Leniency
from gemproxy.gemini.translate.names import gemini_name
from gemproxy.gemini.translate.schemas import inlined, with_object_root
from gemproxy.gemini.translate.signatures import part_signature

Json = dict[str, Any]

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}

# Google's own tools, by the types that clients know them by.
_OWN_TOOLS = {
    "google_search": "googleSearch",
    "googleSearch": "googleSearch",
    "web_search": "googleSearch",
    "web_search_preview": "googleSearch",
    "url_context": "urlContext",
    "urlContext": "urlContext",
    "code_execution": "codeExecution",
    "codeExecution": "codeExecution",
    "code_interpreter": "codeExecution",
}


@define
class Tools:
    """
    The tools of a request.

    @ivar functions: the function declarations.
    @ivar own: the names of Google's own tools.
    @ivar client_names: the client's names of functions, by Gemini's.
    """

    functions: list[Json] = field(factory=list)
    own: list[str] = field(factory=list)
    client_names: dict[str, str] = field(factory=dict)

    def add_own(self, name: str) -> None:
        if name not in self.own:
            self.own.append(name)


def read_tools(tools: Any, leniency: Leniency) -> Tools:
    """
    Convert a client's tools.

    @raise ChatError: 400, a tool is invalid; the error names it.
    """
    read = Tools()
    if tools is None:
        return read
    if not isinstance(tools, list):
        raise bad_request("'tools' must be a list.", "tools")
    known: dict[str, Json] = {}
    for position, tool in enumerate(tools):
        where = f"tools[{position}]"
        if (own := _own_tool(tool)) is not None:
            read.add_own(own)
            continue
        declaration = _declaration(tool, where)
        name = declaration["name"]
        if name not in known:
            known[name] = declaration
            read.functions.append(declaration)
            read.client_names[name] = tool["function"]["name"]
        elif known[name] == declaration:
            leniency.leave_out("tools", "contains the same function twice")
        else:
            at = f"{where}.function.name"
            raise bad_request(f"'{at}' is the name of an earlier function as well.", at)
    return read


def _own_tool(tool: Any) -> str | None:
    """Google's name of a tool of its own; None if it is another tool."""
    if not isinstance(tool, dict):
        return None
    kind = tool.get("type")
    if isinstance(kind, str):
        # OpenAI dates some types, as in web_search_2025_08_26.
        return _OWN_TOOLS.get(re.sub(r"_2\d{3}_?\d\d_?\d\d$", "", kind))
    # As Google's API has it: {"google_search": {}}
    return _OWN_TOOLS.get(next(iter(tool))) if len(tool) == 1 else None


def _declaration(tool: Any, where: str) -> Json:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise bad_request(
            f"'{where}.type' must be 'function', 'google_search', 'web_search', 'url_context' or"
            " 'code_execution'.",
            f"{where}.type",
        )
    function = tool.get("function")
    if not isinstance(function, dict):
        raise bad_request(f"'{where}.function' must be an object.", f"{where}.function")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        at = f"{where}.function.name"
        raise bad_request(f"'{at}' must be a non-empty string.", at)
    declaration: Json = {"name": gemini_name(name)}
    description = function.get("description")
    if description is not None:
        if not isinstance(description, str):
            at = f"{where}.function.description"
            raise bad_request(f"'{at}' must be a string.", at)
        declaration["description"] = description
    schema = function.get("parameters")
    if schema is not None and not isinstance(schema, dict):
        at = f"{where}.function.parameters"
        raise bad_request(f"'{at}' must be an object.", at)
    declaration["parametersJsonSchema"] = inlined(with_object_root(schema))
    return declaration


def calling_config(choice: Any, tools: Tools) -> Json | None:
    """
    Convert C{tool_choice} to C{functionCallingConfig}; None for the API's default.

    @raise ChatError: 400, the choice is invalid, or names an unknown function.
    """
    if choice is None:
        return None
    if choice == "required" and not tools.functions:
        raise bad_request("'tool_choice' is 'required', but 'tools' is empty.", "tool_choice")
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    if not isinstance(choice, dict):
        raise _no_choice()
    if choice.get("type") == "allowed_tools":
        return _allowed_tools(choice, tools)
    return {"mode": "ANY", "allowedFunctionNames": [_declared_name(choice, tools)]}


def _allowed_tools(choice: Json, tools: Tools) -> Json:
    # Chat completions have an object of that name, Responses do not.
    inner = choice.get("allowed_tools")
    allowed = inner if isinstance(inner, dict) else choice
    mode, chosen = allowed.get("mode", "auto"), allowed.get("tools")
    if mode not in ("auto", "required") or not isinstance(chosen, list) or not chosen:
        raise bad_request(
            "'tool_choice' must have a 'mode' ('auto' or 'required') and the allowed 'tools'.",
            "tool_choice",
        )
    names = [_declared_name(tool, tools) for tool in chosen if _own_tool(tool) is None]
    # AUTO takes no names; VALIDATED is AUTO with names.
    return {
        "mode": "ANY" if mode == "required" else "VALIDATED",
        "allowedFunctionNames": list(dict.fromkeys(names)),
    }


def _declared_name(choice: Any, tools: Tools) -> str:
    """Gemini's name of a function that is chosen by its own."""
    function = choice.get("function", choice) if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise _no_choice()
    if gemini_name(name) not in tools.client_names:
        raise bad_request(
            f"'tool_choice' names '{name[:100]}', which is not in 'tools'.", "tool_choice"
        )
    return gemini_name(name)


def _no_choice() -> ChatError:
    return bad_request(
        "'tool_choice' must be 'auto', 'none', 'required', or name a function or allowed tools.",
        "tool_choice",
    )


@frozen
class Call:
    """
    A function call made by the model.

    @ivar arguments: the arguments as JSON text.
    """

    id: str
    name: str
    arguments: str
    signature: str | None = None

    @classmethod
    def of_part(cls, part: Json) -> Call | None:
        """Convert a part of a reply; None if it is not a call."""
        call = part.get("functionCall")
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return None
        id = call.get("id")
        return cls(
            id if isinstance(id, str) and id else f"call_{secrets.token_hex(12)}",
            call["name"],
            dumps(call.get("args") or {}).decode(),
            part_signature(part),
        )

    def deltas(self, index: int) -> list[dict[str, Any]]:
        """The deltas of the call: first the name, then the arguments."""
        opening: dict[str, Any] = {
            "index": index,
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": ""},
        }
        if self.signature is not None:
            opening |= extra_content(self.signature)
        return [opening, {"index": index, "function": {"arguments": self.arguments}}]
