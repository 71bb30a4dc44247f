"""One request for an answer of a model, and its reply as it is received."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from gemproxy.chat.answer_limits import answer_too_large
from gemproxy.chat.errors import ChatError
from gemproxy.chat.sse import EventTooLarge
from gemproxy.gemini.translate.errors import AttemptFailure, midway_failure
from gemproxy.gemini.translate.reply import News, Reply, Thought


class ApiCall:
    """
    One request to the API and its reply.

    @ivar model: the model to be asked.
    @ivar key: the API key.
    @ivar reply: the reply received so far.
    @ivar failure: the reason why the reply is missing or incomplete; None if no error is known.
    @ivar asked: whether the request was sent, or refused for good.
    @ivar aborted: whether the call was aborted.
    @ivar is_aborting: whether what it waits for is being cancelled by that, and by nobody else.
    """

    def __init__(
        self,
        model: str,
        key: str,
        heard: Callable[[], None],
        thought: Callable[[Thought], None],
        text: Callable[[str], None],
        reply: Reply,
    ) -> None:
        """
        @param heard: called whenever the API has sent data.
        @param thought: called with each thought of the model.
        @param text: called with each piece of the answer.
        @param reply: takes the reply.
        """
        self.model = model
        self.key = key
        self.reply = reply
        self.failure: AttemptFailure | None = None
        self.asked = False
        self.aborted = self.is_aborting = False
        self._heard = heard
        self._thought = thought
        self._text = text
        self._awaited: Deferred[Any] | None = None
        self._source: IPushProducer | None = None
        self._valves: list[_Valve] = []

    # Called by the client of the API:

    def waiting(self, awaited: Deferred[Any]) -> None:
        """There is no reply yet: the response, or the body of an error, is waited for."""
        self.asked = True
        if self._source is None:
            self._awaited = awaited
        if self.aborted:
            self._cancel(awaited)

    def flowing(self, source: IPushProducer) -> None:
        """The reply comes from a source, which this call may pause."""
        self._awaited = None
        self._source = source
        if self.aborted:
            source.stopProducing()
        elif self._held_up:
            source.pauseProducing()

    def received(self, data: bytes) -> None:
        """Process bytes of the reply. One that is too large is ended."""
        if self.aborted:
            return
        try:
            news = self.reply.feed(data)
        except EventTooLarge as error:
            self._fail(answer_too_large(f"has {error}"))
        except ChatError as error:
            self._fail(error)
        else:
            self._heard()
            self._tell(news)

    def ended(self, failure: AttemptFailure | None) -> None:
        """Process the end of the reply."""
        self._awaited = self._source = None
        if not self.aborted:
            self._tell_rest()
        if self.failure is None and self.reply.error is not None:
            self.failure = midway_failure(self.reply.error)
        if self.failure is None:
            self.failure = failure
        self._heard()

    def _tell_rest(self) -> None:
        try:
            news = self.reply.close()
        except ChatError as error:
            self._fail(error)
        else:
            self._tell(news)

    def _tell(self, news: News) -> None:
        for thought in news.thoughts:
            self._thought(thought)
        if text := "".join(news.texts):
            self._text(text)

    def _fail(self, error: ChatError) -> None:
        """End the reply, which cannot be used."""
        self.failure = AttemptFailure(error, retryable=False)
        self.abort()

    # Called by whoever wants the reply:

    def abort(self) -> None:
        """Close the connection to the API at any stage."""
        self.aborted = True
        if self._awaited is not None:
            self._cancel(self._awaited)
        if self._source is not None:
            self._source.stopProducing()

    def _cancel(self, awaited: Deferred[Any]) -> None:
        self.is_aborting = True
        try:
            awaited.cancel()
        finally:
            self.is_aborting = False

    def valve(self) -> IPushProducer:
        """Create a producer with which one more consumer can pause the reply."""
        valve = _Valve(self)
        self._valves.append(valve)
        return valve

    @property
    def _held_up(self) -> bool:
        return any(valve.closed for valve in self._valves)

    def turned(self, valve: _Valve, closed: bool) -> None:
        """A consumer has paused or resumed."""
        was_held_up = self._held_up
        valve.closed = closed
        if self._source is None or self._held_up == was_held_up:
            return
        if closed:
            self._source.pauseProducing()
        else:
            self._source.resumeProducing()


@implementer(IPushProducer)
class _Valve:
    """
    Pauses a reply on behalf of one consumer; the reply flows while no consumer pauses it. A
    transport pauses its producer at each write while its buffer is full, but resumes it only once.
    """

    def __init__(self, api_call: ApiCall) -> None:
        self.closed = False
        self._api_call = api_call

    def pauseProducing(self) -> None:
        self._api_call.turned(self, True)

    def resumeProducing(self) -> None:
        self._api_call.turned(self, False)

    def stopProducing(self) -> None:
        self._api_call.abort()
