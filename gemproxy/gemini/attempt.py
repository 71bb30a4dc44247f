"""What an attempt at one choice is, whatever way it takes to the API, and when it has failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define

from gemproxy.backend import Answer
from gemproxy.chat.answer_limits import AnswerLimits
from gemproxy.chat.chunks import Usage
from gemproxy.chat.errors import upstream_silent
from gemproxy.gemini.api.call import ApiCall
from gemproxy.gemini.flow import Flow
from gemproxy.gemini.prepare import RELEASED, Prepared
from gemproxy.gemini.translate.errors import AttemptFailure, transient
from gemproxy.gemini.translate.outcomes import explanation, is_certain, is_malformed
from gemproxy.gemini.translate.reply import Reply, Thought
from gemproxy.gemini.writer import ChoiceWriter


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
    @ivar deaths: how many processes that were killed or crashed have had it.
    """

    model: str
    prepared: Prepared
    answer: Answer
    writer: ChoiceWriter
    flow: Flow
    tally: Tally
    deaths: int = 0

    def call(self, key: str, limits: AnswerLimits, heard: Callable[[], None]) -> ApiCall:
        """
        One call of the API for this choice.

        @param key: the API key.
        @param limits: for what is kept of the reply until its end.
        @param heard: called whenever the API has sent data.
        """
        writer, is_native = self.writer, self.prepared.is_native
        return ApiCall(
            self.model,
            key,
            heard,
            _nothing if is_native else writer.thought,
            _nothing if is_native else writer.content,
            Reply(limits, writer.native if is_native else None),
        )

    def ended(self, call: ApiCall) -> None:
        """A call for this choice is over, however it ended: what it took counts."""
        self.flow.remove(call)
        self.tally.count(self, call.reply.usage)

    def release(self) -> None:
        """Release the request, which whoever still refers to it shall not keep in memory."""
        self.prepared = RELEASED


class Tally:
    """
    Sums the token counts of the choices of one request.

    @ivar total: None if there are none.
    """

    def __init__(self, answer: Answer) -> None:
        self.total: Usage | None = None
        self._answer = answer
        self._usages: dict[Choice, Usage] = {}

    def count(self, choice: Choice, usage: Usage | None) -> None:
        """@param usage: the counts of the choice's last attempt; None if there are none."""
        if usage is not None and usage != self._usages.get(choice):
            self._usages[choice] = usage
            first, *others = self._usages.values()
            self.total = sum(others, first)
            self._answer.counted(self.total)


class Attempts(Protocol):
    """A way to have the API answer."""

    async def run(self, choice: Choice, key: str) -> Reply:
        """
        @param key: the API key for the request.
        @raise AttemptFailed: the attempt failed; all of its resources are released.
        """


def check_reply(call: ApiCall, writer: ChoiceWriter) -> None:
    """@raise AttemptFailed: the reply is missing, malformed or incomplete."""
    reply = call.reply
    if call.failure is not None:
        raise AttemptFailed(call.failure)
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


def silent(seconds: float) -> AttemptFailed:
    """@param seconds: for which there was no data."""
    return AttemptFailed(AttemptFailure(upstream_silent(seconds), retryable=False))


def _nothing(said: Thought | str) -> None:
    """Responses that are passed on as they are have thoughts and texts in them."""
