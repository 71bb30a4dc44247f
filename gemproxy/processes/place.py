"""Which one of several processes this is: what a parent tells the daemons that it starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from gemproxy.chat.jsontext import dumps, loads

VARIABLE = "GEMPROXY_PLACE"
"""The environment variable in which a parent tells it."""


@frozen
class Place:
    """
    One of the processes that serve side by side.

    @ivar number: from 1 to C{count}. A successor has the same.
    @ivar count: how many there are.
    @ivar folder: private to them, and there as long as the parent is; None for a process alone.
    @ivar name: unlike that of any other process that ever was in the folder.
    @ivar ports: descriptors of listening sockets, by the names of ports.
    @ivar secret: known to these processes alone; None for a process alone.
    @ivar watchdog: the parent ends a process of which it hears nothing for so many seconds.
    """

    number: int = 1
    count: int = 1
    folder: Path | None = None
    name: str = "1"
    ports: Mapping[str, int] = field(factory=dict)
    secret: str | None = field(default=None, repr=False)
    watchdog: float | None = None

    @property
    def is_alone(self) -> bool:
        return self.count == 1

    def share(self, total: int) -> int:
        """Of what there is for all together. Each has one at least."""
        shares, rest = divmod(total, self.count)
        return max(1, shares + (self.number <= rest))

    def derived(self, purpose: str) -> bytes | None:
        """32 bytes that these processes have in common, for one purpose; None for one alone."""
        if self.secret is None:
            return None
        return hashlib.sha256(f"{purpose}\n{self.secret}".encode()).digest()

    def to_text(self) -> str:
        """For L{VARIABLE}."""
        return dumps(
            {
                "number": self.number,
                "count": self.count,
                "folder": str(self.folder),
                "name": self.name,
                "ports": dict(self.ports),
                "secret": self.secret,
                "watchdog": self.watchdog,
            }
        ).decode()

    @classmethod
    def in_environ(cls, environ: Mapping[str, str]) -> Place:
        """The one that a parent has given to this process."""
        text = environ.get(VARIABLE)
        return cls() if text is None else cls.of_text(text)

    @classmethod
    def of_text(cls, text: str) -> Place:
        """What L{to_text} has made."""
        said = loads(text.encode())
        return cls(**said | {"folder": Path(said["folder"])})


ALONE = Place()
