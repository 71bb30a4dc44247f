"""A client that sends many requests at once, and reads the answers as it likes, or never."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet import endpoints
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone

_ANSWER = re.compile(rb'"message":"Unknown URL: GET /pipelined/([0-9]+)\.')
# Seconds between two reads of a slow one.
_PAUSE = 0.1


class Reading(Enum):
    EAGER = "reads at once"
    SLOW = "reads slowly"
    NEVER = "reads nothing"


class _Pipeliner(Protocol):
    transport: Any

    def __init__(self, later: Callable[..., Any], number: int, reading: Reading) -> None:
        self.ended: Deferred[None] = Deferred()
        self.answered: list[int] = []
        self._later = later
        self._number = number
        self._reading = reading
        self._rest = b""

    def connectionMade(self) -> None:
        if self._reading is Reading.NEVER:
            self.transport.pauseProducing()
        request = b"GET /pipelined/%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self.transport.write(b"".join(request % number for number in range(self._number)))

    def dataReceived(self, data: bytes) -> None:
        self._rest += data
        end = 0
        for match in _ANSWER.finditer(self._rest):
            self.answered.append(int(match[1]))
            end = match.end()
        self._rest = self._rest[end:]
        if len(self.answered) >= self._number:
            self.transport.loseConnection()
        elif self._reading is Reading.SLOW:
            self.transport.pauseProducing()
            self._later(_PAUSE, self._resume)

    def _resume(self) -> None:
        if self.transport.connected:
            self.transport.resumeProducing()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        if not self.ended.called:
            self.ended.callback(None)


async def pipeline(
    reactor: Any, port: int, number: int, reading: Reading, seconds: float
) -> str | None:
    """
    Send so many requests at once, none of which is for anything that there is.

    @param seconds: for all answers to come; one that reads nothing goes after them.
    @return: what is wrong with the answers, if anything is.
    """
    endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=10)
    factory = Factory.forProtocol(lambda: _Pipeliner(reactor.callLater, number, reading))
    try:
        client = await endpoint.connect(factory)
    except Exception as error:
        return f"no connection: {error}"
    going = reactor.callLater(seconds, client.transport.abortConnection)
    await client.ended
    if going.active():
        going.cancel()
    if reading is Reading.NEVER or client.answered == [*range(number)]:
        return None
    return f"{len(client.answered)} of {number} answers, the last ones {client.answered[-3:]}"
