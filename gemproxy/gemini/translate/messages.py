"""Translates and validates OpenAI messages as Gemini turns. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

from gemproxy.chat.errors import bad_request
from gemproxy.gemini.translate.media import KINDS, media_part
from gemproxy.gemini.translate.tools import Signatures, call_parts, result_part, sign_unsigned

Part = dict[str, Any]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@frozen
class Turn:
    """One message of a conversation, as parts of the Gemini API."""

    role: Literal["user", "model"]
    parts: tuple[Part, ...]


@frozen
class Conversation:
    """
    A translated conversation.

    @ivar system: the text of the system instruction; None if there is none.
    """

    system: str | None
    turns: tuple[Turn, ...]


def translate_messages(
    messages: Any, signatures: Signatures, sign_calls: bool = False
) -> Conversation:
    """
    Leading system messages become the system instruction; later ones become user turns at their
    position; empty messages are dropped. If there are only system messages, the last one becomes a
    user turn, because the API requires one.

    @param signatures: the signatures of function calls made by models.
    @param sign_calls: whether the model rejects function calls without a signature.
    @raise ChatError: 400, a message is invalid; the error names it.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_request("'messages' must be a non-empty list.", "messages")
    leading: list[str] = []
    turns: list[Turn] = []
    names: dict[str, str] = {}
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        role = _role(message, where)
        if role in ("system", "developer") and not turns:
            if text := _text(message, where):
                leading.append(text)
            continue
        if role == "assistant":
            parts = _named(_parts(message, where), message)
            at = f"{where}.tool_calls"
            calls = call_parts(message.get("tool_calls"), at, names, signatures)
            parts += sign_unsigned(calls) if sign_calls else calls
        elif role in ("tool", "function"):
            parts = [result_part(message, _text(message, where), where, names)]
        else:
            parts = _named(_parts(message, where), message)
        if parts:
            turns.append(Turn("model" if role == "assistant" else "user", tuple(parts)))
    if not turns:
        if not leading:
            raise bad_request("'messages' contains no text.", "messages")
        turns.append(Turn("user", ({"text": leading.pop()},)))
    return Conversation("\n\n".join(leading) or None, tuple(turns))


def _role(message: Any, where: str) -> str:
    if not isinstance(message, dict):
        raise bad_request(f"'{where}' must be an object.", where)
    role = message.get("role")
    if role not in _ROLES:
        raise bad_request(f"'{where}.role' must be one of {', '.join(_ROLES)}.", f"{where}.role")
    return str(role)


def _named(parts: list[Part], message: Mapping[str, Any]) -> list[Part]:
    """Put the name of the participant before the text, because the API has no field for it."""
    name = message.get("name")
    if not isinstance(name, str) or not name or not parts:
        return parts
    prefix = f"{name}: "
    text = parts[0].get("text")
    if text is None:
        return [{"text": prefix}, *parts]
    return parts if text.startswith(prefix) else [{"text": prefix + text}, *parts[1:]]


def _text(message: Mapping[str, Any], where: str) -> str:
    """The text of a message that may contain only text."""
    parts = _parts(message, where)
    if any("text" not in part for part in parts):
        at = f"{where}.content"
        raise bad_request(f"'{at}' may contain only text.", at)
    return "\n\n".join(part["text"] for part in parts)


def _parts(message: Mapping[str, Any], where: str) -> list[Part]:
    """The parts of a message's content, without empty texts."""
    content = message.get("content")
    where = f"{where}.content"
    if content is None:
        return []
    if isinstance(content, str):
        return [{"text": content}] if content else []
    if not isinstance(content, list):
        raise bad_request(f"'{where}' must be a string or a list of parts.", where)
    parts = [_part(part, f"{where}[{position}]") for position, part in enumerate(content)]
    return [part for part in parts if part != {"text": ""}]


def _part(part: Any, where: str) -> Part:
    if not isinstance(part, dict):
        raise bad_request(f"'{where}' must be an object.", where)
    kind = part.get("type")
    if not isinstance(kind, str):
        raise bad_request(f"'{where}.type' must be a string.", f"{where}.type")
    if kind in KINDS:
        return media_part(part, where)
    if kind not in ("text", "refusal"):
        raise bad_request(f"'{where}': '{kind[:40]}' content is not supported.", f"{where}.type")
    text = part.get(kind)
    if not isinstance(text, str):
        raise bad_request(f"'{where}.{kind}' must be a string.", f"{where}.{kind}")
    return {"text": text}
