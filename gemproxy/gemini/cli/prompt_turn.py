"""One conversation in a worker, from acquiring a session to the end of the response."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from gemproxy.gemini.cli import records
from gemproxy.gemini.cli.marks import Marks
from gemproxy.gemini.cli.session import Session
from gemproxy.gemini.cli.sessions import Sessions
from gemproxy.gemini.cli.worker import Worker
from gemproxy.util.deadline import deadline

_T = TypeVar("_T")


class PromptTurn:
    """
    A single conversation in a worker, until the CLI has come to its end. It must be closed,
    whatever its outcome.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        worker: Worker,
        sessions: Sessions,
        marks: Marks,
        model: str,
    ) -> None:
        """@param sessions: the worker's sessions."""
        self._reactor = reactor
        self._worker = worker
        self._sessions = sessions
        self._marks = marks
        self._model = model
        self._session: Session | None = None
        self._is_closed = False
        self._over: Deferred[None] = Deferred()

    def answer(self) -> Deferred[str | None]:
        """
        Run the conversation. Fires with ACP's stop reason, or None if it was closed before it
        began; fails with

         - L{CallFailed}: the CLI reported an error.
         - L{WorkerDied}: the process ended before the response was complete.

        It cannot be cancelled, but closed.
        """
        return Deferred.fromCoroutine(self._run()).addBoth(self._ended)

    def close(self) -> Deferred[None]:
        """
        End the conversation if it has not ended; fires when the session is released. What the CLI
        asks of the API must be refused by then.
        """
        self._is_closed = True
        return Deferred.fromCoroutine(self._until_over())

    async def _run(self) -> str | None:
        session = self._session = await self._sessions.acquire(self._model)
        try:
            await session.use(self._model)
            return None if self._is_closed else await session.answer(self._marks)
        finally:
            self._sessions.release(session)
            if not session.is_sound:
                records.delete_reports(self._worker.home.temp)

    def _ended(self, result: _T) -> _T:
        self._over.callback(None)
        return result

    async def _until_over(self) -> None:
        over, session = self._over, self._session
        # Setting up a session has its own time limit.
        if session is None or not session.is_answering:
            await over
            return
        reactor, give_up = self._reactor, self._worker.give_up
        limits = self._worker.limits
        reason = "it did not stop a response after session/cancel"
        with (
            deadline(reactor, limits.cancel_grace, session.cancel),
            deadline(reactor, limits.cancel_grace + limits.cancel_timeout, give_up, reason),
        ):
            await over
