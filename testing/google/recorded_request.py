"""A request as it reached the stand-in, and the moments in its life that can be waited for."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from gemproxy.chat.shapes import as_object, objects_in
from testing.google.scenarios import Scenario

T = TypeVar("T")


class Once(Generic[T]):
    """Something that happens once, and that any number of waiters want to know."""

    def __init__(self) -> None:
        self._happened = False
        self._value: T | None = None
        self._waiters: list[Deferred[T]] = []

    def wait(self) -> Deferred[T]:
        """A Deferred of one's own; it may be cancelled."""
        if self._happened:
            return succeed(self._value)  # type: ignore[arg-type]
        waiter: Deferred[T] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def happen(self, value: T) -> None:
        self._happened, self._value = True, value
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(value)


class Closed(Enum):
    """
    How a request ended.

    @cvar COMPLETE: the whole answer was written.
    @cvar GONE: the client closed the connection before that.
    @cvar CUT: the stand-in did: it was told to, or was stopped.
    """

    COMPLETE = "complete"
    GONE = "gone"
    CUT = "cut"


def _joined_text(content: Any) -> str:
    texts = (part.get("text") for part in objects_in(as_object(content).get("parts")))
    return "".join(words for words in texts if isinstance(words, str))


@define(eq=False)
class ReceivedRequest:
    """
    @ivar number: 0 for the first request since the start.
    @ivar method: the part of the path after the colon, as C{"streamGenerateContent"}; C{"list"} or
        C{"get"} for the models themselves.
    @ivar model: without C{models/}; empty for a list.
    @ivar version: C{"v1beta"} or C{"v1"}.
    @ivar headers: by lower-case name.
    @ivar raw: the body's bytes.
    @ivar body: what they say as JSON; C{None} if they are no JSON object.
    @ivar play: how it was answered, if a model answered it.
    @ivar time: when the whole request had arrived, in seconds of the stand-in's clock.
    @ivar first_byte_time: when the status line was written, if it has been.
    @ivar first_chunk_time: when the first chunk of the answer was written, if it has been.
    @ivar closed: how it ended, if it has.
    """

    method: str
    model: str
    version: str = "v1beta"
    number: int = 0
    path: str = ""
    query: Mapping[str, str] = field(factory=dict, repr=False)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    raw: bytes = field(default=b"", repr=False)
    body: dict[str, Any] | None = field(default=None, repr=False)
    play: Scenario | None = field(default=None, repr=False)
    time: float = 0.0
    first_byte_time: float | None = None
    first_chunk_time: float | None = None
    closed: Closed | None = None
    _end: Once[Closed] = field(init=False, factory=Once, repr=False)

    def when_closed(self) -> Deferred[Closed]:
        """Fires when the answer is complete or the connection is gone."""
        return self._end.wait()

    def close(self, how: Closed) -> None:
        self.closed = how
        self._end.happen(how)

    @property
    def key(self) -> str | None:
        """The API key."""
        return self.headers.get("x-goog-api-key") or self.query.get("key")

    @property
    def token(self) -> str:
        """The access token of Google Cloud's; empty if there is none."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def contents(self) -> list[dict[str, Any]]:
        """The turns of the conversation, as they came."""
        return objects_in((self.body or {}).get("contents"))

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Role and text of each turn, the texts of its parts joined."""
        return [
            (str(content.get("role", "user")), _joined_text(content)) for content in self.contents
        ]

    @property
    def system(self) -> str | None:
        """The text of the system instruction."""
        instruction = (self.body or {}).get("systemInstruction")
        return None if instruction is None else _joined_text(instruction)

    @property
    def generation_config(self) -> dict[str, Any]:
        return as_object((self.body or {}).get("generationConfig"))

    @property
    def functions(self) -> list[dict[str, Any]]:
        """The functions that are declared to the model."""
        return [
            function
            for tool in objects_in((self.body or {}).get("tools"))
            for function in objects_in(tool.get("functionDeclarations"))
        ]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts of the last turn."""
        return objects_in(self.contents[-1].get("parts")) if self.contents else []
