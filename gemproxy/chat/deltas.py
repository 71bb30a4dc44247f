"""How the deltas of a stream add up: rules by field."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Container, Mapping
from typing import Any

from attrs import define, field, frozen

from gemproxy.chat.chunks import index_of
from gemproxy.chat.jsontext import joined_halves, peek

_Object = dict[str, Any]

# Given what is held of a field, which is None at first, and a delta's value, what is held then. The
# value is not modified; what is held is.
Rule = Callable[[Any, Any], Any]


@frozen
class Rules:
    """
    @ivar fields: the rules of fields by name.
    @ivar others: the rule of all other fields.
    """

    fields: Mapping[str, Rule]
    others: Rule


def add(fields: _Object, delta: _Object, rules: Rules, apart: Container[str] = ()) -> None:
    """
    Add a delta to an object. Nothing empty comes in place of what is not null.

    @param apart: fields that are left to the caller.
    """
    by_name, others = rules.fields, rules.others
    for key, value in delta.items():
        if key in apart:
            continue
        held = fields.get(key)
        if value is None or (held is not None and not value and value != 0):
            fields.setdefault(key, value)
        else:
            fields[key] = by_name.get(key, others)(held, value)


def settled(value: Any) -> Any:
    """What has been added up so far, as JSON; it does not change any more."""
    if isinstance(value, Pieces):
        return value.text()
    if isinstance(value, _Blocks | _Calls):
        return value.settled()
    if isinstance(value, dict):
        return {key: settled(item) for key, item in value.items()}
    return value.copy() if isinstance(value, list) else value


def text_of(content: Any) -> str:
    """The text of a message's content that is not settled yet."""
    if isinstance(content, Pieces):
        return content.text()
    parts = content.settled() if isinstance(content, _Blocks) else ()
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def number_of_calls(message: _Object) -> int:
    """How many calls there are in a message that is not settled yet."""
    calls = message.get("tool_calls")
    return len(calls) if isinstance(calls, _Calls) else 0


class Pieces(list[str]):
    """
    The pieces of a string that is still growing. What is asked about it with each delta must not
    take longer the more there are.
    """

    def text(self) -> str:
        return joined_halves("".join(self))

    def is_blank(self) -> bool:
        return not any(piece.strip() for piece in self)

    def is_exactly(self, text: str) -> bool:
        """Whether a text is the same."""
        place = 0
        for piece in self:
            if not text.startswith(piece, place):
                return False
            place += len(piece)
        return place == len(text)

    def is_json_object(self) -> bool:
        last = next((piece for piece in reversed(self) if piece.strip()), "")
        # An object that is not complete seldom looks as if it was.
        return last.rstrip().endswith("}") and _is_json_object(self.text())


class _Base64(Pieces):
    """The same for base64, of which each piece may be complete in itself, with padding."""

    def text(self) -> str:
        if not any(piece.endswith("=") for piece in self[:-1]):
            return "".join(self)
        try:
            pieces = [base64.b64decode(piece, validate=True) for piece in self]
        except (binascii.Error, ValueError):
            return "".join(self)
        return base64.b64encode(b"".join(pieces)).decode()


# The rules. What has another type than expected is added by its type.


def _by_type(held: Any, value: Any) -> Any:
    """
    Strings and objects grow as in openai-python, and so do lists whose entries have an C{index}.
    Of numbers, which openai-python adds up, the last is taken: nobody streams differences.
    """
    if isinstance(value, str):
        return _text(held, value)
    if isinstance(value, list):
        blocks = held if isinstance(held, _Blocks) else _Blocks(runs=False)
        blocks.add(value)
        return blocks
    return _grown(held, value, _ANY) if isinstance(value, dict) else value


