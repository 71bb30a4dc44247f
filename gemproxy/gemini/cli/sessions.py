"""The sessions of a worker: which ones wait for conversations, and which conversations for one."""

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
    Keeps sessions for the next conversations, one of them at least: to open one takes the CLI
    longer than everything else that it does for a short answer.

    @ivar count: how many are open, in use or not.

    They are opened one by one. The CLI locks a file for it, and who finds that locked waits ever
    longer, some for good.
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
        Have the first one.

        @raise CallFailed: the CLI refused.
        @raise WorkerDied: the process ended, or was given up.
        """
        session = await Session.open(self._reactor, self._worker)
        self.count += 1
        self._rest(session)

    def acquire(self, model: str) -> Deferred[Session]:
        """
        One that asks this model, if possible; in any case one.

        @return: fails with CallFailed or WorkerDied.
        """
        session: Deferred[Session] = Deferred()
        if self._resting:
            session.callback(self._resting.pop(self._best(model)))
        else:
            self._waiting.append(session)
            self._open_more()
        return session

    def release(self, session: Session) -> None:
        """A conversation is over."""
        if session.is_sound and not session.is_worn:
            self._rest(session)
            return
        self.count -= 1
        session.forget()
        if self._worker.usable:
            self._open_more()

    def _best(self, model: str) -> int:
        """The place of the one that rested last, of those with this model if there are any."""
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
        # Whoever needs one will meet with the same.
        if failure.check(CallFailed, WorkerDied) is None:
            self.log.failure("opening a session failed", failure)
