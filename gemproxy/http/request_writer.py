"""Writes a request: its head, and its body as it is produced."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IConsumer, IPullProducer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[!-~]+")
_METHODS_WITH_BODY = frozenset({b"POST", b"PUT"})


class WrongLength(Exception):
    """A request's body is longer or shorter than announced."""


def request_head(
    method: bytes,
    target: bytes,
    host: bytes,
    headers: Sequence[tuple[bytes, Sequence[bytes]]],
    body: IBodyProducer | None,
) -> bytes:
    """
    @param headers: names, as Twisted spells them, and their values; a Host header overrides
        C{host}.
    @raise ValueError: the method, the target or a header contains characters that are not allowed.
    """
    if not _METHOD.fullmatch(method):
        raise ValueError(f"invalid method: {method!r}")
    if not _TARGET.fullmatch(target):
        raise ValueError(f"invalid request target: {target!r}")
    fields = [name + b": " + value for name, values in headers for value in values]
    if b"Host" not in dict(headers):
        fields.insert(0, b"Host: " + host)
    if body is None:
        if method in _METHODS_WITH_BODY:
            fields.append(b"Content-Length: 0")
    elif body.length is UNKNOWN_LENGTH:
        fields.append(b"Transfer-Encoding: chunked")
    else:
        fields.append(b"Content-Length: %d" % body.length)
    head = b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, target, b"\r\n".join(fields))
    line_ends = len(fields) + 2
    if head.count(b"\r") != line_ends or head.count(b"\n") != line_ends or 0 in head:
        raise ValueError("a header contains a line break or NUL")
    return head


def send_at_once(transport: Any, data: bytes) -> None:
    """
    Send as much as the socket accepts now, if it is not much. Twisted would have the reactor report
    the socket as writable first, with two more system calls. That saves 13 % of the CPU of a small
    streamed answer. C{writeSomeData} is called outside of the reactor, for which there is no public
    way, nor to know that nothing waits; C{tests/test_twisted_internals.py} fails if that changes.
    """
    # Other transports, such as TLS, do not write to a socket directly.
    if (
        isinstance(transport, FileDescriptor)
        and transport.connected
        and len(data) <= transport.SEND_LIMIT
        and not (transport.dataBuffer or transport._tempDataBuffer)
    ):
        sent = transport.writeSomeData(data)
        # An error occurs again when the reactor writes, and is handled there.
        if isinstance(sent, int) and sent > 0:
            data = data[sent:]
    if data:
        transport.write(data)


@implementer(IConsumer)
class BodySender:
    """
    Sends a request's body. Data written by the producer on start is sent together with the head.
    """

    def __init__(self, transport: Any, head: bytes, producer: IBodyProducer) -> None:
        self._transport = transport
        self._begun: list[bytes] | None = [head]
        self._producer = producer
        self._is_chunked = producer.length is UNKNOWN_LENGTH
        self._left = 0 if self._is_chunked else producer.length
        self._is_registered = False
        self._is_over = False

    def start(self, over: Callable[[Failure | None], None]) -> None:
        """
        @param over: called with None when the whole body is written, or with a failure; not called
            after L{stop}.
        """
        self._over = over
        self._producer.startProducing(self).addCallbacks(self._produced, self._end)
        pieces, self._begun = self._begun or [], None
        send_at_once(self._transport, b"".join(pieces))
        if not self._is_over:
            self._is_registered = True
            is_streaming = not IPullProducer.providedBy(self._producer)
            self._transport.registerProducer(self._producer, is_streaming)

    def stop(self) -> None:
        """Stop sending the body."""
        self._is_over = True
        self._leave_transport()
        self._producer.stopProducing()

    # IConsumer, called by the producer:

    def write(self, data: bytes) -> None:
        if self._is_over or not data:
            return
        if self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        else:
            self._left -= len(data)
            if self._left < 0:
                self._producer.stopProducing()
                self._end(Failure(WrongLength("the body is longer than announced")))
                return
        self._write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Does nothing: the producer is known already."""

    def unregisterProducer(self) -> None:
        """Does nothing: the producer's Deferred reports the end."""

    def _produced(self, _: Any) -> None:
        if self._is_chunked:
            self._write(b"0\r\n\r\n")
        failure = Failure(WrongLength("the body is shorter than announced")) if self._left else None
        self._end(failure)

    def _end(self, failure: Failure | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._leave_transport()
            self._over(failure)

    def _write(self, data: bytes) -> None:
        if self._begun is not None:
            self._begun.append(data)
        else:
            self._transport.write(data)

    def _leave_transport(self) -> None:
        if self._is_registered:
            self._is_registered = False
            self._transport.unregisterProducer()