def _text(held: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return _by_type(held, value)
    if isinstance(held, Pieces):
        held.append(value)
        return held
    return Pieces([value])


def _base64(held: Any, value: Any) -> Any:
    return _text(held if isinstance(held, _Base64) else _Base64(), value)


def _once(held: Any, value: Any) -> Any:
    """A text that comes in pieces, or whole in every delta."""
    is_there = isinstance(held, Pieces) and isinstance(value, str) and held.is_exactly(value)
    return held if is_there else _text(held, value)


def _arguments(held: Any, value: Any) -> Any:
    is_repeated = isinstance(value, str) and _is_json_object(value)
    return _once(held, value) if is_repeated else _text(held, value)


def _first(held: Any, value: Any) -> Any:
    return held or value


def _latest(held: Any, value: Any) -> Any:
    return value


def _list(held: Any, value: Any) -> Any:
    if not isinstance(value, list):
        return _by_type(held, value)
    if type(held) is not list:
        return value.copy()
    held.extend(value)
    return held


def _state(held: Any, value: Any) -> Any:
    """What is said anew rather than continued; an object field by field."""
    return _grown(held, value, _STATE) if isinstance(value, dict) else value


def _list_or_state(held: Any, value: Any) -> Any:
    return _list(held, value) if isinstance(value, list) else _state(held, value)


def _blocks(held: Any, value: Any) -> Any:
    if not isinstance(value, list):
        return _by_type(held, value)
    blocks = held if isinstance(held, _Blocks) else _Blocks(runs=True)
    blocks.add(value)
    return blocks


def _text_or_blocks(held: Any, value: Any) -> Any:
    """A string, or a list of parts as soon as there has been one."""
    if isinstance(value, list) and isinstance(held, Pieces):
        text = "".join(held)
        return _blocks(_blocks(None, [_text_part(text)] if text else []), value)
    if isinstance(value, str) and isinstance(held, _Blocks):
        return _blocks(held, [_text_part(value)])
    return _blocks(held, value) if isinstance(value, list) else _by_type(held, value)


def _text_part(text: str) -> _Object:
    return {"type": "text", "text": text}


def _calls(held: Any, value: Any) -> Any:
    calls = held if isinstance(held, _Calls) else _Calls()
    if isinstance(value, list):
        calls.add(value)
    return calls


def _function(held: Any, value: Any) -> Any:
    fresh: _Object = {"name": Pieces(), "arguments": Pieces()}
    fields = held if isinstance(held, dict) else fresh
    return _grown(fields, value, _FUNCTION) if isinstance(value, dict) else held


def _custom(held: Any, value: Any) -> Any:
    return _grown(held, value, _FUNCTION) if isinstance(value, dict) else held


def _audio(held: Any, value: Any) -> Any:
    return _grown(held, value, _AUDIO) if isinstance(value, dict) else _by_type(held, value)


def _logprobs(held: Any, value: Any) -> Any:
    return _grown(held, value, _LOGPROBS) if isinstance(value, dict) else held


def _grown(held: Any, value: _Object, rules: Rules) -> _Object:
    fields = held if isinstance(held, dict) else {}
    add(fields, value, rules)
    return fields


_LABELS: dict[str, Rule] = {
    "type": _first,
    "id": _first,
    "index": _first,
    "format": _first,
    "name": _once,
    "signature": _once,
}
_ANY = Rules(_LABELS, _by_type)
_STATE = Rules({}, _state)
_LOGPROBS = Rules({}, _list)
_FUNCTION = Rules({"name": _once, "arguments": _arguments, "input": _text}, _state)
_CALL = Rules({"type": _first, "id": _first, "function": _function, "custom": _custom}, _state)
_AUDIO = Rules(_LABELS | {"data": _base64}, _by_type)
_PARTS: dict[str, Rule] = dict.fromkeys(("content", "summary", "thinking"), _text_or_blocks)
_BLOCK = Rules(_LABELS | _PARTS, _by_type)
MESSAGE = Rules(
    _LABELS
    | {
        "role": _latest,
        "content": _text_or_blocks,
        "tool_calls": _calls,
        "function_call": _function,
        "reasoning_details": _blocks,
        "thinking_blocks": _blocks,
        "audio": _audio,
        # A signature comes whole.
        "extra_content": _state,
        # Each delta has entries of its own, whatever their index is.
        "annotations": _list,
        "images": _list,
        # Each is complete in itself.
        "google_responses": _list,
    },
    _by_type,
)
CHOICE = Rules({"logprobs": _logprobs}, _list_or_state)
# The first chunk of Azure's streams leaves these empty.
COMPLETION = Rules(dict.fromkeys(("id", "created", "model"), _first), _latest)


# What a block that grows consists of. All else, such as a picture, comes whole.
_OF_FRAGMENTS = frozenset(
    {*_LABELS, "content", "reasoning", "refusal", "summary", "text", "thinking", "transcript"}
)


def _is_whole(block: _Object) -> bool:
    return any(
        value and isinstance(value, str | list | dict | _Blocks)
        for key, value in block.items()
        if key not in _OF_FRAGMENTS
    )


def _differ(one: Any, other: Any) -> bool:
    return bool(one) and bool(other) and one != other


@define(eq=False)
class _Blocks:
    """
    A list of objects that are still growing.

    @ivar _runs: whether a fragment without an index goes on with the last block of its type.
    """

    _runs: bool
    _entries: list[Any] = field(init=False, factory=list)
    _by_index: dict[int, _Object] = field(init=False, factory=dict)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, entries: list[Any]) -> None:
        is_first = True
        for entry in entries:
            if isinstance(entry, dict):
                self._add_to(self._block_of(entry, is_first), entry)
            else:
                self._entries.append(entry)
            is_first = False

    def settled(self) -> list[Any]:
        return [settled(entry) for entry in self._entries]

    def _add_to(self, block: _Object | None, entry: _Object) -> None:
        if block is None:
            block = {}
            self._entries.append(block)
        add(block, entry, _BLOCK)
        index = index_of(block.get("index"))
        if index is not None:
            block["index"] = index
            self._by_index[index] = block

    def _block_of(self, entry: _Object, is_first: bool) -> _Object | None:
        """
        The block that an entry goes on with, if any.

        @param is_first: whether it is the first of its delta; the others are separate from it.
        """
        index = index_of(entry.get("index"))
        if index is not None and (known := self._by_index.get(index)) is not None:
            return known if _are_alike(known, entry) else None
        last = self._entries[-1] if self._runs and self._entries else None
        if not isinstance(last, dict) or not _are_alike(last, entry):
            return None
        if index is not None and last.get("index") is not None:
            return None
        if _is_whole(last) or _is_whole(entry):
            return None
        if signature := last.get("signature"):
            # A signature is the last that comes of a block.
            is_same = entry.get("signature") == settled(signature)
            return last if is_same and is_first else None
        return last if is_first or _is_signature(entry) else None


