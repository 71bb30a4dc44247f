"""A client on a raw socket: it sees every byte, leaves when it likes, and reads as slowly."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from twisted.internet import endpoints
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone

FOREIGN = "<html>"
"""What an upstream may put between its events; it is passed on as it is."""


@define
class Outcome:
    """
    What became of a request.

    @ivar whole: the response ended as its framing says.
    @ivar left: the client did not wait for that.
    @ivar refused: there was no connection at all.
    @ivar late: it took longer than anything may.
    @ivar first: seconds until the first byte; None if none came.
    @ivar silence: the longest time between two bytes, in seconds.
    """

    raw: bytearray = field(factory=bytearray, repr=False)
    whole: bool = False
    left: bool = False
    refused: bool = False
    late: bool = False
    first: float | None = None
    silence: float = 0.0
    seconds: float = 0.0

    @property
    def head(self) -> str:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        parts = self.head.split(" ", 2)
        return int(parts[1]) if len(parts) > 1 else 0

    @property
    def body(self) -> bytes:
        body = bytes(self.raw.partition(b"\r\n\r\n")[2])
        return dechunked(body)[0] if self._chunked else body

    @property
    def events(self) -> list[Any]:
        """The data of the events that are there; JSON where it is."""
        whole = self.body.decode("utf-8", "replace").split("\n\n")[:-1]
        data = [event[6:] for event in whole if event.startswith("data: ")]
        return [text if text in ("[DONE]", FOREIGN) else json.loads(text) for text in data]

    @property
    def _chunked(self) -> bool:
        return "transfer-encoding: chunked" in self.head.lower()

    def is_complete(self) -> bool:
        end = self.raw.find(b"\r\n\r\n")
        if end < 0:
            return False
        if self._chunked:
            return self.raw.endswith(b"0\r\n\r\n") and dechunked(bytes(self.raw[end + 4 :]))[1]
        length = [
            line[15:] for line in self.head.lower().split("\r\n") if "content-length:" in line
        ]
        return bool(length) and len(self.raw) - end - 4 >= int(length[0])


def dechunked(data: bytes) -> tuple[bytes, bool]:
    """What is there of a chunked body, and whether that is all of it."""
    pieces, start = [], 0
    while (end := data.find(b"\r\n", start)) >= 0:
        size = int(data[start:end], 16)
        if not size:
            return b"".join(pieces), True
        pieces.append(data[end + 2 : end + 2 + size])
        start = end + 2 + size + 2
    return b"".join(pieces), False


class _Connection(Protocol):
    def __init__(self, reactor: Any, outcome: Outcome, leave_after: int | None, slow: bool) -> None:
        self.closed: Deferred[None] = Deferred()
        self._reactor = reactor
        self._outcome = outcome
        self._leave_after = leave_after
        self._slow = slow
        self._began = self._heard = reactor.seconds()

    def dataReceived(self, data: bytes) -> None:
        outcome, now = self._outcome, self._reactor.seconds()
        if outcome.first is None:
            outcome.first = now - self._began
        else:
            outcome.silence = max(outcome.silence, now - self._heard)
        self._heard = now
        outcome.raw += data
        if outcome.is_complete():
            outcome.whole = True
            self.transport.loseConnection()
        elif self._leave_after is not None and len(outcome.raw) > self._leave_after:
            self.leave()
        elif self._slow:
            self._slow = False
            self.transport.pauseProducing()
            self._reactor.callLater(0.3, self._resume)

    def _resume(self) -> None:
        if self.transport.connected:
            self.transport.resumeProducing()

    def leave(self) -> None:
        self._outcome.left = True
        self.transport.abortConnection()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self._outcome.seconds = self._reactor.seconds() - self._began
        if not self.closed.called:
            self.closed.callback(None)


async def send(
    reactor: Any,
    port: int,
    data: bytes,
    *,
    leave_after: int | None = None,
    leave_at: float | None = None,
    slow: bool = False,
    limit: float = 60.0,
) -> Outcome:
    """
    Send bytes over a connection of their own, and wait for one response.

    @param leave_after: bytes of the response after which to go.
    @param leave_at: seconds after which to go.
    @param limit: seconds after which to call it stuck.
    """
    outcome = Outcome()
    endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=10)
    try:
        connection = await endpoint.connect(
            Factory.forProtocol(lambda: _Connection(reactor, outcome, leave_after, slow))
        )
    except Exception:
        outcome.refused = True
        return outcome
    timers = [reactor.callLater(limit, _give_up, connection, outcome)]
    if leave_at is not None:
        timers.append(reactor.callLater(leave_at, connection.leave))
    connection.transport.write(data)
    await connection.closed
    for timer in timers:
        if timer.active():
            timer.cancel()
    return outcome


def _give_up(connection: _Connection, outcome: Outcome) -> None:
    outcome.late = True
    connection.transport.abortConnection()


def request(method: str, path: str, body: Any = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content
