"""Values that daemons leave for each other, each for a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from gemproxy.state.shared import Script, SharedState, StateAway

_PUT = Script("""
for number, key in ipairs(KEYS) do redis.call('SET', key, ARGV[number + 1], 'PX', ARGV[1]) end
return #KEYS
""")
_GET = Script("return redis.call('MGET', unpack(KEYS))")


class Shelf(Protocol):
    """Values by name. Neither shows anything secret."""

    def put(self, values: Mapping[str, bytes], seconds: float) -> None:
        """Leave values for a time. Nobody waits for it."""

    def get(self, names: Collection[str]) -> Deferred[dict[str, bytes]]:
        """
        Those of the values that are there.

        @return: fails with L{StateAway} if that cannot be known now.
        """


class NoShelf:
    """That of a daemon alone."""

    def put(self, values: Mapping[str, bytes], seconds: float) -> None:
        """Nobody else is there."""

    def get(self, names: Collection[str]) -> Deferred[dict[str, bytes]]:
        return succeed({})


NO_SHELF = NoShelf()


@frozen
class SharedShelf:
    """
    One in the shared state.

    @ivar label: what stands in front of the names there.
    """

    state: SharedState
    label: str

    def put(self, values: Mapping[str, bytes], seconds: float) -> None:
        if values:
            keys = self._keys(values)
            putting = self.state.run(_PUT, keys, round(seconds * 1000), *values.values())
            putting.addErrback(StateAway.ignored)

    def get(self, names: Collection[str]) -> Deferred[dict[str, bytes]]:
        def found(values: list[Any]) -> dict[str, bytes]:
            pairs = zip(names, values, strict=True)
            return {name: value for name, value in pairs if value is not None}

        if not names:
            return succeed({})
        return self.state.run(_GET, self._keys(names)).addCallback(found)

    def delete(self, names: Collection[str]) -> Deferred[int]:
        """Fails with L{StateAway} if they may be there still."""
        return self.state.delete(*self._keys(names)) if names else succeed(0)

    def _keys(self, names: Collection[str]) -> list[str]:
        return [f"{self.label}:{name}" for name in names]
