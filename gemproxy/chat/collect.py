"""Assembles the chunks of a stream into a completion."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from gemproxy.chat.jsontext import loads

_Object = dict[str, Any]

# The first chunk of Azure's streams leaves these empty.
_FIRST_WINS = ("id", "created", "model")
_OMITTED_IF_NULL = (*_FIRST_WINS, "usage")


class _Pieces(list[str]):
    """The pieces of a string that is still growing."""


def _keep(fields: _Object, key: str, value: Any) -> None:
    if value is not None or key not in fields:
        fields[key] = value


def _accumulate(fields: _Object, key: str, value: Any) -> None:
    """Append a delta's value to a field. The parsed delta is not modified."""
    held = fields.get(key)
    if isinstance(value, str):
        if isinstance(held, _Pieces):
            held.append(value)
        else:
            fields[key] = _Pieces([value])
    elif isinstance(value, list):
        if isinstance(held, list) and not isinstance(held, _Pieces):
            held.extend(value)
        else:
            fields[key] = list(value)
    elif isinstance(value, dict):
        if isinstance(held, dict):
            held.update(value)
        else:
            fields[key] = dict(value)
    else:
        _keep(fields, key, value)


def _settled(fields: _Object) -> _Object:
    return {key: _settled_value(value) for key, value in fields.items()}


def _settled_value(value: Any) -> Any:
    if isinstance(value, _Pieces):
        return "".join(value)
    # Copied, so that the next delta does not modify the returned value.
    return value.copy() if isinstance(value, (list, dict)) else value


def _new_function() -> _Object:
    return {"name": _Pieces(), "arguments": _Pieces()}


def _add_to_function(function: _Object, delta: _Object) -> None:
    for key, value in delta.items():
        if key == "name" and (value == "" or function["name"] == [value]):
            # Some upstreams repeat the whole name in every delta; others split it.
            continue
        if key in ("name", "arguments"):
            _accumulate(function, key, value)
        else:
            _keep(function, key, value)


@define(eq=False)
class _ToolCall:
    index: int | None
    _fields: _Object = field(init=False, factory=dict)
    _function: _Object | None = field(init=False, default=None)

    def add(self, delta: _Object) -> None:
        for key, value in delta.items():
            if key == "function":
                self._add_function(value)
            elif key in ("id", "type"):
                if not self._fields.get(key):
                    _keep(self._fields, key, value)
            elif key != "index":
                _keep(self._fields, key, value)

    def _add_function(self, delta: Any) -> None:
        if isinstance(delta, dict):
            if self._function is None:
                self._function = _new_function()
            _add_to_function(self._function, delta)

    def goes_on_with(self, delta: _Object) -> bool:
        """
        Whether a delta with this call's index belongs to this call. Some upstreams, such as
        Google's OpenAI-compatible endpoint, give parallel calls the same index; a delta with
        another id and a name starts a new call.
        """
        known, new = self._fields.get("id"), delta.get("id")
        if not known or not new or known == new:
            return True
        function = delta.get("function")
        return not (isinstance(function, dict) and function.get("name"))

    def settled(self) -> _Object:
        call = _settled(self._fields)
        if not call.get("type"):
            call["type"] = "function"
        if self._function is not None:
            call["function"] = _settled(self._function)
        return call


