"""Which call of an answer a delta goes on with. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from attrs import define, field

from gemproxy.chat.chunks import index_of
from gemproxy.chat.shapes import as_object

_T = TypeVar("_T", bound=Hashable)


@define(eq=False)
class Calls(Generic[_T]):
    """The calls of an answer that may go on, in a dialect's own shape."""

    # The indexes by call, and the last call of each index with its id.
    _indexes: dict[_T, int | None] = field(init=False, factory=dict)
    _last: dict[int | None, tuple[str, _T]] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._indexes)

    def all(self) -> list[_T]:
        """In their order."""
        return list(self._indexes)

    def of(self, delta: dict[str, Any]) -> _T | None:
        """
        The call that a delta goes on with; None if it begins another.

        Google's OpenAI-compatible endpoint gives all parallel calls the same index; other servers
        give none.
        """
        index, id = index_of(delta.get("index")), delta.get("id")
        known_id, call = self._last.get(index, ("", None))
        if call is None or not as_object(delta.get("function")).get("name"):
            return call
        is_same = id == known_id if id else index is not None
        return call if is_same else None

    def add(self, delta: dict[str, Any], id: str, call: _T) -> None:
        """@param delta: with which it began."""
        index = index_of(delta.get("index"))
        self._indexes[call] = index
        self._last[index] = id, call

    def remove(self, call: _T) -> None:
        """There is no more of it."""
        index = self._indexes.pop(call)
        if self._last.get(index, ("", None))[1] is call:
            del self._last[index]
