"""A bounded memory of what was learnt about names that clients choose."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from attrs import define, field

Value = TypeVar("Value")

# Seconds for which is remembered what an upstream refuses: upstreams are updated.
MEMORY = 3600.0

_LONGEST_NAME = 250


class Memory(Protocol[Value]):
    """Values by name."""

    def get(self, name: str, now: float) -> Value | None:
        """@param now: in seconds, on the reactor's clock."""

    def put(self, name: str, value: Value, now: float) -> None:
        """Have a value in place of another one."""


@define
class Remembered(Generic[Value]):
    """
    Values by name, each for a time. The oldest is forgotten first.

    @ivar lifetime: in seconds.
    @ivar most: how many are kept.
    """

    lifetime: float
    most: int = 1000
    _known: dict[str, tuple[Value, float]] = field(factory=dict, init=False)

    def get(self, name: str, now: float) -> Value | None:
        """@param now: in seconds, on any clock."""
        value, until = self._known.get(name, (None, now))
        if until > now:
            return value
        self._known.pop(name, None)
        return None

    def put(self, name: str, value: Value, now: float) -> None:
        """Names that are too long are not kept."""
        if len(name) > _LONGEST_NAME:
            return
        self._known.pop(name, None)
        self._known[name] = (value, now + self.lifetime)
        if len(self._known) > self.most:
            del self._known[next(iter(self._known))]
