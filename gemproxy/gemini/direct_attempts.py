"""Attempts that go to Google at once, without the CLI."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.answer_limits import AnswerLimits
from gemproxy.gemini.api.client import GeminiApi
from gemproxy.gemini.attempt import Choice, check_reply, silent
from gemproxy.gemini.translate.reply import Reply
from gemproxy.util.idle_timeout import IdleTimeout


@frozen
class DirectAttempts:
    """
    @ivar timeout: seconds without data after which an attempt is cancelled.
    @ivar limits: for what is kept of an answer until its end.
    """

    clock: IReactorTime
    api: GeminiApi
    timeout: float
    limits: AnswerLimits = AnswerLimits()

    async def run(self, choice: Choice, key: str) -> Reply:
        """See L{Attempts.run}."""
        choice.answer.note("waiting for the model")
        idle_timeout = IdleTimeout(self.clock, self.timeout)
        call = choice.call(key, self.limits, idle_timeout.reset)
        choice.flow.add(call)
        try:
            await idle_timeout.watch(self.api.answer(call, choice.prepared.body))
            check_reply(call, choice.writer)
        except TimeoutError:
            raise silent(self.timeout) from None
        finally:
            choice.ended(call)
            call.abort()
        return call.reply
