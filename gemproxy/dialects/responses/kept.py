"""What a request refers to of earlier responses, and what is kept of one."""

from __future__ import annotations

import re
from typing import Any

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.dialects.dialect import DialectRequest, RecordsNeeded

Json = dict[str, Any]

# The id of an item has that of its response.
_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]+)_\d+")


def response_id(id: str) -> str:
    """The id of the response that is named after C{id}."""
    return f"resp_{id}"


def input_items(sent: Json, request: DialectRequest) -> tuple[list[Any], list[Any]]:
    """
    The items of the response that a request continues, and its own, in which references are
    replaced by what they refer to.

    @raise ChatError: 400, it refers to what is not kept.
    @raise RecordsNeeded: records have to be looked up.
    """
    given = _items(sent.get("input"))
    previous = sent.get("previous_response_id")
    wanted = [str(previous)] if previous is not None else []
    wanted += [
        response_id(match[1])
        for item in objects_in(given)
        if _is_reference(item) and (match := _ITEM_ID.fullmatch(str(item.get("id"))))
    ]
    if previous is not None and not request.keeps:
        raise bad_request(
            "'previous_response_id' needs responses that are kept, which RESPONSES_KEEP turns on."
            " Without it, send the whole conversation as 'input'.",
            "previous_response_id",
            "unsupported_parameter",
        )
    if wanted and request.keeps and request.kept is None:
        raise RecordsNeeded(wanted)
    kept = request.kept or {}
    before: list[Any] = []
    if previous is not None:
        record = kept.get(str(previous))
        if record is None:
            raise _not_found(str(previous))
        before = [*record["input"], *record["response"]["output"]]
    known = {item["id"]: item for record in kept.values() for item in record["response"]["output"]}
    return before, [
        known.get(item.get("id"), item) if _is_reference(item) else item for item in given
    ]


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        content = [{"type": "input_text", "text": value}]
        return [{"type": "message", "role": "user", "content": content}]
    if not isinstance(value, list):
        raise bad_request("'input' must be a string or a list of items.", "input")
    return value


def _is_reference(item: Any) -> bool:
    return as_object(item).get("type") == "item_reference"


def _not_found(id: str) -> ChatError:
    return bad_request(
        f"The response '{id[:100]}' is not kept here, or not any more.",
        "previous_response_id",
        "previous_response_not_found",
    )


def record_of(id: str, items: tuple[Any, ...], response: Json) -> tuple[str, Json]:
    """
    What is kept of a response: its id, and the record.

    @param items: its whole input.
    """
    named = [
        item if not isinstance(item, dict) or "id" in item else item | {"id": f"in_{id}_{number}"}
        for number, item in enumerate(items)
    ]
    return response["id"], {"input": named, "response": response}
