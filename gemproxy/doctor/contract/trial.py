"""A CLI on trial: one of its processes, and what it is asked."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gemproxy.doctor.contract.google import AskedOf, GoogleStandIn
from gemproxy.gemini.cli import records
from gemproxy.gemini.cli.marks import Marks
from gemproxy.gemini.cli.worker import CallFailed, Worker

ERROR = "an error"


class Broken(Exception):
    """A term does not hold; the message says what happened instead, in a sentence."""


def hold(condition: bool, otherwise: str) -> None:
    """@raise Broken: the condition is false."""
    if not condition:
        raise Broken(otherwise)


@define(eq=False)
class Prompt:
    """
    A conversation that the CLI was prompted with.

    @ivar outcome: ACP's stop reason, or L{ERROR}, or what else became of it; None while it goes on.
    """

    marks: Marks
    outcome: str | None = None


class Trial:
    """
    Plays both sides of the CLI.

    @ivar google: what it takes for the API.
    @ivar worker: the process.
    """

    def __init__(self, reactor: Any, make_worker: Callable[[str], Worker], model: str) -> None:
        """
        @param make_worker: makes one that asks at a URL.
        @param model: to ask for.
        """
        self.reactor = reactor
        self.model = model
        self.google = GoogleStandIn(reactor, self._look)
        self.worker = make_worker(self.google.url)
        self._waiting: list[tuple[Callable[[], Any], Deferred[None]]] = []

    async def stop(self) -> None:
        await self.google.stop()
        await self.worker.stop()

    async def open(self) -> str:
        """A new session of the model, which keeps no record."""
        home = self.worker.home
        opened = await self.worker.call("session/new", {"cwd": str(home.cwd), "mcpServers": []})
        session = str(opened.get("sessionId"))
        records.keep_off_disk(home.chats, session)
        await self.worker.call("session/set_model", {"sessionId": session, "modelId": self.model})
        return session

    def prompt(self, session: str, *texts: str) -> Prompt:
        """Prompt a session with the texts of a conversation, each behind its mark."""
        prompt = Prompt(Marks(secrets.token_hex(12), texts))
        blocks = [{"type": "text", "text": text} for text in prompt.marks.prompt]
        answering = self.worker.call("session/prompt", {"sessionId": session, "prompt": blocks})
        answering.addBoth(self._ended, prompt)
        return prompt

    def _ended(self, result: dict[str, Any] | Failure, prompt: Prompt) -> None:
        if not isinstance(result, Failure):
            prompt.outcome = str(result.get("stopReason"))
        elif result.check(CallFailed):
            prompt.outcome = ERROR
        else:
            prompt.outcome = "the death of the process"
        self._look()

    def requests_of(self, prompt: Prompt) -> Sequence[AskedOf]:
        """The requests with the last mark of a prompt."""
        last = prompt.marks.prompt[-1]
        return [asked for asked in self.google.asked if last in str(asked.contents)]

    async def request_of(self, prompt: Prompt) -> AskedOf:
        """@raise Broken: the prompt came to an end without a request."""
        await self.until(lambda: self.requests_of(prompt) or prompt.outcome)
        for asked in self.requests_of(prompt):
            return asked
        raise Broken(f"The prompt ended with {prompt.outcome}, and nothing was asked of the API.")

    async def end_of(self, prompt: Prompt) -> str:
        """
        The outcome of a prompt.

        @raise Broken: something was asked again before it.
        """
        await self.until(lambda: prompt.outcome or len(self.requests_of(prompt)) > 1)
        hold(len(self.requests_of(prompt)) < 2, "The same was asked of the API twice.")
        return str(prompt.outcome)

    async def ask(self, session: str, *texts: str) -> AskedOf:
        """A whole conversation."""
        prompt = self.prompt(session, *texts)
        asked = await self.request_of(prompt)
        asked.end()
        outcome = await self.end_of(prompt)
        hold(outcome == "end_turn", f"The prompt ended with {outcome}.")
        return asked

    def until(self, condition: Callable[[], Any]) -> Deferred[None]:
        """Wait until it holds. It is looked at when something has happened."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((condition, waiter))
        self._look()
        return waiter

    def _look(self) -> None:
        ready = [one for one in self._waiting if one[0]() or one[1].called]
        self._waiting = [one for one in self._waiting if one not in ready]
        for _, waiter in ready:
            if not waiter.called:
                waiter.callback(None)
