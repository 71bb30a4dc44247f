"""Translates the function calls of a history, and their results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gemproxy.chat.errors import bad_request
from gemproxy.chat.extra_content import given_signature
from gemproxy.chat.jsontext import loads
from gemproxy.gemini.translate.names import gemini_name
from gemproxy.gemini.translate.signatures import Signature, Signatures

Part = dict[str, Any]

# The API keeps numbers of results as doubles. So are those here that are too long for 64 bits.
_EXACT = 2**53


def call_parts(
    message: dict[str, Any], where: str, signatures: Signatures
) -> tuple[list[Part], list[Signature]]:
    """
    Convert the calls of an assistant's message.

    @return: the parts, and those signatures that were made here.
    @raise ChatError: 400, a call is invalid; the error names it.
    """
    calls = message.get("tool_calls")
    if calls is None:
        calls = []
    where_calls = f"{where}.tool_calls"
    if not isinstance(calls, list):
        raise bad_request(f"'{where_calls}' must be a list.", where_calls)
    parts = []
    known = []
    for position, call in enumerate(calls):
        at = f"{where_calls}[{position}]"
        function = call.get("function") if isinstance(call, dict) else None
        part = _call_part(function, f"{at}.function")
        id = call["id"] if isinstance(call.get("id"), str) else None
        if id:
            part["functionCall"]["id"] = id
        remembered = signatures.of(id)
        if remembered is not None:
            known.append(remembered)
        signature = given_signature(call) or (remembered and remembered.text)
        if signature:
            part["thoughtSignature"] = signature
        parts.append(part)
    if message.get("function_call") is not None:
        parts.append(_call_part(message["function_call"], f"{where}.function_call"))
    return parts, known


def _call_part(function: Any, where: str) -> Part:
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise bad_request(f"'{where}.name' must be a string.", f"{where}.name")
    arguments = _arguments(function.get("arguments"))
    return {"functionCall": {"name": gemini_name(name), "args": arguments}}


def _arguments(given: Any) -> dict[str, Any]:
    """Arguments as an object, whatever another model has made of them."""
    value = given
    if isinstance(given, str):
        try:
            value = loads(given.encode("utf-8", "replace"))
        except ValueError:
            value = given or None
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"arguments": value}


def result_response(text: str) -> dict[str, Any]:
    """
    The result of a function as the object that the API wants: a JSON object as it is, unless the
    API would misread it, and other text as C{output}.
    """
    try:
        result = loads(text.encode("utf-8", "replace"))
    except ValueError:
        result = None
    if isinstance(result, dict) and not any(map(_is_misread, _values(result))):
        return result
    return {"output": text}


def _is_misread(value: Any) -> bool:
    if isinstance(value, dict):
        # The API looks for a part of the response with that name.
        return "$ref" in value
    return isinstance(value, int | float) and abs(value) > _EXACT


def _values(value: Any) -> Iterator[Any]:
    """A value, and all values in it."""
    pending = [value]
    while pending:
        value = pending.pop()
        yield value
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
