"""The messages of a Messages request as those of chat completions."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.errors import ChatError, bad_request
from gemproxy.chat.extra_content import extra_content
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.shapes import as_object
from gemproxy.dialects.content import as_content
from gemproxy.dialects.messages.kept import Kept, opened
from gemproxy.dialects.seal import Seal

Json = dict[str, Any]

# What Claude Code tells Anthropic's servers, at the beginning of its system prompt. It may change
# with each request, so that nothing after it could be taken from a cache.
_NOT_FOR_MODELS = "x-anthropic-billing-header:"


class History:
    """
    Translates messages, one after the other.

    @ivar messages: the messages of chat completions.
    """

    def __init__(self, seal: Seal) -> None:
        self.messages: list[Json] = []
        self._seal = seal

    def add_system(self, content: Any, where: str) -> None:
        """@raise ChatError: 400, it is not text."""
        parts = [part for part in _texts(content, where) if not _is_for_servers(part["text"])]
        if parts:
            self.messages.append({"role": "system", "content": as_content(parts)})

    def add(self, message: Any, where: str) -> None:
        """
        Translate one message.

        @param where: its place in the request, for errors.
        @raise ChatError: 400, it is invalid; the error names the place.
        """
        if not isinstance(message, dict):
            raise bad_request(f"'{where}' must be an object.", where)
        role, content = message.get("role"), message.get("content")
        at = f"{where}.content"
        if isinstance(content, str) and role in ("user", "assistant"):
            if content:
                self.messages.append({"role": role, "content": content})
        elif role == "system":
            self.add_system(content, at)
        elif role == "user":
            self._add_user(_blocks(content, at), at)
        elif role == "assistant":
            self._add_assistant(_blocks(content, at), at)
        else:
            raise bad_request(
                f"'{where}.role' must be 'user', 'assistant' or 'system'.", f"{where}.role"
            )

    def _add_user(self, blocks: list[Json], where: str) -> None:
        parts: list[Json] = []
        for number, block in enumerate(blocks):
            at = f"{where}[{number}]"
            if block.get("type") == "tool_result":
                self._add_result(block, at)
            else:
                parts += _user_parts(block, at)
        if parts:
            self.messages.append({"role": "user", "content": as_content(parts)})

    def _add_result(self, block: Json, where: str) -> None:
        id = block.get("tool_use_id")
        if not isinstance(id, str) or not id:
            at = f"{where}.tool_use_id"
            raise bad_request(f"'{at}' must be a non-empty string.", at)
        parts = _parts_in(block.get("content"), f"{where}.content")
        if block.get("is_error"):
            parts = _as_failure(parts)
        self.messages.append(
            {"role": "tool", "tool_call_id": id, "content": as_content(parts) if parts else ""}
        )

    def _add_assistant(self, blocks: list[Json], where: str) -> None:
        parts: list[Json] = []
        calls: list[Json] = []
        thoughts: list[str] = []
        signatures: dict[str, Any] = {}
        for number, block in enumerate(blocks):
            kind = block.get("type")
            if kind == "text":
                parts.append(_text_part(block, f"{where}[{number}]"))
            elif kind == "tool_use":
                calls.append(_call(block, f"{where}[{number}]"))
            elif kind in ("thinking", "redacted_thinking"):
                kept = opened(self._seal, block.get("signature", block.get("data")))
                if kept is not None:
                    # What other models thought, or was changed, is dropped.
                    thought = block.get("thinking")
                    text = thought if isinstance(thought, str) else ""
                    thoughts += [text] if text else []
                    parts = _with_kept(parts, kept, text)
                    signatures |= kept.calls
            # All else was done by Anthropic's servers, and is in the text.
        for call in calls:
            if isinstance(signature := signatures.get(call["id"]), str):
                call |= extra_content(signature)
        if not (parts or calls):
            return
        message: Json = {"role": "assistant", "content": as_content(parts) if parts else None}
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        if calls:
            message["tool_calls"] = calls
        self.messages.append(message)


def _with_kept(parts: list[Json], kept: Kept, thought: str) -> list[Json]:
    """Put the signatures that a block has brought back where they belong."""
    if isinstance(kept.thought, str):
        part = {"type": "thinking", "thinking": thought}
        parts = [*parts, part | extra_content(kept.thought)]
    if isinstance(kept.text, str):
        places = [number for number, part in enumerate(parts) if part["type"] == "text"]
        if places:
            place = places[-1]
            signed = parts[place] | extra_content(kept.text)
            parts = [*parts[:place], signed, *parts[place + 1 :]]
    return parts


def _is_for_servers(text: str) -> bool:
    return text.startswith(_NOT_FOR_MODELS)


def _blocks(content: Any, where: str) -> list[Json]:
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise bad_request(f"'{where}' must be a string or a list of blocks.", where)
    for number, block in enumerate(content):
        if not isinstance(block, dict):
            at = f"{where}[{number}]"
            raise bad_request(f"'{at}' must be an object.", at)
    return content


def _texts(content: Any, where: str) -> list[Json]:
    parts = []
    for number, block in enumerate(_blocks(content, where)):
        at = f"{where}[{number}]"
        if block.get("type") != "text":
            raise bad_request(f"'{at}' must be a block of text.", at)
        parts.append(_text_part(block, at))
    return parts


def _text_part(block: Json, where: str) -> Json:
    text = block.get("text")
    if not isinstance(text, str):
        at = f"{where}.text"
        raise bad_request(f"'{at}' must be a string.", at)
    return _text(text)


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _as_failure(parts: list[Json]) -> list[Json]:
    """The result of a call that failed. C{error} is Google's key for that."""
    texts = [part["text"] for part in parts if part["type"] == "text"]
    others = [part for part in parts if part["type"] != "text"]
    return [_text(dumps({"error": "\n\n".join(texts)}).decode()), *others]


