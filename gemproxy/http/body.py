"""Bodies that are in memory as a whole: sending them, and reading them within limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPullProducer, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from gemproxy.util.deadline import deadline


class BodyCut(Exception):
    """The connection closed before the end of the body."""


class BodyTooLarge(Exception):
    """The body has more bytes than are accepted."""


# Of large bodies: transports copy what they are given, as often as they send a part of it.
_PIECE = 256 * 1024


@implementer(IBodyProducer, IPullProducer)
class BytesBody:
    """
    Is written in one go, with the headers: there is no file to be read piece by piece. Only what is
    large is written as the connection takes it.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)
        self._consumer: IConsumer | None = None
        self._written = 0
        self._done: Deferred[None] = Deferred()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        if self.length <= _PIECE:
            consumer.write(self._data)
            return succeed(None)
        self._consumer, self._written, self._done = consumer, 0, Deferred()
        self.resumeProducing()
        return self._done

    def resumeProducing(self) -> None:
        if self._consumer is None:
            return
        consumer, begin = self._consumer, self._written
        self._written = begin + _PIECE
        is_last = self._written >= self.length
        if is_last:
            self._consumer = None
        consumer.write(self._data[begin : self._written])
        if is_last:
            self._done.callback(None)

    def pauseProducing(self) -> None:
        """Nothing is written unasked."""

    def stopProducing(self) -> None:
        self._consumer = None


class RepeatableBody(BytesBody):
    """The body of a request that may be sent twice, although its method is not idempotent."""


def read_body(
    response: IResponse, limit: int, accept: Callable[[int], None] = lambda size: None
) -> Deferred[bytes]:
    """
    The body of a response. Cancelling closes the connection.

    @param limit: bytes at most.
    @param accept: called with the size of each piece; what it raises ends the reading.
    @return: fails with L{BodyCut}, L{BodyTooLarge}, or what C{accept} raised.
    """
    reader = _Reader(limit, accept)
    response.deliverBody(reader)
    return reader.done


async def read_beginning(
    response: IResponse, limit: int, clock: IReactorTime, patience: float
) -> bytes:
    """
    As much of a body as comes in time, for an error whose status is known already.

    @param limit: bytes; the rest is not read.
    @param patience: in seconds.
    """
    reader = _Reader(limit, lambda size: None)
    response.deliverBody(reader)
    try:
        with deadline(clock, patience, reader.stop):
            return await reader.done
    except (BodyCut, BodyTooLarge):
        return reader.data


def discard_body(response: IResponse) -> None:
    """Close the connection of a response whose body is not wanted."""
    response.deliverBody(_Discarding())


class _Discarding(Protocol):
    def connectionMade(self) -> None:
        cast("IPushProducer", self.transport).stopProducing()


class _Reader(Protocol):
    """Collects a body."""

    def __init__(self, limit: int, accept: Callable[[int], None]) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self.stop())
        self._limit = limit
        self._accept = accept
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def data(self) -> bytes:
        return b"".join(self._pieces)

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        try:
            self._accept(len(data))
        except Exception:
            self._end(Failure())
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self._end(Failure(BodyTooLarge(f"more than {self._limit} bytes")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            # This reader refers to itself, so that it may be there for a while.
            data = self.data
            self._pieces.clear()
            self.done.callback(data)
        else:
            self.done.errback(BodyCut())

    def stop(self) -> None:
        if self.transport is not None:
            cast("IPushProducer", self.transport).stopProducing()

    def _end(self, failure: Failure) -> None:
        self.done.errback(failure)
        self.stop()
