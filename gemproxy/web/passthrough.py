"""Requests that are passed through to the upstream as they are, and its responses likewise."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any, cast
from urllib.parse import unquote_to_bytes as unquote

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer, IResponse
from twisted.web.server import Request

from gemproxy.backend import Forwarder
from gemproxy.chat.errors import ChatError, bad_request, upstream_failed, upstream_silent
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.sse import Event, encode
from gemproxy.metrics import Metrics
from gemproxy.silence import Silence
from gemproxy.web.answers import send_error
from gemproxy.web.site import headers_of

_READ_SIZE = 64 * 1024

# Twisted frames the body anew, and says who it is by itself.
_NOT_PASSED = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"server", b"date"})


@frozen(eq=False)
class Passthrough:
    """@ivar timeout: seconds of silence of the upstream after which a request is given up."""

    clock: IReactorTime
    upstream: Forwarder
    timeout: float
    metrics: Metrics
    _under_way: set[_ResponseRelay] = field(factory=set)

    async def serve(self, request: Request) -> None:
        """
        Answer a request with whatever the upstream answers.

        @raise CancelledError: the client has gone.
        """
        silence = Silence(self.clock, self.timeout)
        relay = _ResponseRelay(request, silence.broken)
        self._under_way.add(relay)
        try:
            work = Deferred.fromCoroutine(self._relay(request, relay))
            relay.end_early = work.cancel
            await silence.limit(work)
        except CancelledError:
            relay.abort()
            if relay.interruption is None:
                raise
            relay.fail(relay.interruption)
        except TimeoutError:
            relay.abort()
            relay.fail(upstream_silent(self.timeout))
        except ChatError as error:
            relay.fail(error)
        finally:
            self._under_way.discard(relay)
            self.metrics.passed(request.code)

    def interrupt_all(self, error: ChatError) -> None:
        """End all responses that are under way."""
        for relay in list(self._under_way):
            relay.interruption = error
            relay.end_early()

    async def _relay(self, request: Request, relay: _ResponseRelay) -> None:
        response = await self.upstream.forward(
            request.method, _target(request), headers_of(request), self._body(request)
        )
        await relay.deliver(response)

    def _body(self, request: Request) -> IBodyProducer | None:
        file = cast("IO[bytes]", request.content)
        if not file.seek(0, 2):
            return None
        file.seek(0)
        cooperator = Cooperator(scheduler=lambda step: self.clock.callLater(0, step))
        return cast("IBodyProducer", FileBodyProducer(file, cooperator, _READ_SIZE))


def _target(request: Request) -> bytes:
    """
    The tidied path, and the query as it came.

    @raise ChatError: the path leads out of the API, to where the upstream's key has no business.
    """
    if any(unquote(segment) in (b".", b"..") for segment in request.path.split(b"/")):
        raise bad_request("The path must not have '.' or '..' in it.")
    query = request.uri.partition(b"?")[2]
    return request.path + (b"?" + query if query else b"")


class _ResponseRelay(Protocol):
    """
    Hands a response on as it comes, at the client's pace.

    @ivar interruption: why the response was ended from outside, if it was.
    @ivar end_early: to be set to what makes the upstream stop.
    """

    def __init__(self, request: Request, heard: Callable[[], None]) -> None:
        self.interruption: ChatError | None = None
        self.end_early: Callable[[], None] = lambda: None
        self._request = request
        self._heard = heard
        self._done: Deferred[None] = Deferred()
        self._begun = False
        self._is_events = False

    async def deliver(self, response: IResponse) -> None:
        """@raise ChatError: the response was cut off."""
        self._heard()
        self._begin(response)
        response.deliverBody(self)
        await self._done

    def _begin(self, response: IResponse) -> None:
        self._begun = True
        self._request.setResponseCode(response.code, response.phrase)
        for name, values in response.headers.getAllRawHeaders():
            if name.lower() not in _NOT_PASSED:
                self._request.responseHeaders.setRawHeaders(name, values)
        length: Any = response.length
        if isinstance(length, int):
            self._request.setHeader(b"content-length", str(length).encode())
        kind = (response.headers.getRawHeaders(b"content-type") or [b""])[0]
        self._is_events = kind.lower().startswith(b"text/event-stream")

    def connectionMade(self) -> None:
        if self._request.channel is not None:
            self._request.registerProducer(cast("IPushProducer", self.transport), True)

    def dataReceived(self, data: bytes) -> None:
        self._heard()
        self._request.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._request.channel is not None:
            self._request.unregisterProducer()
        if self._done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self._done.callback(None)
        else:
            cut = upstream_failed("The upstream broke off in the middle of its answer.")
            self._done.errback(Failure(cut))

    def abort(self) -> None:
        if self.transport is not None:
            cast("IPushProducer", self.transport).stopProducing()

    def fail(self, error: ChatError) -> None:
        """Say what is wrong in the way that is still open."""
        if not self._begun:
            send_error(self._request, error)
        elif self._request.channel is None:
            pass
        elif self._is_events:
            self._request.write(encode(Event(dumps(error.payload()))))
        else:
            # There is no other way to tell a client that this is not the whole of it.
            self._request.channel.loseConnection()
