"""
The turns of a conversation, with calls and results where Gemini wants them.

The API refuses a conversation unless each turn with function calls follows a turn of the user and
is followed by one turn with exactly one result for each call. Histories of other models, and those
that a front end has cut, are not like that, and are repaired here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

from attrs import define, field, frozen

Part = dict[str, Any]

_NO_RESULT = {"output": "no result was given"}
_BEGINNING = "Begin."


@frozen
class Turn:
    """One message of a conversation, as parts of the Gemini API."""

    role: Literal["user", "model"]
    parts: tuple[Part, ...]


def merged(turns: Sequence[Turn]) -> list[Part]:
    """The C{contents} of a request. Consecutive turns of one role are one, as the API requires."""
    contents: list[Part] = []
    for turn in turns:
        if contents and contents[-1]["role"] == turn.role:
            contents[-1]["parts"].extend(turn.parts)
        else:
            contents.append({"role": turn.role, "parts": list(turn.parts)})
    return contents


@define(eq=False)
class _Call:
    """
    A call in the history.

    @ivar result: the parts of its result, the functionResponse first; empty if there is none.
    """

    id: str | None
    name: str
    result: Sequence[Part] = ()

    @property
    def answered(self) -> Sequence[Part]:
        if self.result:
            return self.result
        response: Part = {"name": self.name, "response": _NO_RESULT}
        return [{"functionResponse": response | ({"id": self.id} if self.id else {})}]


@define(eq=False)
class _Message:
    """@ivar is_next: whether results of earlier calls came before it."""

    role: Literal["user", "model"]
    parts: list[Part]
    calls: list[_Call] = field(factory=list)
    is_next: bool = False


class History:
    """Collects the messages of a conversation, in their order."""

    def __init__(self) -> None:
        self._messages: list[_Message] = []
        self._by_name: dict[str, deque[_Call]] = {}
        self._by_id: dict[str, _Call] = {}
        self._had_result = False

    @property
    def is_empty(self) -> bool:
        return not self._messages

    def add_user(self, parts: list[Part]) -> None:
        if parts:
            self._messages.append(_Message("user", parts))

    def add_model(self, parts: list[Part]) -> None:
        """@param parts: may contain calls."""
        if not parts:
            return
        message = _Message("model", parts, is_next=self._had_result)
        self._had_result = False
        for part in parts:
            called = part.get("functionCall")
            if called is None:
                continue
            call = _Call(called.get("id"), called["name"])
            message.calls.append(call)
            self._by_name.setdefault(call.name, deque()).append(call)
            if call.id is not None:
                self._by_id[call.id] = call
        self._messages.append(message)

    def call_name(self, id: str | None, name: str | None) -> str | None:
        """
        The name of the call to which a result belongs; None if there is no such call.

        @param id: the id of the call, as far as known.
        @param name: the name of the function, as far as known.
        """
        call = self._call(id, name)
        return None if call is None else call.name

    def add_result(self, id: str | None, name: str | None, parts: Sequence[Part]) -> None:
        """
        Set the result of an earlier call; the last one counts.

        @raise LookupError: there is no such call.
        """
        call = self._call(id, name)
        if call is None:
            raise LookupError(id)
        call.result = parts
        self._had_result = True

    def _call(self, id: str | None, name: str | None) -> _Call | None:
        if id is not None and (call := self._by_id.get(id)) is not None:
            return call
        same_name = self._by_name.get(name or "")
        while same_name and same_name[0].result:
            same_name.popleft()
        return same_name[0] if same_name else None

    def turns(self) -> list[Turn]:
        turns: list[Turn] = []
        run: list[_Message] = []
        for message in self._messages:
            if message.role == "user" or message.is_next:
                turns += _with_results(run, first=not turns)
                run = []
            if message.role == "model":
                run.append(message)
                continue
            turns.append(Turn("user", tuple(message.parts)))
        return turns + _with_results(run, first=not turns)


def _with_results(run: Sequence[_Message], first: bool) -> list[Turn]:
    """
    Consecutive turns of the model, which become one for the API, and the results of their calls.

    @param first: whether the conversation begins with them.
    """
    turns = [Turn("model", tuple(message.parts)) for message in run]
    calls = [call for message in run for call in message.calls]
    if not calls:
        return turns
    if first:
        turns.insert(0, Turn("user", ({"text": _BEGINNING},)))
    answered = [call.answered for call in calls]
    # What accompanies the results, such as pictures, comes after all of them.
    results = [parts[0] for parts in answered] + [part for parts in answered for part in parts[1:]]
    return [*turns, Turn("user", tuple(results))]