@define(eq=False)
class _Choice:
    _index: int
    finish_reason: str | None = field(init=False, default=None)
    _fields: _Object = field(init=False, factory=dict)
    _message: _Object = field(init=False)
    _calls: list[_ToolCall] = field(init=False, factory=list)
    _open_calls: dict[int, _ToolCall] = field(init=False, factory=dict)
    _function_call: _Object | None = field(init=False, default=None)
    _logprobs: _Object | None = field(init=False, default=None)

    @_message.default
    def _empty_message(self) -> _Object:
        return {"role": "assistant", "content": None}

    def add(self, choice: _Object) -> None:
        for key, value in choice.items():
            if key == "delta":
                self._add_delta(value)
            elif key == "finish_reason":
                self.finish_reason = value or self.finish_reason
            elif key == "logprobs":
                self._add_logprobs(value)
            elif key == "message":
                # Sent by upstreams that return a whole completion although a stream was requested.
                if choice.get("delta") is None:
                    self._add_delta(value)
            elif key != "index":
                _keep(self._fields, key, value)

    def _add_delta(self, delta: Any) -> None:
        if not isinstance(delta, dict):
            return
        for key, value in delta.items():
            if key == "role":
                self._message[key] = value or self._message[key]
            elif key == "tool_calls":
                self._add_tool_calls(value)
            elif key == "function_call":
                self._add_function_call(value)
            else:
                _accumulate(self._message, key, value)

    def _add_tool_calls(self, deltas: Any) -> None:
        if not isinstance(deltas, list):
            return
        for delta in deltas:
            if isinstance(delta, dict):
                self._call_of(delta).add(delta)

    def _call_of(self, delta: _Object) -> _ToolCall:
        index = delta.get("index")
        if not isinstance(index, int):
            call = _ToolCall(None)
        else:
            known = self._open_calls.get(index)
            if known is not None and known.goes_on_with(delta):
                return known
            call = self._open_calls[index] = _ToolCall(index)
        self._calls.append(call)
        return call

    def _add_function_call(self, delta: Any) -> None:
        if isinstance(delta, dict):
            if self._function_call is None:
                self._function_call = _new_function()
            _add_to_function(self._function_call, delta)

    def _add_logprobs(self, logprobs: Any) -> None:
        if isinstance(logprobs, dict):
            if self._logprobs is None:
                self._logprobs = {}
            for key, value in logprobs.items():
                _accumulate(self._logprobs, key, value)
        else:
            _keep(self._fields, "logprobs", logprobs)

    def text(self) -> str:
        content = self._message["content"]
        return "".join(content) if isinstance(content, _Pieces) else ""

    def settled(self) -> _Object:
        message = _settled(self._message)
        if self._calls:
            message["tool_calls"] = [call.settled() for call in self._calls_in_order()]
        if self._function_call is not None:
            message["function_call"] = _settled(self._function_call)
        choice = {"index": self._index, "message": message, **self._fields}
        if self._logprobs is not None:
            choice["logprobs"] = _settled(self._logprobs)
        choice["finish_reason"] = self.finish_reason
        return choice

    def _calls_in_order(self) -> list[_ToolCall]:
        return sorted(self._calls, key=lambda call: (call.index is None, call.index or 0))


@define(eq=False)
class CompletionCollector:
    """Assembles the chunks of one response into a C{chat.completion} object."""

    _fields: _Object = field(init=False)
    _choices: dict[int, _Choice] = field(init=False, factory=dict)

    @_fields.default
    def _no_fields(self) -> _Object:
        # Sets the usual order of the fields.
        return dict.fromkeys(("id", "object", "created", "model", "choices"))

    def add(self, data: bytes) -> None:
        """
        @param data: the JSON of one chat.completion.chunk.

        @raise ValueError: it is not a JSON object.
        """
        self.add_parsed(loads(data))

    def add_parsed(self, chunk: Any) -> None:
        """
        @param chunk: a chat.completion.chunk; it is not modified.

        @raise ValueError: it is not a JSON object.
        """
        if not isinstance(chunk, dict):
            raise ValueError("a chunk must be a JSON object")
        for key, value in chunk.items():
            if key == "choices":
                self._add_choices(value)
            elif key not in _FIRST_WINS or not self._fields[key]:
                _keep(self._fields, key, value)

    def _add_choices(self, choices: Any) -> None:
        if not isinstance(choices, list):
            return
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            if not isinstance(index, int):
                index = 0
            known = self._choices.get(index)
            if known is None:
                known = self._choices[index] = _Choice(index)
            known.add(choice)

    def discard(self, index: int) -> None:
        """Forget what has been received of a choice."""
        self._choices.pop(index, None)

    def completion(self) -> dict[str, Any]:
        """The equivalent non-streaming response."""
        fields = self._fields | {
            "object": "chat.completion",
            "choices": [choice.settled() for _, choice in sorted(self._choices.items())],
        }
        return {
            key: value
            for key, value in fields.items()
            if value is not None or key not in _OMITTED_IF_NULL
        }

    @property
    def finished(self) -> bool:
        """Whether there is at least one choice and every choice has a finish_reason."""
        return bool(self._choices) and all(
            choice.finish_reason for choice in self._choices.values()
        )

    @property
    def usage(self) -> dict[str, Any] | None:
        usage = self._fields.get("usage")
        return usage if isinstance(usage, dict) else None

    @property
    def text(self) -> str:
        """The content of choice 0 received so far."""
        choice = self._choices.get(0)
        return "" if choice is None else choice.text()
