"""Attempts that go through the CLI: a conversation runs in a worker's session."""

from __future__ import annotations

import secrets
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.answer_limits import AnswerLimits
from gemproxy.chat.errors import SERVER_ERROR, ChatError
from gemproxy.gemini.attempt import AttemptFailed, Choice, check_reply, silent
from gemproxy.gemini.cli.gateway import Gateway
from gemproxy.gemini.cli.marks import Marks
from gemproxy.gemini.cli.prompt_turn import PromptTurn
from gemproxy.gemini.cli.worker import CallFailed, Death, WorkerDied
from gemproxy.gemini.cli.worker_pool import WorkerPool
from gemproxy.gemini.translate.errors import AttemptFailure, cli_failure, too_long, transient
from gemproxy.gemini.translate.reply import Reply
from gemproxy.util.idle_timeout import IdleTimeout


@frozen
class CliAttempts:
    """
    @ivar timeout: seconds without data after which an attempt is cancelled.
    @ivar limits: for what is kept of an answer until its end.
    """

    clock: IReactorTime
    pool: WorkerPool
    gateway: Gateway
    timeout: float
    limits: AnswerLimits = AnswerLimits()

    async def run(self, choice: Choice, key: str) -> Reply:
        """See L{Attempts.run}."""
        choice.answer.note("waiting for a worker")
        try:
            lease = await self.pool.acquire()
        except WorkerDied as error:
            raise AttemptFailed(transient(str(error))) from None
        except ChatError as error:
            raise AttemptFailed(AttemptFailure(error, retryable=False)) from None
        choice.answer.note("waiting for the model")
        marks = Marks(secrets.token_hex(12), choice.prepared.texts)

        def compose(asked: dict[str, Any]) -> bytes:
            marks.check(asked.get("contents"))
            return choice.prepared.body

        idle_timeout = IdleTimeout(self.clock, self.timeout)
        call = choice.call(key, self.limits, idle_timeout.reset)
        is_over = self.gateway.open(marks.nonce, call, compose)
        prompt_turn = PromptTurn(self.clock, lease.worker, lease.sessions, marks, choice.model)
        choice.flow.add(call)

        def turn_ended(result: Any) -> None:
            # Once it has asked, it makes no difference what becomes of the CLI.
            if not (call.asked or is_over.called):
                is_over.callback(result)

        prompt_turn.answer().addBoth(turn_ended)
        try:
            stop_reason = await idle_timeout.watch(is_over)
            if call.failure is None and stop_reason == "max_tokens":
                long = too_long("The conversation is too long for the model.")
                raise AttemptFailed(AttemptFailure(long, retryable=False))
            if call.failure is None and not call.asked:
                raise AttemptFailed(transient("The Gemini CLI sent no request to the Gemini API."))
            check_reply(call, choice.writer)
        except CallFailed as error:
            raise AttemptFailed(cli_failure(error.failure.message)) from None
        except WorkerDied as error:
            raise AttemptFailed(failure_of_death(choice, error)) from None
        except TimeoutError:
            raise silent(self.timeout) from None
        finally:
            choice.ended(call)
            self.gateway.close(marks.nonce)
            call.abort()
            prompt_turn.close().addCallback(lambda _: lease.release())
        return call.reply


def failure_of_death(choice: Choice, error: WorkerDied) -> AttemptFailure:
    """
    What to do about a worker that died before it asked the API: a request that may have been its
    death is not given to another one, in which there are others as well.
    """
    choice.deaths += error.death is not Death.ENDED
    if error.death is Death.CRASHED or choice.deaths > 1:
        return AttemptFailure(_deadly(), retryable=False)
    return transient(str(error))


def _deadly() -> ChatError:
    return ChatError(
        502,
        SERVER_ERROR,
        "The Gemini CLI process ended over this request, which is not tried again.",
        "upstream_error",
        final=True,
    )
