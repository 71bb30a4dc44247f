"""One conversation in a worker, from its file on disk to the last word of the answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from gemproxy.gemini import sessionfile
from gemproxy.gemini.marks import Marks
from gemproxy.gemini.worker import Worker, WorkerDied
from gemproxy.log import make_logger

SETUP_TIMEOUT = 60.0
CANCEL_TIMEOUT = 5.0

_T = TypeVar("_T")


class Session:
    """
    A session of a worker. It is used for one prompt and then closed, whatever came of it.
    """

    log = make_logger()

    def __init__(
        self,
        reactor: IReactorTime,
        worker: Worker,
        marks: Marks,
        model: str,
        text: Callable[[str], None],
    ) -> None:
        """@param text: called with each piece of the answer."""
        self.id = str(uuid.uuid4())
        self._reactor = reactor
        self._worker = worker
        self._marks = marks
        self._model = model
        self._text = text
        self._echoes = len(marks.turns)
        self._echoed: Deferred[None] = Deferred()
        self._closed = False
        self._under_way: Deferred[Any] | None = None
        self._prompting = False

    async def answer(self) -> str:
        """
        Have the conversation answered; returns ACP's stop reason.

        @raise CallFailed: the CLI refused something.
        @raise WorkerDied: the process ended before the answer did.
        """
        await self._uninterrupted(Deferred.fromCoroutine(self._set_up()))
        self._prompting = True
        result = await self._uninterrupted(
            self._worker.call(
                "session/prompt",
                {
                    "sessionId": self.id,
                    "prompt": [{"type": "text", "text": self._marks.prompt}],
                },
            )
        )
        self._prompting = False
        return str(result.get("stopReason"))

    def close(self) -> Deferred[None]:
        """
        Stop whatever the CLI still does with the session and remove every trace of it; fires when
        the worker is free of it.
        """
        self._closed = True
        gone = Deferred.fromCoroutine(self._let_go())
        return gone.addErrback(lambda failure: self.log.failure("session not closed", failure))

    async def _set_up(self) -> None:
        worker = self._worker
        # Two at a time have been seen to wait for each other for good.
        await worker.setup.acquire()
        overdue = self._reactor.callLater(
            SETUP_TIMEOUT, worker.give_up, "a session could not be set up in time"
        )
        try:
            if self._closed:
                return
            turns = self._marks.marked()
            try:
                sessionfile.write(worker.home.chats, self.id, turns)
            except OSError as error:
                worker.give_up(f"its home cannot be used: {error}")
                raise WorkerDied("The Gemini CLI was not given its session.") from None
            worker.listen(self.id, self._updated, self._no_more_echoes)
            await worker.call(
                "session/load",
                {"sessionId": self.id, "cwd": str(worker.home.cwd), "mcpServers": []},
            )
            await worker.call("session/set_model", {"sessionId": self.id, "modelId": self._model})
            # The CLI repeats the conversation to its client. What comes later is the answer.
            if self._echoes:
                await self._echoed
        finally:
            worker.setup.release()
            if overdue.active():
                overdue.cancel()

    def _updated(self, update: dict[str, Any]) -> bool:
        kind = update.get("sessionUpdate")
        if kind not in ("agent_message_chunk", "user_message_chunk"):
            return False
        if self._echoes:
            self._echoes -= 1
            if not self._echoes:
                self._no_more_echoes()
            return True
        content = update.get("content")
        text = content.get("text") if isinstance(content, dict) else None
        if kind != "agent_message_chunk" or not isinstance(text, str) or self._closed:
            return False
        self._text(text)
        return True

    def _no_more_echoes(self) -> None:
        self._echoes = 0
        if not self._echoed.called:
            self._echoed.callback(None)

    def _uninterrupted(self, work: Deferred[_T]) -> Deferred[_T]:
        """Wait for the worker; cancelling the wait leaves the work alone, for close() to end."""
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
        worker = self._worker
        if self._under_way is not None and not self._under_way.called:
            if self._prompting:
                overdue = self._reactor.callLater(
                    CANCEL_TIMEOUT, worker.give_up, "it did not stop an answer when told to"
                )
                worker.notify("session/cancel", {"sessionId": self.id})
                await self._under_way
                if overdue.active():
                    overdue.cancel()
            else:
                # A set-up has a time limit of its own.
                await self._under_way
        worker.unlisten(self.id)
        sessionfile.delete(worker.home.chats, self.id)
        sessionfile.delete_reports(worker.home.temp)
