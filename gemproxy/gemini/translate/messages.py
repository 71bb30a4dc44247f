"""Translates and validates OpenAI messages as Gemini turns. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from gemproxy.chat.errors import bad_request
from gemproxy.chat.extra_content import given_signature
from gemproxy.chat.shapes import objects_in
from gemproxy.gemini.translate.calls import call_parts, result_response
from gemproxy.gemini.translate.families import Family
from gemproxy.gemini.translate.history import History, Turn, merged
from gemproxy.gemini.translate.media import KINDS, media_part
from gemproxy.gemini.translate.names import gemini_name
from gemproxy.gemini.translate.signatures import (
    DUMMY,
    Signatures,
    sign_text,
    sign_unsigned,
    signed_as,
    with_dummy,
)

Part = dict[str, Any]
Message = dict[str, Any]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TEXTS = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}
_PLAIN = frozenset({"role", "content"})
# What models think is theirs alone, and not sent to another. What Gemini thought may be signed.
_THOUGHTS = frozenset({"thinking", "redacted_thinking", "reasoning"})

# For models that do not continue a turn of their own.
CONTINUE = (
    "Continue your last message from exactly where it ends, as if you had not been interrupted."
    " Repeat nothing of it, and write nothing in front of the continuation."
)


@frozen
class Conversation:
    """
    A translated conversation.

    @ivar system: the text of the system instruction; None if there is none.
    @ivar key: the API key to prefer: it made the last of the signatures; None if unknown.
    """

    system: str | None
    turns: tuple[Turn, ...]
    key: str | None = field(default=None, repr=False)

    @property
    def is_signed(self) -> bool:
        """Whether it has signatures that the API may find corrupted."""
        for turn in self.turns:
            for part in turn.parts:
                if "thoughtSignature" in part and part["thoughtSignature"] != DUMMY:
                    return True
        return False

    def without_signatures(self) -> Conversation:
        """The conversation with signatures that are always taken."""
        turns = (evolve(turn, parts=tuple(map(with_dummy, turn.parts))) for turn in self.turns)
        return evolve(self, turns=tuple(turns), key=None)

    def api_request(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """
        A request to C{generateContent}.

        @param settings: its fields besides the conversation.
        """
        request = {"contents": merged(self.turns), **settings}
        if self.system is not None:
            request["systemInstruction"] = {"parts": [{"text": self.system}]}
        return request


def translate_messages(
    messages: Any, family: Family, signatures: Signatures, instruction: str | None = None
) -> Conversation:
    """
    Leading system messages become the system instruction; later ones become user turns at their
    position; empty messages are dropped. If there are only system messages, the last one becomes a
    user turn, because the API requires one.

    @param family: that of the requested model.
    @param signatures: the signatures of function calls made by models.
    @param instruction: added to the system instruction.
    @raise ChatError: 400, a message is invalid; the error names it.
    """
    if not isinstance(messages, list) or not messages:
        raise bad_request("'messages' must be a non-empty list.", "messages")
    translation = _Translation(family, signatures)
    for position, message in enumerate(messages):
        translation.add(message, f"messages[{position}]")
    return translation.conversation(instruction)


class _Translation:
    def __init__(self, family: Family, signatures: Signatures) -> None:
        self._family = family
        self._signatures = signatures
        self._leading: list[str] = []
        self._history = History()
        self._key: str | None = None

    def add(self, message: Any, where: str) -> None:
        role = _role(message, where)
        if role in ("system", "developer") and self._history.is_empty:
            if text := _text(message, where):
                self._leading.append(text)
        elif role == "assistant":
            self._add_answer(message, where)
        elif role in ("tool", "function"):
            self._add_result(message, where)
        else:
            self._history.add_user(_named(_parts(message, where), message))

    def _add_answer(self, message: Message, where: str) -> None:
        if message.keys() <= _PLAIN and isinstance(message.get("content"), str):
            # Nothing but text, as most answers of a history.
            self._history.add_model(_parts(message, where))
            return
        parts = sign_text(_named(_parts(message, where), message), given_signature(message))
        if self._family.thinks:
            parts = [*_signed_thoughts(message), *parts]
        pictures = message.get("images")
        for position, picture in enumerate(pictures if isinstance(pictures, list) else ()):
            parts.append(_part(picture, f"{where}.images[{position}]"))
        calls, made_here = call_parts(message, where, self._signatures)
        parts += calls
        if self._family.signatures:
            parts = sign_unsigned(parts)
        if self._family.pictures and self._family.signatures:
            parts = [
                part | {"thoughtSignature": DUMMY} if "inlineData" in part else part
                for part in parts
            ]
        for part in parts:
            if (known := self._signatures.of(part.get("thoughtSignature"))) is not None:
                self._key = known.key
        for signature in made_here:
            self._key = signature.key
        self._history.add_model(parts)

    def _add_result(self, message: Message, where: str) -> None:
        id, name = message.get("tool_call_id"), message.get("name")
        id = id if isinstance(id, str) and id else None
        name = gemini_name(name) if isinstance(name, str) and name else None
        parts = _parts(message, where)
        text = "\n\n".join(part["text"] for part in parts if "text" in part)
        media = [part for part in parts if "text" not in part]
        called = self._history.call_name(id, name)
        if called is None:
            self._history.add_user(
                [{"text": f"Result of {name or id or 'a function'}: {text}"}, *media]
            )
            return
        response: Part = {"name": called, "response": result_response(text)}
        if id is not None:
            response["id"] = id
        beside = media
        if self._family.media_results:
            inside = [part for part in media if "inlineData" in part]
            beside = [part for part in media if "inlineData" not in part]
            if inside:
                response["parts"] = inside
        self._history.add_result(id, name, [{"functionResponse": response}, *beside])

    def conversation(self, instruction: str | None) -> Conversation:
        leading, turns = self._leading, self._history.turns()
        if not turns:
            if not leading:
                raise bad_request("'messages' contains no text.", "messages")
            turns.append(Turn("user", ({"text": leading.pop()},)))
        if turns[-1].role == "model" and not self._family.model_turn_last:
            turns.append(Turn("user", ({"text": CONTINUE},)))
        system = "\n\n".join([*leading, *([instruction] if instruction else [])])
        if system and not self._family.system_instruction:
            turns.insert(0, Turn("user", ({"text": system},)))
            system = ""
        return Conversation(system or None, tuple(turns), self._key)


def _role(message: Any, where: str) -> str:
    if not isinstance(message, dict):
        raise bad_request(f"'{where}' must be an object.", where)
    role = message.get("role")
    if role not in _ROLES:
        raise bad_request(f"'{where}.role' must be one of {', '.join(_ROLES)}.", f"{where}.role")
    return str(role)


def _named(parts: list[Part], message: Message) -> list[Part]:
    """Put the name of the participant before the text, because the API has no field for it."""
    name = message.get("name")
    if not isinstance(name, str) or not name or not parts or name == message["role"]:
        return parts
    prefix = f"{name}: "
    text = parts[0].get("text")
    if text is None:
        return [{"text": prefix}, *parts]
    return parts if text.startswith(prefix) else [{"text": prefix + text}, *parts[1:]]


def _text(message: Message, where: str) -> str:
    """The text of a message that may contain only text."""
    parts = _parts(message, where)
    if any("text" not in part for part in parts):
        at = f"{where}.content"
        raise bad_request(f"'{at}' may contain only text.", at)
    return "\n\n".join(part["text"] for part in parts)


def _parts(message: Message, where: str) -> list[Part]:
    content = message.get("content")
    where = f"{where}.content"
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"text": content}]
    if not isinstance(content, list):
        raise bad_request(f"'{where}' must be a string or a list of parts.", where)
    parts = [
        _part(part, f"{where}[{position}]")
        for position, part in enumerate(content)
        if not _is_thought(part)
    ]
    return [part for part in parts if part != {"text": ""}]


def _is_thought(part: Any) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and kind in _THOUGHTS


def _signed_thoughts(message: Message) -> list[Part]:
    thoughts = []
    for part in filter(_is_thought, objects_in(message.get("content"))):
        text, signature = part.get("thinking", part.get("text")), given_signature(part)
        if signature is not None and isinstance(text, str):
            thoughts.append({"text": text, "thought": True, "thoughtSignature": signature})
    return thoughts


def _part(part: Any, where: str) -> Part:
    if not isinstance(part, dict):
        raise bad_request(f"'{where}' must be an object.", where)
    kind = part.get("type")
    if not isinstance(kind, str):
        raise bad_request(f"'{where}.type' must be a string.", f"{where}.type")
    if kind in KINDS:
        return media_part(part, where)
    field_name = _TEXTS.get(kind)
    if field_name is None:
        raise bad_request(f"'{where}': '{kind[:40]}' content is not supported.", f"{where}.type")
    text = part.get(field_name)
    if not isinstance(text, str):
        raise bad_request(f"'{where}.{field_name}' must be a string.", f"{where}.{field_name}")
    return signed_as({"text": text}, given_signature(part))
