"""
The relay of an answer to a client: as server-sent events, or collected into one document.

Both know the client's connection and nothing of the backend: they write what arrives, send
heartbeats while nothing does, and end the body properly whatever happens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from gemproxy.backend import Commitment
from gemproxy.chat.answer_limits import AnswerLimits, AnswerMeter
from gemproxy.chat.chunks import Usage, estimated_tokens, estimated_usage
from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.errors import ChatError, upstream_failed
from gemproxy.chat.form import AnswerForm
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.chat.sse import DONE, Event
from gemproxy.chat.stopfilter import StopTagFilter
from gemproxy.exchange import Exchange
from gemproxy.metrics import Metrics
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.responses import send_error, send_json
from gemproxy.web.under_way import Progress, facts_of

# The names come from the client and are sent in a header.
_PARAMETER = re.compile(r"[A-Za-z0-9_.-]{1,100}")
# Clients take only so many bytes of headers.
_IGNORED_LIMIT = 1000

# A heartbeat is due after this share of the interval, since the timer and the network take time.
_MARGIN = 0.9


@frozen
class Heartbeats:
    """
    @ivar interval: the longest silence towards a client, in seconds; None for no heartbeats.
    @ivar json_delay: seconds after which a client that does not stream gets its first; None for
        never. From then on its status is 200, so errors come as a body only.
    @ivar early: whether there are any before the first data of the answer.
    @ivar stream_delay: seconds after which a client that streams gets its first; None for no delay.
        It is another gemproxy, which commits its status then.
    """

    interval: float | None
    json_delay: float | None
    early: bool = True
    stream_delay: float | None = None


class RelayState(Enum):
    """
    Whether an answer is being relayed, and what ended it if not its backend.

    @cvar OPEN: it is being relayed.
    @cvar STOP_TAG: a stop tag ended it; what the backend still sends is dropped.
    @cvar INTERRUPTED: the daemon ended it, with an error.
    """

    OPEN = "open"
    STOP_TAG = "stop tag"
    INTERRUPTED = "interrupted"


@implementer(IPushProducer)
class _Paced:
    """
    Passes the pauses of the client's connection on to a producer.

    @ivar paused: the client reads more slowly than the answer comes.
    """

    def __init__(self, producer: IPushProducer) -> None:
        self.paused = False
        self._producer = producer

    def pauseProducing(self) -> None:
        self.paused = True
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self._producer.stopProducing()


def _listed(parameters: Iterable[str]) -> str:
    """Names of parameters in some _IGNORED_LIMIT bytes; dots stand for those that do not fit."""
    listed, room = [], _IGNORED_LIMIT
    for name in filter(_PARAMETER.fullmatch, dict.fromkeys(parameters)):
        room -= len(name) + 2
        if room < 0:
            listed.append("...")
            break
        listed.append(name)
    return ", ".join(listed)


class _Relay:
    """
    What both kinds have in common: stop tags, heartbeats and backpressure.

    @ivar state: what ended the answer early, if anything did.
    @ivar interruption: the error of an interrupted answer.
    @ivar end_early: stops the backend; set by the owner of the relay.
    """

    def __init__(
        self,
        request: ProxyRequest,
        clock: IReactorTime,
        heartbeats: Heartbeats,
        stop_filter: StopTagFilter,
        exchange: Exchange,
        chat: ChatRequest,
        metrics: Metrics,
        *,
        form: AnswerForm,
    ) -> None:
        """@param form: the shape in which the client wants the answer."""
        self.state = RelayState.OPEN
        self.interruption: ChatError | None = None
        self.end_early: Callable[[], None] = lambda: None
        self._request = request
        self._clock = clock
        self._heartbeats = heartbeats
        self._filter = stop_filter
        self._exchange = exchange
        self._chat = chat
        self._metrics = metrics
        self._form = form
        self._begun = clock.seconds()
        self._last_sent = self._begun
        self._note = "waiting"
        self._note_ends: float | None = None
        # Of the text when it was noted: what is noted later than that is the news.
        self._noted_at = 0
        self._usage: Usage | None = None
        self._committed = False
        self._has_data = False
        self._paced: _Paced | None = None
        self._fault: ChatError | None = None
        self.ignored(())

    # Called by the backend:

    def events(self, events: Sequence[Event]) -> None:
        if not self._filter.passes(events):
            events = self._before_a_tag(events)
        if events:
            self._has_data = True
            self._pass_on(events)

    def document(self, document: dict[str, Any], events: Sequence[Event]) -> None:
        if isinstance(document.get("usage"), dict):
            # Known even if a tag cuts the answer.
            self._exchange.usage = document["usage"]
        self.events(events)

    def _before_a_tag(self, events: Sequence[Event]) -> list[Event]:
        if self.state is RelayState.STOP_TAG:
            return []
        passed: list[Event] = []
        for event in events:
            passed += self._filter.feed(event)
            if self._filter.ended:
                self.state = RelayState.STOP_TAG
                self._metrics.stop_tags.inc()
                # Not at once: the backend is calling this method.
                self._clock.callLater(0, self.end_early)
                break
        return passed

    def take_back(self, choice: int) -> bool:
        return False

    def stop_at(self, sequences: Sequence[str]) -> None:
        self._filter.add_tags(sequences)

    def counted(self, usage: Usage) -> None:
        self._usage = usage
        self._exchange.count(usage)

    def ignored(self, parameters: Sequence[str]) -> None:
        parameters = (*self._form.ignored, *parameters)
        if not parameters or self._request.channel is None:
            return
        if names := _listed(parameters):
            self._request.setHeader(b"x-gemproxy-ignored", names.encode())

    def asking(self, upstream: str, model: str) -> None:
        self._exchange.upstream, self._exchange.model = upstream, model

    def passed_on(self, headers: Headers, upstream_request: str | None) -> None:
        self._exchange.upstream_request = upstream_request
        if self._request.channel is None or self._committed:
            return
        for name, value in headers:
            self._request.setHeader(name, value)

    def note(self, text: str, seconds: float | None = None) -> None:
        self._note = text
        self._note_ends = None if seconds is None else self._clock.seconds() + seconds
        self._noted_at = self._exchange.text_length

    def retrying(self, error: ChatError) -> None:
        self._exchange.retries += 1
        self._metrics.retried(error.code or str(error.status))

    def commitment(self) -> Commitment | None:
        due = self._heartbeat_due()
        if self._committed or due is None:
            return None
        return Commitment(due - self._begun, self._clock.seconds() - self._begun)

    def look(self) -> None:
        """Send a heartbeat, if it is time for one."""
        due = self._heartbeat_due()
        if due is None or due > self._clock.seconds():
            return
        if self._paced is not None and self._paced.paused:
            # The client has enough unread data.
            self._last_sent = self._clock.seconds()
        else:
            self._send_heartbeat()

    def pace(self, producer: IPushProducer | None) -> None:
        if self._request.channel is None:
            return
        if self._paced is not None:
            self._request.unregisterProducer()
            self._paced = None
        if producer is not None:
            self._paced = _Paced(producer)
            self._request.registerProducer(self._paced, True)

    # Called by the owner:

    def finish(self) -> ChatError | None:
        """The answer is complete. Returns why it is none that the client can use, if so."""
        if self._fault is not None:
            return self._fault
        rest = self._filter.flush()
        if self.state is RelayState.STOP_TAG and (
            self._chat.include_usage or not self._chat.stream
        ):
            rest.append(Event(dumps(self._usage_after_stop())))
        if rest:
            self._pass_on(rest)
        self._end()
        return None

    def fail(self, error: ChatError) -> None:
        """There will be no answer, or no more of it."""
        raise NotImplementedError

    def interrupt(self, error: ChatError) -> None:
        """End the answer now, with an error."""
        if self.state is RelayState.OPEN:
            self.state, self.interruption = RelayState.INTERRUPTED, error
        self.end_early()

    def close(self) -> None:
        """The answer has ended, or the client has disconnected."""
        self.pace(None)

    @property
    def began(self) -> float:
        return self._begun

    def facts(self) -> dict[str, Any]:
        exchange = self._exchange
        return facts_of(self._request, exchange.id, exchange.route, exchange.model, exchange.stream)

    def progress(self) -> Progress:
        exchange = self._exchange
        length = exchange.text_length
        tokens = (exchange.usage or {}).get("completion_tokens")
        if not isinstance(tokens, int):
            tokens = estimated_tokens(length)
        words = self._in_words(length)
        return Progress(
            words, exchange.upstream, exchange.retries, tokens, self._request.sentLength
        )

    def _in_words(self, length: int) -> str:
        if self.state is not RelayState.OPEN:
            return "ending"
        if length <= self._noted_at:
            return self._activity
        if self._paced is not None and self._paced.paused:
            return "the client reads slowly"
        return "streaming" if self._exchange.stream else "receiving"

    @property
    def _activity(self) -> str:
        """What the backend does, with the seconds that it still takes."""
        if self._note_ends is None or (left := self._note_ends - self._clock.seconds()) <= 0:
            return self._note
        return f"{self._note} in {max(1, round(left))} s"

    def _usage_after_stop(self) -> dict[str, Any]:
        """The usage chunk of an answer that was ended before the backend reported its usage."""
        usage = self._exchange.usage
        if self._usage is not None:
            usage = self._usage.as_json()
        elif usage is None:
            length = self._exchange.text_length
            usage = estimated_usage(self._chat.prompt_length, length).as_json()
            self._exchange.usage = usage
        return self._filter.frame | {"choices": [], "usage": usage}

    def _pass_on(self, events: Sequence[Event]) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        self._last_sent = self._clock.seconds()
        if self._request.channel is not None:
            self._request.write(data)

    def _heartbeat_due(self) -> float | None:
        """When the next heartbeat is due if nothing else happens; None for never."""
        interval = self._heartbeats.interval
        if interval is None or not (self._heartbeats.early or self._has_data):
            return None
        return self._last_sent + interval * _MARGIN

    def _send_heartbeat(self) -> None:
        raise NotImplementedError

    def _give_up(self, fault: ChatError) -> None:
        """The rest of the answer is of no use."""
        self._fault = fault
        if self.state is RelayState.OPEN:
            self.state, self.interruption = RelayState.INTERRUPTED, fault
            # Not at once: the backend is calling.
            self._clock.callLater(0, self.end_early)


class EventStreamRelay(_Relay):
    """
    Relays an answer as the server-sent events that the client requested; within limits, if they
    have to be kept.
    """

    def __init__(self, limits: AnswerLimits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._meter = AnswerMeter(limits) if self._form.keeps_all else None

    def fail(self, error: ChatError) -> None:
        if self._committed:
            if rest := self._filter.flush():
                self._pass_on(rest)
            # SillyTavern hangs forever on a truncated body: send the error, and end the body.
            self._send(self._form.failure(error))
        else:
            send_error(self._request, error, self._form)

    def commitment(self) -> Commitment | None:
        # An error is an event, for which it is never too late, unless another gemproxy makes a
        # document of the stream.
        return None if self._heartbeats.stream_delay is None else super().commitment()

    def _heartbeat_due(self) -> float | None:
        due = super()._heartbeat_due()
        if due is None or self._committed:
            return due
        return max(due, self._begun + (self._heartbeats.stream_delay or 0.0))

    def _pass_on(self, events: Sequence[Event]) -> None:
        if self._fault is not None:
            return
        now = self._clock.seconds()
        for event in events:
            if event.text is not None:
                self._exchange.add_text(event.text, now)
            else:
                self._record(event, now)
        try:
            if self._meter is not None:
                self._meter.add(b"".join(event.data for event in events))
        except ChatError as too_large:
            self._give_up(too_large)
        else:
            # Some forms leave out what their dialect has no place for. It is no sign of life.
            if data := self._form.events(events):
                self._commit()
                self._send(data)

    def _record(self, event: Event, now: float) -> None:
        try:
            chunk = event.json()
        except ValueError:
            # Passed on as it is, whatever it may be.
            return
        self._exchange.add(chunk, now)

    def _end(self) -> None:
        self._commit()
        self._send(self._form.end())

    def _commit(self) -> None:
        if not self._committed:
            self._committed = True
            self._request.setHeader(b"content-type", self._form.stream_type)
            self._request.setHeader(b"cache-control", b"no-cache")
            self._request.setHeader(b"x-accel-buffering", b"no")

    def _send_heartbeat(self) -> None:
        self._commit()
        self._metrics.heartbeats.inc()
        self._send(self._form.heartbeat(self._activity))


class DocumentRelay(_Relay):
    """Collects an answer into the one document that the client requested, within limits."""

    def __init__(self, limits: AnswerLimits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._collector = CompletionCollector(limits)
        self._document: dict[str, Any] | None = None

    def fail(self, error: ChatError) -> None:
        if self._committed:
            self._send(dumps(self._form.failed_document(error)))
        else:
            send_error(self._request, error, self._form)

    def document(self, document: dict[str, Any], events: Sequence[Event]) -> None:
        self._document = document
        super().document(document, events)

    def _before_a_tag(self, events: Sequence[Event]) -> list[Event]:
        passed = super()._before_a_tag(events)
        if [*map(id, passed)] != [*map(id, events)]:
            # A document is the backend's own only as long as nothing is cut off.
            self._document = None
        return passed

    def take_back(self, choice: int) -> bool:
        if not self._filter.discard(choice):
            return False
        self._collector.discard(choice)
        self._exchange.discard(choice)
        return True

    def pace(self, producer: IPushProducer | None) -> None:
        """Nothing is sent until the end, so there is nothing to pause for."""

    def _pass_on(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._fault is not None:
                return
            if event.data == DONE:
                continue
            try:
                chunk = event.exact_json()
                self._collector.add_parsed(chunk, event.data)
            except ValueError:
                # There would be a hole in the document.
                self._give_up(
                    upstream_failed("The upstream sent an event that is not a JSON object.")
                )
            except ChatError as too_large:
                self._give_up(too_large)
            else:
                self._exchange.add(chunk, self._clock.seconds())

    def _end(self) -> None:
        own = self._document
        completion = self._collector.completion() if own is None else own
        self._deliver(self._form.document(completion))

    def _deliver(self, document: Any) -> None:
        if self._committed:
            self._send(dumps(document))
        else:
            send_json(self._request, document)

    def _heartbeat_due(self) -> float | None:
        due, delay = super()._heartbeat_due(), self._heartbeats.json_delay
        return None if due is None or delay is None else max(due, self._begun + delay)

    def _send_heartbeat(self) -> None:
        if not self._committed:
            self._committed = True
            self._request.setHeader(b"content-type", b"application/json")
        self._metrics.heartbeats.inc()
        self._send(b"\n")
