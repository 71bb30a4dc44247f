"""Requests that are passed through to the upstream as they are, and its responses likewise."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

from attrs import evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import NO_BODY_CODES, SWITCHING, PotentialDataLoss
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from gemproxy.backend import Forwarder
from gemproxy.chat.chunks import Usage, estimated_usage, prompt_bytes
from gemproxy.chat.errors import ChatError, upstream_failed, upstream_silent
from gemproxy.chat.sse import Event, encode
from gemproxy.dialects.registry import error_form_at
from gemproxy.http.body import BytesBody, read_beginning
from gemproxy.http.headers import without
from gemproxy.metrics import Metrics
from gemproxy.usage.meter import Meter
from gemproxy.usage.row import CLIENT_GONE
from gemproxy.usage.scan import UsageScanner
from gemproxy.util.idle_timeout import IdleTimeout
from gemproxy.util.masked_stream import ErrorEventMask, NoMask, StreamMask, TextMask
from gemproxy.util.masking import NO_KEYS, Masking
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.completions import StopTagCutter
from gemproxy.web.responses import send_error
from gemproxy.web.site import headers_of
from gemproxy.web.tunnel import WebSocketTunnel
from gemproxy.web.under_way import Progress, UnderWay, facts_of
from gemproxy.web.upload import Upload

# Twisted sends its own. The HTTP client has removed what is about its connection.
_NOT_PASSED = frozenset({b"server", b"date"})

# What a server says to a path that it does not have.
_UNSERVED = (404, 405, 501)
# New-API's 500 where a channel does not have the path: relay/channel/*/adaptor.go
_NOT_IMPLEMENTED = re.compile(rb"not[ _]implemented|convert_request_failed", re.I)
_ERRORS_FROM = 400
_ERROR_LIMIT = 64 * 1024
# Seconds to wait for the body of an error.
_ERROR_PATIENCE = 5.0


@frozen
class Destination:
    """
    Whom requests are passed on to.

    @ivar name: that of the upstream; C{gemini} for Gemini.
    """

    name: str
    forwarder: Forwarder


@frozen(eq=False)
class Passthrough:
    """
    @ivar upstream: the upstream for requests that are for no other.
    @ivar timeout: seconds of silence of the upstream after which a request fails.
    @ivar own_keys: of this daemon, which an upstream may quote.
    @ivar under_way: told of each response.
    @ivar meter: learns of each request that ended.
    """

    clock: IReactorTime
    upstream: Callable[[], Destination]
    timeout: float
    metrics: Metrics
    own_keys: Masking = NO_KEYS
    under_way: UnderWay = field(factory=UnderWay)
    meter: Meter = field(factory=Meter)

    async def serve(
        self,
        request: ProxyRequest,
        raw: bytes = b"",
        destination: Destination | None = None,
        cutter: StopTagCutter | None = None,
        may_be_unserved: bool = False,
        path: bytes | None = None,
        model: str | None = None,
    ) -> bool:
        """
        Answer a request with whatever the upstream answers.

        @param raw: the body, unless it is still arriving.
        @param destination: the upstream, if not the usual one.
        @param cutter: what ends the response at a stop tag; None to pass it on as it is.
        @param may_be_unserved: whether to leave the request unanswered if the upstream does not
            serve such requests.
        @param path: what to ask for, if not for the path of the request.
        @param model: what the request is for; None if it names none.
        @return: whether it was answered.
        @raise CancelledError: the client has disconnected.
        """
        is_answered = True
        idle_timeout = IdleTimeout(self.clock, self.timeout)
        destination = destination or self.upstream()
        forwarder = destination.forwarder
        relay = _ResponseRelay(
            request, self.clock, destination.name, model, idle_timeout, self.own_keys, cutter
        )
        if request.account is not None and model is not None and request.method == b"POST":
            relay.prompt_length = prompt_bytes(len(raw), raw)
        self.under_way.add(request.id, relay)
        target = _target(request, path)
        asking = self._relay(request, relay, idle_timeout, raw, forwarder, may_be_unserved, target)
        # Release the memory while the response is received.
        del raw
        try:
            work = Deferred.fromCoroutine(asking)
            relay.end_early = work.cancel
            is_answered = await idle_timeout.watch(work)
        except CancelledError:
            relay.abort()
            if relay.interruption is None:
                relay.is_left = True
                raise
            relay.fail(relay.interruption)
        except TimeoutError:
            relay.abort()
            relay.fail(upstream_silent(self.timeout))
        except ChatError as error:
            relay.fail(error)
        finally:
            if cutter is not None and cutter.ended:
                self.metrics.stop_tags.inc()
            self.under_way.remove(request.id)
            if is_answered:
                self.metrics.passed(request.code)
                self._count(request, relay)
        return is_answered

    def _count(self, request: ProxyRequest, relay: _ResponseRelay) -> None:
        request.is_counted = True
        # What was answered before, and is only shown, has been counted.
        is_new = request.method == b"POST"
        usage = relay.scanner.usage() if relay.scanner is not None and is_new else None
        self.meter.count(
            id=request.id,
            account=None if request.account is None else request.account.name,
            model=relay.model or "",
            upstream=relay.upstream,
            status=CLIENT_GONE if relay.is_left else request.code,
            usage=usage,
            guess=relay.guess(usage),
            first_token=relay.first_data if request.code < _ERRORS_FROM else None,
            duration=self.clock.seconds() - relay.began,
        )

    async def _relay(
        self,
        request: ProxyRequest,
        relay: _ResponseRelay,
        idle_timeout: IdleTimeout,
        raw: bytes,
        forwarder: Forwarder,
        may_be_unserved: bool,
        target: bytes,
    ) -> bool:
        body: IBodyProducer | None = BytesBody(raw) if raw else None
        if isinstance(request.content, Upload):
            body = request.content
            body.watch(idle_timeout)
        headers = headers_of(request)
        is_counted = relay.model is not None or request.account is not None
        if relay.cutter is not None or (is_counted and request.method == b"POST"):
            # What is compressed cannot be searched for stop tags and token counts.
            identity = (b"Accept-Encoding", b"identity")
            headers = (*without(headers, b"accept-encoding"), identity)
        asked = forwarder.forward(request.method, target, headers, body)
        del body, raw
        response = await asked
        del asked
        if response.code == SWITCHING:
            # An open WebSocket may be silent for as long as it likes.
            idle_timeout.pause()
            await relay.tunnel(response)
            return True
        if may_be_unserved and _may_say_unserved(response):
            body_read = await read_beginning(response, _ERROR_LIMIT, self.clock, _ERROR_PATIENCE)
            if _says_unserved(response.code, body_read):
                return False
            relay.deliver_read(response, body_read)
        else:
            await relay.deliver(response)
        return True


def _target(request: ProxyRequest, path: bytes | None) -> bytes:
    """The tidied path, or another, and the query as it came."""
    query = request.uri.partition(b"?")[2]
    return (path or request.path) + (b"?" + query if query else b"")


@implementer(IPushProducer)
class _ResponseRelay(Protocol):
    """
    Hands a response on as it comes, at the client's pace.

    @ivar began: see L{Running}.
    @ivar model: see L{Passthrough.serve}.
    @ivar interruption: the error with which the daemon ended the response, if it did.
    @ivar end_early: stops the upstream's response.
    @ivar cutter: what ends the response at a stop tag; None if nothing does.
    @ivar is_left: the client has disconnected.
    @ivar first_data: seconds until the first data of the response; None if there are none yet.
    @ivar scanner: finds the token counts; None if there are none in such a response.
    @ivar prompt_length: bytes of the request that somebody is charged for; None if nobody is.
    """

    def __init__(
        self,
        request: ProxyRequest,
        clock: IReactorTime,
        upstream: str,
        model: str | None,
        idle_timeout: IdleTimeout,
        own_keys: Masking,
        cutter: StopTagCutter | None,
    ) -> None:
        self.began = clock.seconds()
        self._clock = clock
        self.upstream = upstream
        self.model = model
        self.is_left = False
        self.first_data: float | None = None
        self.scanner: UsageScanner | None = None
        self.prompt_length: int | None = None
        self.interruption: ChatError | None = None
        self.cutter = cutter
        self.end_early: Callable[[], None] = lambda: None
        self._request = request
        self._idle_timeout = idle_timeout
        self._own_keys = own_keys
        # Of the client, which may go before it is to be masked.
        self._shown = request.credentials.secrets()
        self._mask: StreamMask = NoMask()
        self._tunnel: WebSocketTunnel | None = None
        self._done: Deferred[None] = Deferred()
        self._begun = False
        self._is_events = False
        self._is_complete = False
        self._is_producing = False
        self._is_paused = False

    def facts(self) -> dict[str, Any]:
        return facts_of(self._request, self._request.id, "passed", self.model, None)

    def progress(self) -> Progress:
        return Progress(self._in_words(), self.upstream, 0, None, self._request.sentLength)

    def _in_words(self) -> str:
        if self.interruption is not None:
            return "ending"
        if self._tunnel is not None:
            return "an open WebSocket"
        if not self._begun:
            return "waiting for the upstream"
        if self._is_paused:
            return "the client reads slowly"
        return "streaming" if self._is_events else "receiving"

    def interrupt(self, error: ChatError) -> None:
        """End the response now."""
        self.interruption = error
        self.end_early()

    def guess(self, usage: Usage | None) -> Usage | None:
        """
        What an answer in events has taken that was not counted to its end: its client may have
        gone, or may not have asked for the counts. None if it was, or if nobody is charged.

        @param usage: as far as it is known.
        """
        if self.prompt_length is None or self.scanner is None or not self._is_events:
            return None
        if usage is not None and self._is_complete:
            return None
        guess = estimated_usage(self.prompt_length, self.scanner.text_length())
        if usage is None:
            return guess
        return evolve(usage, completion=max(usage.completion, guess.completion))

    async def tunnel(self, response: IResponse) -> None:
        """Let client and upstream speak another protocol until one of them goes."""
        if self._request.channel is None:
            raise CancelledError
        tunnel = self._tunnel = WebSocketTunnel(self._request)
        self._begun = True
        self._pass_head(response)
        self._request.setHeader(b"connection", b"Upgrade")
        self._request.setHeader(b"upgrade", b"websocket")
        self._request.switch_protocols(self._own_keys.in_bytes(response.phrase))
        response.deliverBody(tunnel)
        self._request.take_over(tunnel.receive)
        await tunnel.done

    async def deliver(self, response: IResponse) -> None:
        """@raise ChatError: the response was cut off."""
        # The response has begun: the rest of the upload is not waited for.
        self._idle_timeout.resume()
        self._begin(response)
        response.deliverBody(self)
        await self._done
        self._is_complete = True

    def deliver_read(self, response: IResponse, body: bytes) -> None:
        """Deliver a response whose body has been read already."""
        self._begin(response)
        self._write(self._mask.feed(body) + self._mask.close())

    def _begin(self, response: IResponse) -> None:
        self._begun = True
        masking = self._pass_head(response)
        kind = (response.headers.getRawHeaders(b"content-type") or [b""])[0]
        self._is_events = kind.lower().startswith(b"text/event-stream")
        if response.headers.hasHeader(b"content-encoding"):
            # What is compressed cannot be searched.
            pass
        elif response.code >= _ERRORS_FROM and _is_text(kind):
            self._mask = TextMask(masking)
        elif self._is_events:
            self._mask = ErrorEventMask(self._own_keys.in_errors(self._shown))
            self.scanner = UsageScanner()
        elif b"json" in kind.lower():
            self.scanner = UsageScanner()
        if self.cutter is not None:
            self._begin_cutting(response)
        length: Any = response.length
        # An error event may be added to a stream of events.
        has_body = self._request.method != b"HEAD" and response.code not in NO_BODY_CODES
        if isinstance(length, int) and has_body and not self._is_events and self.cutter is None:
            self._request.setHeader(b"content-length", str(length).encode())

    def _begin_cutting(self, response: IResponse) -> None:
        encoded = response.headers.getRawHeaders(b"content-encoding") or [b"identity"]
        if response.code == 200 and encoded[0].lower() == b"identity":
            assert self.cutter is not None  # noqa: S101 - for mypy
            self.cutter.begin(self._is_events)
        else:
            self.cutter = None

    def _pass_head(self, response: IResponse) -> Masking:
        """Pass on status and headers; returns what masks them, and the body if it is an error."""
        masking = self._own_keys
        if response.code >= _ERRORS_FROM:
            masking = masking.in_errors(self._shown)
        mask = masking.in_bytes
        self._request.setResponseCode(response.code, mask(response.phrase))
        for name, values in response.headers.getAllRawHeaders():
            if _is_passed(name.lower()):
                self._request.responseHeaders.setRawHeaders(name, [*map(mask, values)])
        return masking

    @property
    def _upstream(self) -> IPushProducer:
        return cast("IPushProducer", self.transport)

    def connectionMade(self) -> None:
        if self._request.channel is not None:
            self._is_producing = True
            self._request.registerProducer(self, True)

    def pauseProducing(self) -> None:
        self._is_paused = True
        self._idle_timeout.pause()
        self._upstream.pauseProducing()

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._idle_timeout.resume()
        self._upstream.resumeProducing()

    def stopProducing(self) -> None:
        self._upstream.stopProducing()

    def dataReceived(self, data: bytes) -> None:
        self._idle_timeout.reset()
        if not self._is_producing:
            return
        if self.first_data is None:
            self.first_data = self._clock.seconds() - self.began
        if self.scanner is not None:
            self.scanner.feed(data)
        if self.cutter is None:
            self._write(self._mask.feed(data))
            return
        try:
            self._write(self.cutter.feed(self._mask.feed(data)))
        except ChatError as too_large:
            self._leave_client()
            self._done.errback(Failure(too_large))
            self._upstream.stopProducing()
            return
        if self.cutter.ended:
            self._leave_client()
            self._upstream.stopProducing()
            self._done.callback(None)

    def _write(self, data: bytes) -> None:
        if data:
            self._request.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            if self._is_producing:
                self._write(self._rest(reason))
        except ChatError as too_large:
            reason = Failure(too_large)
        self._leave_client()
        if self._done.called:
            return
        if reason.check(ChatError):
            self._done.errback(reason)
        elif reason.check(ResponseDone, PotentialDataLoss):
            self._done.callback(None)
        else:
            cut = upstream_failed(
                "The upstream closed the connection before the response was complete."
            )
            self._done.errback(Failure(cut))

    def _rest(self, reason: Failure) -> bytes:
        """@raise ChatError: see L{StopTagCutter.close}."""
        rest = self._mask.close()
        if self.cutter is not None and reason.check(ResponseDone, PotentialDataLoss):
            return self.cutter.feed(rest) + self.cutter.close()
        return rest

    def abort(self) -> None:
        self._leave_client()
        if self.transport is not None:
            self._upstream.stopProducing()

    def fail(self, error: ChatError) -> None:
        """Report an error in the way that is still possible."""
        error = error.masked(self._own_keys.in_errors(self._shown).in_bytes)
        if not self._begun:
            send_error(self._request, error)
        elif self._request.channel is None or self._tunnel is not None:
            # There is no place for an error in a WebSocket that others speak.
            pass
        elif self._is_events:
            # The last event may have been cut in the middle.
            told = error_form_at(self._request.path).error(error)
            self._request.write(b"\n\n" + encode(Event(told.body, told.event)))
        elif self.cutter is not None and not self._request.startedWriting:
            # Nothing of the document has been passed on.
            send_error(self._request, error)
        else:
            self._request.leave_unfinished()

    def _leave_client(self) -> None:
        if self._is_producing:
            self._is_producing = False
            if self._request.channel is not None:
                self._request.unregisterProducer()


def _may_say_unserved(response: IResponse) -> bool:
    length: Any = response.length
    is_small = isinstance(length, int) and length <= _ERROR_LIMIT
    return response.code in _UNSERVED or (response.code == 500 and is_small)


def _says_unserved(status: int, body: bytes) -> bool:
    return status in _UNSERVED or _NOT_IMPLEMENTED.search(body) is not None


def _is_text(content_type: bytes) -> bool:
    """Whether a body is words, as far as its type says; without a type it is."""
    kind = content_type.lower() or b"text/plain"
    return kind.startswith(b"text/") or b"json" in kind or b"xml" in kind


def _is_passed(name: bytes) -> bool:
    # The CORS headers of this response are gemproxy's own.
    return name not in _NOT_PASSED and not name.startswith(b"access-control-")
