"""A backend that repeats requests where that is safe, and lets a failing upstream rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from gemproxy.backend import Answer, Backend, Commitment, PassingAnswer
from gemproxy.backoff import RetryPolicy
from gemproxy.chat.errors import ChatError, Unanswered
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.chat.sse import Event
from gemproxy.routing.rest import Rest
from gemproxy.routing.table import Target
from gemproxy.util.log import make_logger

_QUICK_RETRIES = 2
_QUICK_BASE = 0.25


class Watched(PassingAnswer):
    """
    An answer that knows whether it has begun.

    @ivar begun: whether the client may have seen something of it.
    @ivar headers: those of the request, for as long as it may be repeated.
    """

    __slots__ = ("_begins", "begun", "headers")

    def __init__(
        self, answer: Answer, headers: Headers, begins: Callable[[], None] = lambda: None
    ) -> None:
        """@param begins: called when it begins."""
        super().__init__(answer)
        self.begun = False
        self.headers = headers
        self._begins = begins

    def events(self, events: Sequence[Event]) -> None:
        if not self.begun:
            self._begin()
        self._answer.events(events)

    def _begin(self) -> None:
        self.begun = True
        self.headers = ()
        self._begins()

    def document(self, document: dict[str, Any], events: Sequence[Event]) -> None:
        self._begin()
        self._answer.document(document, events)


def is_worth_another(error: ChatError) -> bool:
    """Whether another upstream may do what this one did not."""
    return error.status == 429 or error.status >= 500


@frozen
class RepeatingBackend:
    """
    Repeats a request of which nothing has gone out: one that was not answered, or answered 502 or
    503 with C{Retry-After}.

    @ivar policy: for what an upstream answers.
    @ivar repeats_429: whether 429 is repeated too, since there is nobody else to ask.
    """

    log = make_logger()

    clock: IReactorTime
    backend: Backend
    rest: Rest
    policy: RetryPolicy
    repeats_429: bool = True

    def models(self, headers: Headers) -> Deferred[list[dict[str, Any]]]:
        return self.backend.models(headers)

    def complete(self, request: ChatRequest, answer: Answer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._complete(request, answer))

    async def _complete(self, request: ChatRequest, answer: Answer) -> None:
        # An upstream that begins to answer is back, however long the answer takes.
        watched = Watched(answer, request.headers, self.rest.succeeded)
        answer.asking(self.rest.name, request.model)
        retried = 0
        while True:
            await self.rest.check()
            try:
                await self.backend.complete(request, watched)
            except ChatError as error:
                self._note(error)
                if watched.begun:
                    raise
                delay = self._delay(error, retried, answer.commitment())
                if delay is None:
                    raise
                answer.retrying(error)
                answer.note(f"retry {retried + 1} of {self.policy.retries}", delay)
                self.log.info("{name}: {error}; again", name=self.rest.name, error=error)
            except BaseException:
                self.rest.abandoned()
                raise
            else:
                self.rest.succeeded()
                return
            retried += 1
            await deferLater(self.clock, delay)
            # The request has forgotten its headers, to save memory.
            request.headers = watched.headers

    def _note(self, error: ChatError) -> None:
        # What it answers for one model says nothing of the others.
        if isinstance(error, Unanswered):
            self.rest.failed(error)
        else:
            self.rest.succeeded()

    def _delay(self, error: ChatError, retried: int, commitment: Commitment | None) -> float | None:
        if isinstance(error, Unanswered):
            # Whoever listens there will do so soon, or not for a long time.
            quick = evolve(
                self.policy,
                retries=min(self.policy.retries, _QUICK_RETRIES),
                base=min(self.policy.base, _QUICK_BASE),
            )
            return quick.delay(True, None, retried, commitment)
        asked = _retry_after(error)
        may = (error.status in (502, 503) and asked is not None) or (
            error.status == 429 and self.repeats_429 and not error.final
        )
        return self.policy.delay(may, asked, retried, commitment)


def _retry_after(error: ChatError) -> float | None:
    """Seconds that the upstream asks to wait."""
    if error.retry_after is not None:
        return error.retry_after
    headers = error.verbatim.headers if error.verbatim is not None else ()
    for name, value in headers:
        if name.lower() == "retry-after" and value.isdecimal():
            return float(value)
    return None


@frozen
class FallbackBackend:
    """
    Asks one backend after the other, until one does not refuse.

    @ivar members: each with the target that it is: its name, and that under which it knows the
        model.
    """

    log = make_logger()

    members: Sequence[tuple[Target, Backend]]

    def models(self, headers: Headers) -> Deferred[list[dict[str, Any]]]:
        raise NotImplementedError

    def complete(self, request: ChatRequest, answer: Answer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._complete(request, answer))

    async def _complete(self, request: ChatRequest, answer: Answer) -> None:
        watched = Watched(answer, request.headers)
        for position, (target, backend) in enumerate(self.members, 1):
            request.headers, request.model = watched.headers, target.model
            answer.asking(target.upstream, target.model)
            try:
                await backend.complete(request, watched)
            except ChatError as error:
                is_last = position == len(self.members)
                if is_last or watched.begun or not is_worth_another(error):
                    raise
                self.log.info("{target}: {error}; asking the next one", target=target, error=error)
                answer.retrying(error)
            else:
                return
