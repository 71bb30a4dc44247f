"""Translates tools: OpenAI's functions and calls to Gemini's, and back."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from gemproxy.chat.errors import bad_request
from gemproxy.chat.jsontext import dumps, loads

Part = dict[str, Any]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}

# Gemini 3 requires the signatures of its calls. This replaces an unknown one, for example of a call
# made by another model: ai.google.dev/gemini-api/docs/thought-signatures#faqs
_NO_SIGNATURE = "skip_thought_signature_validator"


def declarations(tools: Any) -> list[dict[str, Any]]:
    """
    Convert a client's tools to function declarations.

    @raise ChatError: 400, a tool is invalid; the error names it.
    """
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise bad_request("'tools' must be a list.", "tools")
    return [_declaration(tool, f"tools[{position}]") for position, tool in enumerate(tools)]


def _declaration(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise bad_request(f"'{where}.type' must be 'function'.", f"{where}.type")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise bad_request(f"'{where}.function' must be an object.", f"{where}.function")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise bad_request(
            f"'{where}.function.name' must start with a letter or '_', followed by up to 127 "
            "letters, digits, '_', '.', ':' and '-'.",
            f"{where}.function.name",
        )
    declaration: dict[str, Any] = {"name": name}
    description = function.get("description")
    if description is not None:
        if not isinstance(description, str):
            at = f"{where}.function.description"
            raise bad_request(f"'{at}' must be a string.", at)
        declaration["description"] = description
    schema = function.get("parameters")
    if schema is not None:
        if not isinstance(schema, dict):
            at = f"{where}.function.parameters"
            raise bad_request(f"'{at}' must be an object.", at)
        declaration["parametersJsonSchema"] = schema
    return declaration


def tool_config(choice: Any, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """
    Convert C{tool_choice} to C{toolConfig}; None for the API's default.

    @param tools: the function declarations.
    @raise ChatError: 400, the choice is invalid, or names an unknown function.
    """
    if choice is None:
        return None
    if choice == "required" and not tools:
        raise bad_request("'tool_choice' is 'required', but 'tools' is empty.", "tool_choice")
    if isinstance(choice, str) and choice in _MODES:
        return {"functionCallingConfig": {"mode": _MODES[choice]}}
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise bad_request(
            "'tool_choice' must be 'auto', 'none', 'required' or name a function.", "tool_choice"
        )
    if all(tool["name"] != name for tool in tools):
        raise bad_request(
            f"'tool_choice' names '{name[:100]}', which is not in 'tools'.", "tool_choice"
        )
    return {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [name]}}


def call_parts(calls: Any, where: str, names: dict[str, str], signatures: Signatures) -> list[Part]:
    """
    Convert the calls of an assistant's message to parts.

    @param names: maps call ids to function names; the calls are added to it.
    @raise ChatError: 400, a call is invalid; the error names it.
    """
    if calls is None:
        return []
    if not isinstance(calls, list):
        raise bad_request(f"'{where}' must be a list.", where)
    parts = []
    for position, call in enumerate(calls):
        at = f"{where}[{position}]"
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            raise bad_request(f"'{at}.function.name' must be a string.", f"{at}.function.name")
        arguments = _arguments(function.get("arguments"), f"{at}.function.arguments")
        part: Part = {"functionCall": {"name": name, "args": arguments}}
        id = call.get("id")
        if isinstance(id, str) and id:
            names[id] = name
            part["functionCall"]["id"] = id
        signature = _given_signature(call) or signatures.of(id)
        if signature is not None:
            part["thoughtSignature"] = signature
        parts.append(part)
    return parts


def _arguments(text: Any, where: str) -> dict[str, Any]:
    if text is None or text == "":
        return {}
    try:
        arguments = loads(text.encode("utf-8", "replace")) if isinstance(text, str) else text
    except ValueError:
        raise bad_request(f"'{where}' must be JSON.", where) from None
    if not isinstance(arguments, dict):
        raise bad_request(f"'{where}' must be a JSON object.", where)
    return arguments


def _given_signature(call: dict[str, Any]) -> str | None:
    """The signature in the field used by Google's OpenAI-compatible endpoint."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


def result_part(
    message: Mapping[str, Any], content: str, where: str, names: Mapping[str, str]
) -> Part:
    """
    Convert a tool's message to a part.

    @param content: the text of the message; a JSON object is passed on as an object.
    @raise ChatError: 400, the message belongs to no call.
    """
    id = message.get("tool_call_id")
    name = names.get(id) if isinstance(id, str) else None
    name = name or message.get("name")
    if not isinstance(name, str) or not name:
        at = f"{where}.tool_call_id"
        raise bad_request(f"'{at}' must be the id of an earlier tool call.", at)
    try:
        result = loads(content.encode("utf-8", "replace"))
    except ValueError:
        result = None
    response: Part = {
        "name": name,
        "response": result if isinstance(result, dict) else {"output": content},
    }
    if isinstance(id, str) and id:
        response["id"] = id
    return {"functionResponse": response}


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
    def of_part(cls, part: Part) -> Call | None:
        """Convert a part of a reply; None if it is not a call."""
        call = part.get("functionCall")
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return None
        id = call.get("id")
        signature = part.get("thoughtSignature")
        return cls(
            id if isinstance(id, str) and id else f"call_{secrets.token_hex(12)}",
            call["name"],
            dumps(call.get("args") or {}).decode(),
            signature if isinstance(signature, str) and signature else None,
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
            opening["extra_content"] = {"google": {"thought_signature": self.signature}}
        return [opening, {"index": index, "function": {"arguments": self.arguments}}]


class Signatures:
    """
    Remembers the signatures of the last function calls.

    The API requires them with the next request, and most clients drop unknown fields.
    """

    def __init__(self, keep: int = 10_000) -> None:
        self._keep = keep
        self._known: dict[str, str] = {}

    def remember(self, call: Call) -> None:
        if call.signature is not None:
            self._known[call.id] = call.signature
            if len(self._known) > self._keep:
                del self._known[next(iter(self._known))]

    def of(self, id: Any) -> str | None:
        return self._known.get(id) if isinstance(id, str) else None


def sign_unsigned(parts: Sequence[Part]) -> list[Part]:
    """Add a signature to the first call of a turn, which Gemini 3 requires."""
    signed = list(parts)
    for position, part in enumerate(signed):
        if "functionCall" in part:
            if "thoughtSignature" not in part:
                signed[position] = part | {"thoughtSignature": _NO_SIGNATURE}
            break
    return signed
