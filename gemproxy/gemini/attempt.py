"""One attempt at one choice: runs a conversation in a worker's session and checks the result."""

from __future__ import annotations

import secrets
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from gemproxy.backend import Answer
from gemproxy.chat.answer_limits import AnswerLimits
from gemproxy.chat.chunks import Usage
from gemproxy.chat.errors import SERVER_ERROR, ChatError, upstream_silent
from gemproxy.gemini.api.call import ApiCall
from gemproxy.gemini.cli.gateway import Gateway
from gemproxy.gemini.cli.marks import Marks
from gemproxy.gemini.cli.prompt_turn import PromptTurn
from gemproxy.gemini.cli.worker import CallFailed, Death, WorkerDied
from gemproxy.gemini.cli.worker_pool import WorkerPool
from gemproxy.gemini.flow import Flow
from gemproxy.gemini.prepare import Prepared
from gemproxy.gemini.translate.errors import AttemptFailure, cli_failure, too_long, transient
from gemproxy.gemini.translate.outcomes import explanation, is_certain, is_malformed
from gemproxy.gemini.translate.reply import Reply, Thought
from gemproxy.gemini.writer import ChoiceWriter
from gemproxy.util.first_of import first_of
from gemproxy.util.idle_timeout import IdleTimeout


class AttemptFailed(Exception):
    """
    An attempt failed.

    @ivar reply: what the model answered, if that is why; None if it did not come to an end.
    """

    def __init__(self, failure: AttemptFailure, reply: Reply | None = None) -> None:
        super().__init__(str(failure.error))
        self.failure = failure
        self.reply = reply


@define(eq=False)
class Choice:
    """
    One of the choices of a response, with all that its attempts need.

    @ivar prepared: another attempt may need it in another form.
    """

    model: str
    prepared: Prepared
    answer: Answer
    writer: ChoiceWriter
    flow: Flow
    tally: Tally
    _deaths: int = 0

    def failure_of(self, error: WorkerDied, was_asked: bool) -> AttemptFailure:
        """
        What to do about a dead worker: a request that may have been its death is not given to
        another one, in which there are others as well.

        @param was_asked: whether the worker had come as far as to ask the API.
        """
        self._deaths += error.death is not Death.ENDED
        is_suspect = error.was_alone or not was_asked
        if (error.death is Death.CRASHED and is_suspect) or self._deaths > 1:
            return AttemptFailure(_deadly(), retryable=False)
        return transient(str(error))

    def release(self) -> None:
        """Release the request, which whoever still refers to it shall not keep in memory."""
        self.prepared = self.prepared.released()


class Tally:
    """Sums the token counts of the choices of one request."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._usages: dict[Choice, Usage] = {}

    def count(self, choice: Choice, usage: Usage | None) -> None:
        """@param usage: the counts of the choice's current attempt so far."""
        if usage is not None and usage != self._usages.get(choice):
            self._usages[choice] = usage
            assert self.total is not None  # noqa: S101 - for mypy
            self._answer.counted(self.total)

    @property
    def total(self) -> Usage | None:
        usages = list(self._usages.values())
        return sum(usages[1:], usages[0]) if usages else None


@frozen
class Attempts:
    """
    Runs attempts.

    @ivar timeout: seconds without data after which an attempt is cancelled.
    @ivar limits: for what is kept of an answer until its end.
    """

    clock: IReactorTime
    pool: WorkerPool
    gateway: Gateway
    timeout: float
    limits: AnswerLimits = AnswerLimits()

    async def run(self, choice: Choice, key: str) -> Reply:
        """
        @param key: the API key for the request.
        @raise AttemptFailed: the attempt failed; all of its resources are released.
        """
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

        def heard() -> None:
            idle_timeout.reset()
            choice.tally.count(choice, api_call.reply.usage)

        writer, is_native = choice.writer, choice.prepared.is_native
        api_call = ApiCall(
            choice.model,
            key,
            heard,
            _nothing if is_native else writer.thought,
            _nothing if is_native else writer.content,
            Reply(self.limits, writer.native if is_native else None),
        )
        is_over = self.gateway.open(marks.nonce, api_call, compose)
        prompt_turn = PromptTurn(self.clock, lease.worker, lease.sessions, marks, choice.model)
        choice.flow.add(api_call)
        try:
            # Once the reply is there, it makes no difference what the CLI does.
            stop_reason = await idle_timeout.watch(
                first_of(is_over, Deferred.fromCoroutine(prompt_turn.answer()))
            )
            _check(api_call, stop_reason, choice.writer)
        except CallFailed as error:
            # The error reported by the API is more precise than the CLI's.
            failed = cli_failure(error.failure.message)
            raise AttemptFailed(api_call.failure or failed) from None
        except WorkerDied as error:
            failure = api_call.failure or choice.failure_of(error, api_call.asked)
            raise AttemptFailed(failure) from None
        except TimeoutError:
            silent = AttemptFailure(upstream_silent(self.timeout), retryable=False)
            raise AttemptFailed(silent) from None
        finally:
            choice.flow.remove(api_call)
            self.gateway.close(marks.nonce)
            api_call.abort()
            prompt_turn.close().addCallback(lambda _: lease.release())
        return api_call.reply


def _deadly() -> ChatError:
    return ChatError(
        502,
        SERVER_ERROR,
        "The Gemini CLI process ended over this request, which is not tried again.",
        "upstream_error",
        final=True,
    )


def _nothing(said: Thought | str) -> None:
    """Responses that are passed on as they are have thoughts and texts in them."""


def _check(api_call: ApiCall, stop_reason: str | None, writer: ChoiceWriter) -> None:
    """
    @param stop_reason: the CLI's; None if the reply came to its end before that.
    @raise AttemptFailed: the response is missing, malformed or incomplete.
    """
    reply = api_call.reply
    if api_call.failure is not None:
        raise AttemptFailed(api_call.failure)
    if stop_reason == "max_tokens":
        raise AttemptFailed(
            AttemptFailure(too_long("The conversation is too long for the model."), retryable=False)
        )
    if not api_call.asked:
        raise AttemptFailed(transient("The Gemini CLI sent no request to the Gemini API."))
    if reply.finish_reason is None and reply.block_reason is None:
        raise AttemptFailed(transient("The Gemini API's response ended before it was complete."))
    if is_malformed(reply):
        raise AttemptFailed(
            transient(
                f"The model returned a malformed response (finish reason {reply.finish_reason})."
            ),
            reply,
        )
    is_empty = not (writer.has_content or reply.calls or reply.media)
    if is_empty and not is_certain(reply):
        raise AttemptFailed(transient(explanation(reply)), reply)
