"""How the daemon ends: requests are finished first, and it can be hurried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.errors import ChatError, overloaded
from gemproxy.http.client_connections import Connections
from gemproxy.util.log import make_logger
from gemproxy.web.admission import Admission

# Seconds that an interrupted answer has to end, and a client to read what was written for it.
LAST_WORDS = 3.0


class Drain:
    """
    Ends the requests under way, and then the connections, without cutting an answer if time allows.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        admission: Admission,
        connections: Sequence[Connections],
        interrupt: Callable[[ChatError], None],
        last_words: float = LAST_WORDS,
    ) -> None:
        """
        @param interrupt: ends every request under way with an error.
        @param last_words: seconds, see L{LAST_WORDS}.
        """
        self._clock = clock
        self._admission = admission
        self._connections = connections
        self._interrupt = interrupt
        self._last_words = last_words
        self._waiting: Deferred[Any] | None = None
        self._hurried = False

    def hurry(self) -> None:
        """Stop waiting for the requests under way."""
        self._hurried = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def run(self, seconds: float) -> None:
        """
        Let requests end; end those that do not; send what was written to clients.

        @param seconds: for requests to end by themselves.
        """
        if self._admission.open:
            self.log.info(
                "waiting up to {seconds:g} s for {count} requests",
                seconds=seconds,
                count=len(self._admission.open),
            )
        deadline = self._clock.seconds() + seconds
        await self._wait_patiently(seconds, self._admission.when_empty())
        if self._admission.open:
            self._interrupt(overloaded("The proxy is stopping.", 5))
        await self._wait(self._last_words, self._admission.when_empty())
        closed = _all([connections.close() for connections in self._connections])
        left = deadline - self._clock.seconds()
        await self._wait_patiently(max(left, self._last_words), closed)
        aborted = _all([connections.abort() for connections in self._connections])
        await self._wait(self._last_words, aborted)

    async def _wait_patiently(self, seconds: float, event: Deferred[Any]) -> None:
        """Wait for an event, but only for a moment once L{hurry} was called."""
        self._waiting = event
        await self._wait(min(seconds, self._last_words) if self._hurried else seconds, event)
        self._waiting = None

    async def _wait(self, seconds: float, event: Deferred[Any]) -> None:
        """Wait for an event until it happens, is cancelled, or the time is over."""
        with suppress(defer.TimeoutError, CancelledError, FirstError):
            await event.addTimeout(seconds, self._clock)


def _all(events: Sequence[Deferred[None]]) -> Deferred[Any]:
    return gatherResults(events, consumeErrors=True)
