"""One conversation in a worker, from acquiring a session to the end of the response."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from gemproxy.gemini.cli import records
from gemproxy.gemini.cli.marks import Marks
from gemproxy.gemini.cli.session import Session
from gemproxy.gemini.cli.sessions import Sessions
from gemproxy.gemini.cli.worker import Worker
from gemproxy.util.deadline import deadline
from gemproxy.util.log import make_logger

_T = TypeVar("_T")


class PromptTurn:
    """
    A single conversation in a worker. It must be closed, whatever its outcome.
    """

    log = make_logger()

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
        self._under_way: Deferred[None] | None = None

    async def answer(self) -> str:
        """
        Run the conversation; returns ACP's stop reason.

        @raise CallFailed: the CLI reported an error.
        @raise WorkerDied: the process ended before the response was complete.
        """
        session = await self._uninterrupted(Deferred.fromCoroutine(self._set_up()))
        return await self._uninterrupted(Deferred.fromCoroutine(session.answer(self._marks)))

    def close(self) -> Deferred[None]:
        """
        Release the session; fires when that is done. The CLI's request to the API must be ended
        first.
        """
        gone = Deferred.fromCoroutine(self._let_go())
        return gone.addErrback(
            lambda failure: self.log.failure("closing a session failed", failure)
        )

    async def _set_up(self) -> Session:
        self._session = await self._sessions.acquire(self._model)
        await self._session.use(self._model)
        return self._session

    def _uninterrupted(self, work: Deferred[_T]) -> Deferred[_T]:
        """Wait for the worker. Cancelling the wait does not cancel the work, which close() ends."""
        waiting: Deferred[_T] = Deferred()
        over: Deferred[None] = Deferred()
        self._under_way = over

        def finished(result: Any) -> None:
            over.callback(None)
            if waiting.called:
                return
            waiting.callback(result)

        work.addBoth(finished)
        return waiting

    async def _let_go(self) -> None:
        await self._until_over()
        if self._session is not None:
            self._sessions.release(self._session)
            if not self._session.is_sound:
                records.delete_reports(self._worker.home.temp)

    async def _until_over(self) -> None:
        over, session = self._under_way, self._session
        if over is None or over.called:
            return
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
