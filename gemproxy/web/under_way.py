"""The requests that are being answered: what is known of each, and how one is ended."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from gemproxy.chat.errors import INVALID_REQUEST, SERVER_ERROR, ChatError
from gemproxy.web.admission import ProxyRequest

# Characters of a text of a client's.
_LENGTH = 200


class Progress(NamedTuple):
    """
    How far an answer has come.

    @ivar state: in words.
    @ivar upstream: who answers, or was the last one to be asked: an upstream, or C{gemini}.
    @ivar tokens: of the answer so far; None if they are not known.
    @ivar sent: bytes written to the client.
    """

    state: str
    upstream: str
    retries: int
    tokens: int | None
    sent: int


class Running(Protocol):
    """
    A request that is being answered. All that is asked of it is known already: nobody counts for
    the case that somebody looks.

    @ivar began: when, in seconds on the reactor's clock.
    """

    @property
    def began(self) -> float: ...

    def facts(self) -> dict[str, Any]:
        """What does not change, for JSON."""

    def progress(self) -> Progress: ...

    def interrupt(self, error: ChatError) -> None:
        """End the answer now, with an error."""


class UnderWay:
    """
    Knows all of them.

    @ivar all: by their ids, the oldest first.
    """

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}
        self.all: Mapping[str, Running] = MappingProxyType(self._running)

    def add(self, id: str, running: Running) -> None:
        self._running[id] = running

    def remove(self, id: str) -> None:
        self._running.pop(id, None)

    def interrupt_all(self, error: ChatError) -> None:
        """End all answers with an error."""
        for running in list(self._running.values()):
            running.interrupt(error)

    def end(self, id: str) -> None:
        """
        End one because somebody who may do so wants it.

        @raise ChatError: 404, it is not under way.
        """
        running = self._running.get(id)
        if running is None:
            raise ChatError(
                404,
                INVALID_REQUEST,
                f"The request '{id[:100]}' is not under way.",
                "not_under_way",
            )
        running.interrupt(
            ChatError(
                503,
                SERVER_ERROR,
                "The operator of this proxy has ended the request.",
                "ended_by_operator",
                final=True,
            )
        )


def facts_of(
    request: ProxyRequest, id: str, route: str, model: str | None, stream: bool | None
) -> dict[str, Any]:
    """See L{Running.facts}; the texts are those of clients, and only so long."""
    account = request.account
    return {
        "id": id,
        "path": request.path.decode("utf-8", "replace")[:_LENGTH],
        "route": route,
        "model": model and model[:_LENGTH],
        "account": account and account.name,
        "stream": stream,
        "client": request.client_address,
    }
