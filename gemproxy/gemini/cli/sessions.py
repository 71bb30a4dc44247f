"""The pool of a worker's sessions."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gemproxy.gemini.cli.session import Session
from gemproxy.gemini.cli.worker import CallFailed, Worker, WorkerDied
from gemproxy.util.log import make_logger


class Sessions:
    """
    Keeps at least one idle session for the next conversation, because opening one takes longer than
    everything else that the CLI does for a short response.

    Sessions are opened one at a time. The CLI locks a file while it opens one, and concurrent
    attempts wait ever longer for the lock, some forever.

    @ivar count: the number of open sessions, whether in use or not.
    """

    log = make_logger()

    def __init__(self, reactor: IReactorTime, worker: Worker) -> None:
        self._reactor = reactor
        self._worker = worker
        self._resting: list[Session] = []
        self._waiting: deque[Deferred[Session]] = deque()
        self._opening = False
        self.count = 0

    async def open(self) -> None:
        """
        Open the first session.

        @raise CallFailed: the CLI reported an error.
        @raise WorkerDied: the process ended or was killed.
        """
        session = await Session.open(self._reactor, self._worker)
        self.count += 1
        self._rest(session)

    def acquire(self, model: str) -> Deferred[Session]:
        """
        Wait for a session, preferably one that uses this model.

        @return: fires with the session; fails with CallFailed or WorkerDied.
        """
        session: Deferred[Session] = Deferred()
        if self._resting:
            session.callback(self._resting.pop(self._best(model)))
        else:
            self._waiting.append(session)
            self._open_more()
        return session

    def release(self, session: Session) -> None:
        """Return a session after a conversation."""
        if session.is_sound and not session.is_worn:
            self._rest(session)
            return
        self.count -= 1
        session.forget()
        if self._worker.usable:
            self._open_more()

    def _best(self, model: str) -> int:
        """The index of the session used last; of those with this model, if there are any."""
        last = len(self._resting) - 1
        for place in range(last, -1, -1):
            if self._resting[place].model == model:
                return place
        return last

    def _rest(self, session: Session) -> None:
        if self._waiting:
            self._waiting.popleft().callback(session)
        else:
            self._resting.append(session)

    def _open_more(self) -> None:
        if not self._opening and (self._waiting or not self._resting):
            self._opening = True
            opened = Deferred.fromCoroutine(self._open_while_needed())
            opened.addErrback(self._not_opened)

    async def _open_while_needed(self) -> None:
        try:
            while self._waiting or not self._resting:
                try:
                    await self.open()
                except Exception as error:
                    if not self._waiting:
                        raise
                    self._waiting.popleft().errback(error)
        finally:
            self._opening = False

    def _not_opened(self, failure: Failure) -> None:
        # CallFailed and WorkerDied are not logged: the next caller of acquire gets the same error.
        if failure.check(CallFailed, WorkerDied) is None:
            self.log.failure("opening a session failed", failure)
