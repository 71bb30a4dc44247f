"""A session of a worker: opened once, and used for one conversation after another."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

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

    The text of earlier conversations has no marks of the current one, and is never sent to the API.

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
        self._text: Callable[[str], None] | None = None
        self._prompts = 0
        self._parts = 0
        self._characters = 0

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
        if not isinstance(id, str) or not _ID.fullmatch(id) or worker.listens(id):
            worker.give_up("it returned an invalid session id")
            raise WorkerDied("The Gemini CLI did not open a session.")
        worker.opened += 1
        try:
            records.keep_off_disk(worker.home.chats, id)
        except OSError as error:
            worker.give_up(f"its home directory cannot be used: {error}")
            raise WorkerDied(
                "The home directory of the Gemini CLI process cannot be used."
            ) from None
        session = cls(reactor, worker, id)
        worker.listen(id, session._updated)
        return session

    @property
    def is_worn(self) -> bool:
        """Whether the session has been used so often that it should be replaced."""
        limits = self._worker.limits
        return (
            self._prompts >= limits.prompts_per_session
            or self._parts >= limits.parts_per_session
            or self._characters >= limits.characters_per_session
        )

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

    async def answer(self, marks: Marks, text: Callable[[str], None]) -> str:
        """
        Prompt the session with a conversation; returns ACP's stop reason.

        @param text: called with each piece of the response, until L{silence} is called.
        @raise CallFailed: the CLI reported an error.
        @raise WorkerDied: the process ended before the response was complete.
        """
        blocks = [{"type": "text", "text": text} for text in marks.prompt]
        self._text = text
        self._prompts += 1
        self._parts += len(blocks)
        self._characters += sum(len(block["text"]) for block in blocks)
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
        return stop_reason

    def cancel(self) -> None:
        """Cancel the prompt; L{answer} then fails or returns soon."""
        self._worker.notify("session/cancel", {"sessionId": self.id})

    def silence(self) -> None:
        """Stop passing on the text of the response."""
        self._text = None

    def forget(self) -> None:
        """Stop using the session. ACP has no call to close it."""
        self._worker.unlisten(self.id)

    def _updated(self, update: dict[str, Any]) -> bool:
        if update.get("sessionUpdate") != "agent_message_chunk" or self._text is None:
            return False
        content = update.get("content")
        text = content.get("text") if isinstance(content, dict) else None
        if not isinstance(text, str):
            return False
        self._characters += len(text)
        self._text(text)
        return True


def _check_home(worker: Worker) -> None:
    """@raise WorkerDied: the home directory was removed."""
    if not worker.home.is_whole:
        worker.give_up("its home directory was removed")
        raise WorkerDied("The home directory of the Gemini CLI process was removed.")