def _call(block: Json, where: str) -> Json:
    for key in ("id", "name"):
        if not isinstance(block.get(key), str) or not block[key]:
            at = f"{where}.{key}"
            raise bad_request(f"'{at}' must be a non-empty string.", at)
    arguments = dumps(block.get("input") or {}).decode()
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


def _parts_in(content: Any, where: str) -> list[Json]:
    """The parts of all blocks of a content."""
    return [
        part
        for number, block in enumerate(_blocks(content, where))
        for part in _user_parts(block, f"{where}[{number}]")
    ]


def _user_parts(block: Json, where: str) -> list[Json]:
    """
    A block of a user's message, or of a result.

    @raise ChatError: 400, it is invalid, or of a kind that has no counterpart.
    """
    match block.get("type"):
        case "text":
            return [_text_part(block, where)]
        case "image":
            return [_image(as_object(block.get("source")), f"{where}.source")]
        case "document":
            return _document(block, where)
        case "search_result":
            texts = _texts(block.get("content"), f"{where}.content")
            heads = [block[key] for key in ("title", "source") if isinstance(block.get(key), str)]
            return [_text("\n".join(heads)), *texts]
        case "tool_reference":
            # What a search for tools has found; it is declared from now on.
            return [_text(f"The tool {block.get('tool_name')} is available now.")]
        case kind:
            raise _unsupported(kind, where)


def _unsupported(kind: Any, where: str) -> ChatError:
    return bad_request(f"'{where}': {str(kind)[:40]!r} is not supported here.", f"{where}.type")


def _image(source: Json, where: str) -> Json:
    if source.get("type") == "url":
        return {"type": "image_url", "image_url": {"url": source.get("url")}}
    return {"type": "image_url", "image_url": {"url": _data_url(source, where)}}


def _data_url(source: Json, where: str) -> str:
    """The data of a source as an address."""
    if source.get("type") == "file":
        raise bad_request(
            f"'{where}.type': there are no files here. Send the data.", f"{where}.type"
        )
    for key in ("media_type", "data"):
        if not isinstance(source.get(key), str):
            raise bad_request(f"'{where}.{key}' must be a string.", f"{where}.{key}")
    return f"data:{source['media_type']};base64,{source['data']}"


def _document(block: Json, where: str) -> list[Json]:
    source, at = as_object(block.get("source")), f"{where}.source"
    title = block.get("title")
    title = title if isinstance(title, str) else ""
    heads = [text for text in (title, block.get("context")) if isinstance(text, str) and text]
    before = [_text("\n".join(heads))] if heads else []
    match source.get("type"):
        case "text":
            return [*before, _text_part({"text": source.get("data")}, at)]
        case "content":
            return [*before, *_parts_in(source.get("content"), f"{at}.content")]
        case "url":
            data = source.get("url")
        case _:
            data = _data_url(source, at)
    return [*before, {"type": "file", "file": {"filename": title or "file", "file_data": data}}]
