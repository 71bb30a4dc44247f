"""A session of a worker: opened once, and prompted with one conversation after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from gemproxy.gemini.cli import records
from gemproxy.gemini.cli.marks import Marks
from gemproxy.gemini.cli.worker import Worker, WorkerDied
from gemproxy.util.deadline import deadline

# Seconds for what takes no model to answer.
SETUP_TIMEOUT = 60.0
_SLOW = "setting up a session took too long"

# The CLI sends the whole of a session with each prompt. Up to here that costs less than another
# session would.
PROMPTS_PER_LIFE = 50
PARTS_PER_LIFE = 1000
CHARACTERS_PER_LIFE = 500_000

# The name is the CLI's, and becomes part of that of a file.
_ID = re.compile(r"[0-9A-Za-z]{8}[0-9A-Za-z-]{,100}")


class Session:
    """
    A session of a worker, for one conversation at a time.

    What an earlier conversation left in it has no marks that count, and never leaves the machine.

    @ivar id: the CLI's name of it.
    @ivar model: the model that it asks.
    @ivar is_answering: whether it is at work.
    @ivar is_sound: whether all that was asked of it came to a regular end.
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
        @raise CallFailed: the CLI refused.
        @raise WorkerDied: the process ended, or was given up.
        """
        _check_home(worker)
        with deadline(reactor, SETUP_TIMEOUT, worker.give_up, _SLOW):
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
        """Whether what it has been told already makes it a burden."""
        return (
            self._prompts >= PROMPTS_PER_LIFE
            or self._parts >= PARTS_PER_LIFE
            or self._characters >= CHARACTERS_PER_LIFE
        )

    async def use(self, model: str) -> None:
        """
        Have it ask this model.

        @raise CallFailed: the CLI refused.
        @raise WorkerDied: the process ended, or was given up.
        """
        _check_home(self._worker)
        if model != self.model:
            self.is_sound = False
            params = {"sessionId": self.id, "modelId": model}
            with deadline(self._reactor, SETUP_TIMEOUT, self._worker.give_up, _SLOW):
                await self._worker.call("session/set_model", params)
            self.is_sound = True
            self.model = model

    async def answer(self, marks: Marks, text: Callable[[str], None]) -> str:
        """
        Have a conversation answered; returns ACP's stop reason.

        @param text: called with each piece of the answer, until L{silence} is.
        @raise CallFailed: the CLI refused.
        @raise WorkerDied: the process ended before the answer did.
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
        """Have it stop answering; the answer then fails or ends soon."""
        self._worker.notify("session/cancel", {"sessionId": self.id})

    def silence(self) -> None:
        """Nobody listens any more to what it says."""
        self._text = None

    def forget(self) -> None:
        """It is not used any more. The CLI has no way to be told so."""
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
    """@raise WorkerDied: it has none any more."""
    if not worker.home.is_whole:
        worker.give_up("its home directory was removed")
        raise WorkerDied("The home directory of the Gemini CLI process was removed.")
