"""A session of a worker: opened once, and used for one conversation after another."""

from __future__ import annotations

import re

from twisted.internet.interfaces import IReactorTime

from gemproxy.gemini.cli import records
from gemproxy.gemini.cli.marks import Marks
from gemproxy.gemini.cli.worker import Worker, WorkerDied
from gemproxy.util.deadline import deadline

_SLOW = "setting up a session took too long"


# The id is chosen by the CLI, and becomes part of a file name.
_ID = re.compile(r"[0-9A-Za-z]{8}[0-9A-Za-z-]{,100}")


class Session:
    """
    A session of a worker, for one conversation at a time.

    The CLI forgets a conversation when it has ended: its reply is empty for it. Text of another one
    would have no marks of the current one, and is never sent to the API.

    @ivar id: the id assigned by the CLI.
    @ivar model: the model that the session uses.
    @ivar is_answering: whether a prompt is being processed.
    @ivar is_sound: whether all calls for the session ended regularly.
    """

    def __init__(self, reactor: IReactorTime, worker: Worker, id: str) -> None:
        self.id = id
        self.model = ""
        self.is_answering = False
        self.is_sound = True
        self._reactor = reactor
        self._worker = worker
        self._prompts = 0

    @classmethod
    async def open(cls, reactor: IReactorTime, worker: Worker) -> Session:
        """
        @raise CallFailed: the CLI reported an error.
        @raise WorkerDied: the process ended or was killed.
        """
        _check_home(worker)
        with deadline(reactor, worker.limits.setup_timeout, worker.give_up, _SLOW):
            result = await worker.call(
                "session/new", {"cwd": str(worker.home.cwd), "mcpServers": []}
            )
        id = result.get("sessionId")
        if not isinstance(id, str) or not _ID.fullmatch(id) or not worker.open_session(id):
            worker.give_up("it returned an invalid session id")
            raise WorkerDied("The Gemini CLI did not open a session.")
        try:
            records.keep_off_disk(worker.home.chats, id)
        except OSError as error:
            worker.give_up(f"its home directory cannot be used: {error}")
            raise WorkerDied(
                "The home directory of the Gemini CLI process cannot be used."
            ) from None
        return cls(reactor, worker, id)

    @property
    def is_worn(self) -> bool:
        """Whether the session has been used so often that it should be replaced."""
        return self._prompts >= self._worker.limits.prompts_per_session

    async def use(self, model: str) -> None:
        """
        Select the model.

        @raise CallFailed: the CLI reported an error.
        @raise WorkerDied: the process ended or was killed.
        """
        _check_home(self._worker)
        if model != self.model:
            self.is_sound = False
            params = {"sessionId": self.id, "modelId": model}
            with deadline(
                self._reactor, self._worker.limits.setup_timeout, self._worker.give_up, _SLOW
            ):
                await self._worker.call("session/set_model", params)
            self.is_sound = True
            self.model = model

    async def answer(self, marks: Marks) -> str:
        """
        Prompt the session with a conversation; returns ACP's stop reason.

        @raise CallFailed: the CLI reported an error.
        @raise WorkerDied: the process ended before the response was complete.
        """
        blocks = [{"type": "text", "text": text} for text in marks.prompt]
        self._prompts += 1
        self.is_answering = True
        self.is_sound = False
        try:
            result = await self._worker.call(
                "session/prompt", {"sessionId": self.id, "prompt": blocks}
            )
        finally:
            self.is_answering = False
        stop_reason = str(result.get("stopReason"))
        self.is_sound = stop_reason == "end_turn"
        if self.is_sound:
            # The CLI clears away what is left of the prompt now, and not first thing for the next.
            self.cancel()
        return stop_reason

    def cancel(self) -> None:
        """Cancel the prompt; L{answer} then fails or returns soon, if it has not returned yet."""
        self._worker.notify("session/cancel", {"sessionId": self.id})

    def forget(self) -> None:
        """Stop using the session. ACP has no call to close it."""
        self._worker.close_session(self.id)


def _check_home(worker: Worker) -> None:
    """@raise WorkerDied: the home directory was removed."""
    if not worker.home.is_whole:
        worker.give_up("its home directory was removed")
        raise WorkerDied("The home directory of the Gemini CLI process was removed.")
