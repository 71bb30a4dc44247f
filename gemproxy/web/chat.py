"""One chat completion, from the client's request to the end of its response."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from gemproxy.backend import COMMITS_IN, Backend
from gemproxy.chat.answer_limits import AnswerLimits
from gemproxy.chat.chunks import estimated_usage, prompt_bytes
from gemproxy.chat.errors import SERVER_ERROR, ChatError
from gemproxy.chat.form import CHAT_FORM, AnswerForm
from gemproxy.chat.images import ImagesRequest
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.chat.stopfilter import StopTagFilter
from gemproxy.dialects.dialect import Translation
from gemproxy.exchange import Exchange
from gemproxy.journal import Journal
from gemproxy.metrics import Metrics
from gemproxy.tracing.tracer import NO_TRACER, Tracer, with_parent
from gemproxy.usage.meter import Meter
from gemproxy.usage.row import CLIENT_GONE
from gemproxy.util.log import make_logger
from gemproxy.util.log_limit import LogLimit
from gemproxy.util.masking import NO_KEYS, Masking
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.heartbeat_timer import HeartbeatTimer
from gemproxy.web.images import ImagesRelay
from gemproxy.web.reader import BodyReader
from gemproxy.web.relay import DocumentRelay, EventStreamRelay, Heartbeats, RelayState
from gemproxy.web.together import Together
from gemproxy.web.under_way import UnderWay

_SECONDS = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,3})?")


@frozen(eq=False)
class ChatService:
    """
    Answers requests by means of backends.

    @ivar own_keys: of this daemon, which are masked in log and journal as the clients' are.
    @ivar stop_tags: the texts that end an answer.
    @ivar reader: of the bodies of requests.
    @ivar limits: for answers that are collected.
    @ivar log_limit: for the lines of requests that an upstream refused because of their key; None
        for no limit.
    @ivar under_way: told of each answer.
    @ivar meter: learns of each request that ended.
    @ivar tracer: begins its trace.
    """

    log = make_logger()

    clock: IReactorTime
    heartbeats: Heartbeats
    journal: Journal
    metrics: Metrics
    reader: BodyReader
    own_keys: Masking = NO_KEYS
    stop_tags: Sequence[str] = ()
    limits: AnswerLimits = AnswerLimits()
    log_limit: LogLimit | None = None
    under_way: UnderWay = field(factory=UnderWay)
    meter: Meter = field(factory=Meter)
    tracer: Tracer = NO_TRACER
    _heartbeat_timer: HeartbeatTimer = field(init=False)

    @_heartbeat_timer.default
    def _make_heartbeat_timer(self) -> HeartbeatTimer:
        return HeartbeatTimer(self.clock, self.heartbeats.interval)

    def answer(
        self, request: ProxyRequest, chat: ChatRequest, backend: Backend, route: str
    ) -> Coroutine[Deferred[Any], Any, None]:
        """
        Answer one request, well or with an error.

        @param route: the name of the way the request takes, for the journal.
        @raise CancelledError: the client has disconnected.
        """
        stop_filter = StopTagFilter(self.stop_tags, chat.choices)
        kind = self._kind(chat, CHAT_FORM)
        return self._answer(request, chat, chat.raw, backend, route, stop_filter, kind)

    def answer_in(
        self,
        request: ProxyRequest,
        translation: Translation,
        sent: bytes,
        backend: Backend,
        route: str,
    ) -> Coroutine[Deferred[Any], Any, None]:
        """
        The same in another dialect.

        @param sent: the body that the client sent.
        """
        chat, *others = translation.chats
        if others:
            backend = Together(backend, translation.chats)
        choices = sum(chat.choices for chat in translation.chats)
        stop_filter = StopTagFilter(self.stop_tags, choices)
        stop_filter.add_tags(translation.stops, named=True)
        kind = self._kind(chat, translation.form)
        return self._answer(request, chat, sent, backend, route, stop_filter, kind, others)

    def answer_images(
        self, request: ProxyRequest, images: ImagesRequest, backend: Backend, route: str
    ) -> Coroutine[Deferred[Any], Any, None]:
        """
        The same for a request for pictures. There are no stop tags: a word of the model's before
        its picture must not cost the picture.
        """
        kind = partial(ImagesRelay, images.as_urls, self.limits, form=CHAT_FORM)
        stop_filter = StopTagFilter((), images.chat.choices)
        return self._answer(request, images.chat, images.raw, backend, route, stop_filter, kind)

    async def _answer(
        self,
        request: ProxyRequest,
        chat: ChatRequest,
        sent: bytes,
        backend: Backend,
        route: str,
        stop_filter: StopTagFilter,
        kind: Callable[..., EventStreamRelay | DocumentRelay],
        others: Sequence[ChatRequest] = (),
    ) -> None:
        """
        @param sent: the body that the client sent.
        @param others: what the backend asks besides.
        """
        keys = self.own_keys.with_keys(request.credentials.secrets())
        account = None if request.account is None else request.account.name
        exchange = self.journal.begin(
            request.id, route, chat.model, chat.stream, sent, keys, account
        )
        exchange.path = request.path.decode("utf-8", "replace")
        request.is_logged = request.is_counted = True
        if (trace := self.tracer.begin(chat.headers, exchange.time)) is not None:
            chat.headers = with_parent(chat.headers, trace.parent)
        heartbeats = self.heartbeats
        if (seconds := _commits_in(chat.headers)) is not None:
            heartbeats = evolve(heartbeats, stream_delay=seconds)
        relay = kind(
            request,
            self.clock,
            heartbeats,
            stop_filter,
            exchange,
            chat,
            self.metrics,
        )
        self.under_way.add(exchange.id, relay)
        self._heartbeat_timer.add(relay)
        try:
            error = await self._outcome(backend, chat, relay)
            if error is None:
                error = relay.finish()
            if error is not None:
                error = error.masked(keys.in_errors().in_bytes)
                exchange.error, exchange.status = str(error), error.status
                relay.fail(error)
        except CancelledError:
            exchange.error, exchange.status = "the client disconnected", CLIENT_GONE
            self.metrics.aborted.inc()
            raise
        finally:
            relay.close()
            self._heartbeat_timer.remove(relay)
            self.under_way.remove(exchange.id)
            self._close(exchange, chat, others)
            if trace is not None:
                trace.end(exchange)
            # Whoever else still refers to it shall not keep it in memory.
            chat.release()

    def _kind(
        self, chat: ChatRequest, form: AnswerForm
    ) -> Callable[..., EventStreamRelay | DocumentRelay]:
        if chat.stream:
            return partial(EventStreamRelay, self.limits, form=form)
        return partial(DocumentRelay, self.limits, form=form)

    async def _outcome(
        self, backend: Backend, chat: ChatRequest, relay: EventStreamRelay | DocumentRelay
    ) -> ChatError | None:
        """Have a backend answer; returns what went wrong, if anything did."""
        try:
            work = backend.complete(chat, relay)
            relay.end_early = work.cancel
            await work
        except CancelledError:
            if relay.state is RelayState.INTERRUPTED:
                return relay.interruption
            if relay.state is RelayState.OPEN:
                raise
            self.metrics.aborted.inc()
        except ChatError as error:
            if relay.state is not RelayState.STOP_TAG:
                return error
        except Exception:
            self.log.failure("a request failed because of an error in gemproxy")
            return ChatError(
                500,
                SERVER_ERROR,
                "gemproxy failed because of an internal error. Its log has the details.",
            )
        return None

    def _close(self, exchange: Exchange, chat: ChatRequest, others: Sequence[ChatRequest]) -> None:
        exchange.duration = self.clock.seconds() - exchange.began
        self.metrics.answered(
            exchange.route,
            exchange.model,
            exchange.status,
            exchange.first_token,
            exchange.duration,
        )
        guess = None
        if exchange.usage is None and exchange.account is not None and exchange.text_length:
            # Whoever goes before the end, or does not ask for the usage, is charged all the same.
            length = sum(prompt_bytes(one.prompt_length, one.raw) for one in (chat, *others))
            guess = estimated_usage(length, exchange.text_length)
        self.meter.ended(exchange, guess)
        if exchange.status != 401 or self.log_limit is None or self.log_limit.allows(401):
            self.log.info("{line}", line=exchange.summary())
        self.journal.end(exchange)


def _commits_in(headers: Headers) -> float | None:
    """In how many seconds another gemproxy, which is the client, commits its status."""
    for name, value in headers:
        if name.lower() == COMMITS_IN and _SECONDS.fullmatch(value):
            return float(value)
    return None
