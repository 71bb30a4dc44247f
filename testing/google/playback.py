"""Plays one play to one client: the pace, the separate writes, the faults, the backpressure."""

from __future__ import annotations

from typing import NoReturn, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from testing.google.recorded_request import Closed, ReceivedRequest
from testing.google.refusals import JSON_TYPE, Refusal
from testing.google.responses import ARRAY, Framing, Responder
from testing.google.scenarios import Fault, FaultKind, Scenario


@implementer(IPushProducer)
class Playback:
    """
    The answer to one request, on its way.

    Its coroutines wait on Deferreds that can be cancelled, and that is how they end when the
    client goes: Klein cancels the handler.
    """

    def __init__(self, clock: IReactorTime, request: Request, received: ReceivedRequest) -> None:
        self._clock = clock
        self._request = request
        self._received = received
        self._resumed: Deferred[None] | None = None
        self._cut = False
        self._lost = False
        request.notifyFinish().addCallbacks(self._finished, self._connection_lost)

    async def stream(self, play: Scenario, responder: Responder, framing: Framing) -> None:
        """A streamed answer."""
        fault = play.fault
        await self._before_headers(play)
        if play.refusal is not None:
            return self.refuse(play.refusal, in_array=framing is ARRAY)
        self._begin(200, framing.content_type)
        self._request.registerProducer(self, True)
        documents = responder.stream(play)
        for number, document in enumerate(documents):
            await self._maybe_fail(fault, number)
            if number and not play.pace:
                await self._flushed()
            await self._sleep(play.pace if number else play.first_chunk_delay)
            while self._resumed is not None:
                await self._resumed
            self._write(framing.document(number, document))
        await self._maybe_fail(fault, len(documents))
        self._request.unregisterProducer()
        self._request.write(framing.end(len(documents)))
        return None

    async def whole(self, play: Scenario, responder: Responder) -> None:
        """An answer in one document; a fault after the headers comes in the middle of it."""
        await self._before_headers(play)
        if play.refusal is not None:
            return self.refuse(play.refusal)
        document = responder.whole(play)
        self._begin(200, JSON_TYPE, len(document))
        gaps = max(0, len(play.chunks) - 1)
        await self._sleep(play.first_chunk_delay + gaps * play.pace)
        if play.fault is not None:
            self._write(document[: len(document) // 2])
            await self._fail(play.fault.kind)
        return self._write(document)

    def document(self, document: bytes) -> None:
        """An answer at once."""
        self._begin(200, JSON_TYPE, len(document))
        self._write(document)

    def refuse(self, refusal: Refusal, in_array: bool = False) -> None:
        """
        An error at once.

        @param in_array: as Google does where the answer would have been an array.
        """
        body = refusal.body
        if in_array and refusal.content_type == JSON_TYPE:
            body = b"[" + body + b"]"
        for name, value in refusal.headers.items():
            self._request.setHeader(name, value)
        self._begin(refusal.status, refusal.content_type, len(body))
        self._request.write(body)

    def cut(self, reset: bool = True) -> None:
        """Break the connection, with nothing said."""
        channel = self._request.channel
        if channel is None:
            return
        self._cut = True
        if reset:
            cast(ITCPTransport, channel.transport).abortConnection()
        else:
            channel.loseConnection()

    def over(self) -> None:
        """Nothing of it runs any more: tell those who wait for the end."""
        if self._lost:
            self._received.close(Closed.CUT if self._cut else Closed.GONE)

    def when_closed(self) -> Deferred[Closed]:
        return self._received.when_closed()

    def pauseProducing(self) -> None:
        if self._resumed is None:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """The connection is lost; Klein ends the coroutine."""

    async def _before_headers(self, play: Scenario) -> None:
        await self._sleep(play.delay)
        if play.fault is not None and play.fault.after is None:
            await self._fail(play.fault.kind)

    async def _maybe_fail(self, fault: Fault | None, sent: int) -> None:
        if fault is not None and fault.after == sent:
            await self._fail(fault.kind)

    async def _fail(self, kind: FaultKind) -> NoReturn:
        if kind is not FaultKind.HANG:
            # A reset throws away what is not flushed.
            await self._flushed()
            self.cut(reset=kind is FaultKind.RESET)
        await Deferred()
        raise AssertionError("nothing fires it")

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            await deferLater(self._clock, seconds)

    async def _flushed(self) -> None:
        # Twisted gathers what is written in one turn of the reactor; a call that is due at once
        # may come before the sockets of this turn, the one after it may not.
        await deferLater(self._clock, 0)
        await deferLater(self._clock, 0)

    def _begin(self, status: int, content_type: str, length: int | None = None) -> None:
        self._request.setResponseCode(status)
        self._request.setHeader("content-type", content_type)
        if length is not None:
            self._request.setHeader("content-length", str(length))
        # It is what makes Twisted write the headers.
        self._request.write(b"")
        self._received.first_byte_time = self._clock.seconds()

    def _write(self, data: bytes) -> None:
        if self._received.first_chunk_time is None:
            self._received.first_chunk_time = self._clock.seconds()
        self._request.write(data)

    def _finished(self, _: None) -> None:
        self._received.close(Closed.COMPLETE)

    def _connection_lost(self, _: Failure) -> None:
        self._lost = True
