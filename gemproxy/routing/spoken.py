"""Which API dialects an upstream speaks, by its configuration or by what it has refused."""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from gemproxy.util.remembered import MEMORY, Memory, Remembered


@define
class SpokenDialects:
    """
    @ivar configured: the names of the dialects that it speaks; None to find out.
    @ivar refused: what it does not speak.
    """

    clock: IReactorTime
    configured: Collection[str] | None = None
    refused: Memory[bool] = field(factory=lambda: Remembered(MEMORY))

    def includes(self, dialect: str, model: str) -> bool:
        """Whether it is worth asking for a model in a dialect."""
        if self.configured is not None:
            return dialect in self.configured
        return not self.refused.get(f"{dialect} {model}", self.clock.seconds())

    def counts(self, dialect: str, model: str) -> bool:
        """Whether it is worth asking for a number of tokens in a dialect."""
        refused = self.refused.get(_counting(dialect, model), self.clock.seconds())
        return self.includes(dialect, model) and not refused

    @property
    def are_certain(self) -> bool:
        """Whether a refusal is an answer, because the configuration says what is spoken."""
        return self.configured is not None

    def refuse(self, dialect: str, model: str) -> None:
        """Take note that it does not speak a dialect for a model."""
        self.refused.put(f"{dialect} {model}", True, self.clock.seconds())

    def refuse_to_count(self, dialect: str, model: str) -> None:
        """Take note that it does not count tokens; many speak a dialect and do not."""
        self.refused.put(_counting(dialect, model), True, self.clock.seconds())


def _counting(dialect: str, model: str) -> str:
    return f"{dialect}/count {model}"