def _are_alike(block: _Object, entry: _Object) -> bool:
    return not any(_differ(block.get(key), entry.get(key)) for key in ("type", "id"))


def _is_signature(entry: _Object) -> bool:
    return bool(entry.get("signature")) and not any(
        value for key, value in entry.items() if key not in _LABELS
    )


@define(eq=False)
class _Calls:
    """The calls of a message."""

    _calls: list[_Call] = field(init=False, factory=list)
    _by_index: dict[int, _Call] = field(init=False, factory=dict)
    _by_id: dict[str, _Call] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, deltas: list[Any]) -> None:
        is_first = True
        for delta in deltas:
            if isinstance(delta, dict):
                self._add(delta, is_first)
                is_first = False

    def settled(self) -> list[_Object]:
        in_order = sorted(self._calls, key=lambda call: (call.index is None, call.index or 0))
        return [call.settled() for call in in_order]

    def _add(self, delta: _Object, is_first: bool) -> None:
        index, known_id = index_of(delta.get("index")), delta.get("id")
        call = self._known(delta, index, is_first)
        if call is None:
            call = _Call(index)
            self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        call.add(delta)
        if known_id and isinstance(known_id, str):
            self._by_id[known_id] = call

    def _known(self, delta: _Object, index: int | None, is_first: bool) -> _Call | None:
        """The call that a delta goes on with, if any."""
        known_id = delta.get("id")
        same = self._by_id.get(known_id) if known_id and isinstance(known_id, str) else None
        if same is not None and not same.is_another(delta, index):
            return same
        if index is not None:
            known = self._by_index.get(index)
            return known if known is not None and known.goes_on_with(delta) else None
        last = self._calls[-1] if self._calls else None
        if same is not None or last is None or (not is_first and (known_id or _name_of(delta))):
            return None
        return last if last.goes_on_without_index(delta) else None


def _part_of(delta: _Object, key: str) -> Any:
    for kind in ("function", "custom"):
        if isinstance(function := delta.get(kind), dict) and function.get(key):
            return function[key]
    return None


def _name_of(delta: _Object) -> Any:
    return _part_of(delta, "name")


def _is_json_object(text: str) -> bool:
    if not (text.lstrip().startswith("{") and text.rstrip().endswith("}")):
        return False
    try:
        peek(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return False
    return True


@define(eq=False)
class _Call:
    index: int | None
    _fields: _Object = field(init=False, factory=dict)

    def add(self, delta: _Object) -> None:
        add(self._fields, delta, _CALL, apart=("index",))

    def settled(self) -> _Object:
        call: _Object = settled(self._fields)
        if not call.get("type"):
            call["type"] = "function"
        return call

    @property
    def _name(self) -> str:
        return str(settled(_name_of(self._fields)) or "")

    @property
    def _arguments(self) -> Pieces:
        found = _part_of(self._fields, "arguments")
        return found if isinstance(found, Pieces) else Pieces()

    def _is_followed_by(self, delta: _Object) -> bool:
        """Whether a delta has the arguments of another call."""
        arguments, held = _part_of(delta, "arguments"), self._arguments
        is_more = isinstance(arguments, str) and arguments.strip()
        return bool(is_more) and held.is_json_object() and arguments != held.text()

    def is_another(self, delta: _Object, index: int | None) -> bool:
        """Whether a delta with this call's id is of another call nevertheless."""
        name = _name_of(delta)
        if not name:
            return False
        elsewhere = None not in (index, self.index) and index != self.index
        return (elsewhere and name != self._name) or self._is_followed_by(delta)

    def goes_on_with(self, delta: _Object) -> bool:
        """
        Whether a delta with this call's index belongs to this call. Some upstreams, such as
        Google's OpenAI-compatible endpoint, give parallel calls the same index; a delta with
        another id and a name starts a new call.
        """
        if not _name_of(delta):
            return True
        return not (_differ(self._fields.get("id"), delta.get("id")) or self._is_followed_by(delta))

    def goes_on_without_index(self, delta: _Object) -> bool:
        """Whether a delta without an index belongs to this call, the last one."""
        name, held = _name_of(delta), self._arguments
        if _differ(self._fields.get("id"), delta.get("id")):
            return not (name or held.is_blank() or held.is_json_object())
        if name and name != self._name and not held.is_blank():
            return False
        return not (name and self._name and self._is_followed_by(delta))
