"""
A New-API of the tests' own, on a raw socket: it says what a script says, byte by byte.

A script is a coroutine function that is given a L{Call} as soon as its headers are there. Those
below cover most of what an upstream does, well or badly.
"""

from __future__ import annotations

import gzip
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

Headers = Sequence[tuple[str, str]]

EVENT_STREAM = ("Content-Type", "text/event-stream; charset=utf-8")
JSON = ("Content-Type", "application/json")
DONE = b"data: [DONE]\n\n"


class Gone(Exception):
    """The connection is closed; a script ends with it."""


@define(eq=False)
class Call:
    """
    One request, as it came, and the means to answer it.

    @ivar headers: in their order and spelling.
    @ivar complete: the whole body is there.
    @ivar began: when the headers were there.
    @ivar closed: when the connection was closed; None while it is open.
    @ivar sent: bytes that were written, whether or not anybody took them.
    @ivar played: the script is over, and what it sent has been read.
    """

    connection: _Connection = field(repr=False)
    number: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    began: float
    body: bytearray = field(factory=bytearray, repr=False)
    complete: bool = False
    closed: float | None = None
    sent: int = 0
    finished: bool = False
    played: bool = False
    _waiting: list[tuple[Callable[[], Any], Deferred[None]]] = field(factory=list, repr=False)

    # What was asked:

    def header(self, name: str) -> str | None:
        values = self.all_headers(name)
        return values[-1] if values else None

    def all_headers(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def json(self) -> Any:
        return json.loads(bytes(self.body))

    async def whole(self) -> None:
        """Wait for the whole body."""
        await self.when(lambda: self.complete or self.closed is not None)
        if not self.complete:
            raise Gone

    async def when_closed(self, seconds: float = 5.0) -> float:
        """When the connection was closed."""
        await self.when(lambda: self.closed is not None, seconds)
        assert self.closed is not None
        return self.closed

    async def when(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        waiter: Deferred[None] = Deferred()
        waiter.addTimeout(seconds, reactor)
        self._waiting.append((condition, waiter))
        self.look()
        await waiter

    def look(self) -> None:
        # Whoever is told may look again.
        ready = [waiting for waiting in self._waiting if waiting[0]()]
        self._waiting = [waiting for waiting in self._waiting if waiting not in ready]
        for _, waiter in ready:
            if not waiter.called:
                waiter.callback(None)

    # The answer:

    async def send(self, data: bytes) -> None:
        """Send bytes in a piece of their own, once the proxy takes some."""
        await self.when(lambda: self.closed is not None or not self.connection.full, 120)
        if self.closed is not None:
            raise Gone
        self.sent += len(data)
        self.connection.transport.write(data)
        self.look()
        # In the first turn they go out, and in the second they are read: alone.
        await deferLater(reactor, 0)
        await deferLater(reactor, 0)

    async def send_in_pieces(self, data: bytes, cuts: Iterable[int], pace: float = 0.0) -> None:
        """@param cuts: where to cut."""
        places = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
        for start, end in pairwise(places):
            await self.send(data[start:end])
            if pace:
                await deferLater(reactor, pace)

    async def head(self, status: int = 200, headers: Headers = (), reason: str = "Fine") -> None:
        await self.send(head(status, headers, reason))

    def end(self) -> None:
        """The answer is complete, and the connection may be used for the next one."""
        self.finished = True
        self.look()
        self.connection.go_on()

    def over(self) -> None:
        self.played = True
        self.look()

    def close(self) -> None:
        self.connection.transport.loseConnection()

    def reset(self) -> None:
        self.connection.transport.abortConnection()

    def stop_reading(self) -> None:
        self.connection.transport.pauseProducing()

    def go_on_reading(self) -> None:
        self.connection.transport.resumeProducing()


Script = Callable[[Call], Awaitable[None]]


class _Connection(Protocol):
    """
    One connection of the proxy to the fake.

    @ivar full: what was written is not taken.
    """

    def __init__(self, fake: FakeNewApi) -> None:
        self.full = False
        self._fake = fake
        self._received = bytearray()
        self._call: Call | None = None
        self._length: int | None = 0

    def connectionMade(self) -> None:
        self._fake.connections.append(self)
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        self.go_on()

    def go_on(self) -> None:
        """Take what has come."""
        while self._step():
            pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._fake.connections.remove(self)
        # A request that has waited for the end of the one before it is not to be taken any more.
        self._received.clear()
        if self._call is not None:
            self._call.closed = reactor.seconds()
            self._call.look()

    # IPushProducer:

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False
        if self._call is not None:
            self._call.look()

    def stopProducing(self) -> None:
        self.full = False

    # A request:

    def _step(self) -> bool:
        call = self._call
        if call is None or (call.complete and call.finished):
            return self._take_head()
        return not call.complete and self._take_body(call)

    def _take_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        request_line, *lines = self._received[:end].decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        method, target, _ = request_line.split(" ")
        headers = [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines)]
        call = Call(self, len(self._fake.calls), method, target, headers, reactor.seconds())
        self._call = call
        chunked = call.header("transfer-encoding") == "chunked"
        self._length = None if chunked else int(call.header("content-length") or 0)
        call.complete = self._length == 0
        self._fake.asked(call)
        return True

    def _take_body(self, call: Call) -> bool:
        if self._length is None:
            return self._take_chunk(call)
        taken = self._received[: self._length - len(call.body)]
        if not taken:
            return False
        del self._received[: len(taken)]
        call.body += taken
        call.complete = len(call.body) == self._length
        call.look()
        return True

    def _take_chunk(self, call: Call) -> bool:
        end = self._received.find(b"\r\n")
        if end < 0:
            return False
        size = int(self._received[:end], 16)
        if len(self._received) < end + 2 + size + 2:
            return False
        call.body += self._received[end + 2 : end + 2 + size]
        del self._received[: end + 2 + size + 2]
        call.complete = not size
        call.look()
        return True


class FakeNewApi:
    """
    Listens on a port of its own.

    @ivar calls: all requests, the oldest first.
    @ivar failures: of scripts.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.connections: list[_Connection] = []
        self.failures: list[BaseException] = []
        self._scripts: deque[Script] = deque()
        self._always: Script = stream("Hello")
        self._waiting: list[tuple[int, Deferred[Call]]] = []
        self._factory = _Factory.forProtocol(lambda: _Connection(self))
        self._port = reactor.listenTCP(0, self._factory, interface="127.0.0.1")
        self._number: int = self._port.getHost().port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._number}"

    def play(self, *scripts: Script) -> None:
        """Queue scripts, one for each request."""
        self._scripts.extend(scripts)

    def always(self, script: Script) -> None:
        """What to do when none is queued."""
        self._always = script

    def asked(self, call: Call) -> None:
        self.calls.append(call)
        script = self._scripts.popleft() if self._scripts else self._always
        running = Deferred.fromCoroutine(script(call))
        running.addErrback(self._failed).addCallback(lambda _: call.over())
        for number, waiter in list(self._waiting):
            if number == call.number:
                self._waiting.remove((number, waiter))
                waiter.callback(call)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(Gone, ConnectionDone):
            self.failures.append(failure.value)

    async def when_asked(self, number: int = 0, seconds: float = 10.0) -> Call:
        """The request with this number, from 0, as soon as its headers are there."""
        if number < len(self.calls):
            return self.calls[number]
        waiter: Deferred[Call] = Deferred()
        waiter.addTimeout(seconds, reactor)
        self._waiting.append((number, waiter))
        return await waiter

    async def stop_listening(self) -> None:
        await self._port.stopListening()

    def listen_again(self) -> None:
        """On the same port as before."""
        self._port = reactor.listenTCP(self._number, self._factory, interface="127.0.0.1")

    async def stop(self) -> None:
        await self._port.stopListening()
        for connection in list(self.connections):
            connection.transport.abortConnection()
        while self.connections:
            await deferLater(reactor, 0)
        assert self.failures == []


class _Factory(Factory):
    noisy = False


# Pieces of answers:


def head(status: int = 200, headers: Headers = (), reason: str = "Fine") -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(
    content: str | None = None,
    finish: str | None = None,
    index: int = 0,
    delta: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """A chat.completion.chunk."""
    if delta is None:
        delta = {} if content is None else {"content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-x",
        "system_fingerprint": "fp_1",
        "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}],
    } | fields


USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def usage_chunk(usage: Any = None) -> dict[str, Any]:
    return chunk() | {"choices": [], "usage": usage or USAGE}


def event(data: Any, eol: bytes = b"\n") -> bytes:
    """An event of a chunk, of a chunk's content, or of bytes that are sent as they are."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        data = chunk(data)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    return b"data: " + text + eol * 2


def answer(*contents: Any, finish: str | None = "stop", usage: bool = False) -> list[bytes]:
    """The events of a whole answer."""
    events: list[Any] = [chunk(delta={"role": "assistant", "content": ""}), *contents]
    events.append(chunk(finish=finish))
    if usage:
        events.append(usage_chunk())
    return [*map(event, events), DONE]


def in_http_chunks(pieces: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)


# Scripts:


def stream(*contents: Any, usage: bool = False, **how: Any) -> Script:
    """A whole answer as a stream; see L{events} for how."""
    return events(*answer(*contents, usage=usage), **how)


def events(
    *given: Any,
    framing: str = "chunked",
    cuts: Iterable[int] | None = None,
    pace: float = 0.0,
    then: str = "end",
    headers: Headers = (EVENT_STREAM,),
    zipped: bool = False,
) -> Script:
    """
    A stream of whatever is given.

    @param framing: C{chunked}, C{length} or C{close}.
    @param cuts: where to cut the body as it is on the wire; None for once at each event.
    @param then: C{end}: the body ends as it should; C{cut}: the connection is closed within it;
        C{reset}; C{hang}: nothing more comes.
    """

    async def script(call: Call) -> None:
        await call.whole()
        pieces = [event(item) for item in given]
        if zipped:
            pieces = [gzip.compress(b"".join(pieces))]
        frame = {
            "chunked": [("Transfer-Encoding", "chunked")],
            "length": [("Content-Length", str(len(b"".join(pieces))))],
            "close": [("Connection", "close")],
        }[framing]
        encoding = [("Content-Encoding", "gzip")] if zipped else []
        await call.head(200, [*headers, *frame, *encoding])
        wire = [in_http_chunks([piece]) for piece in pieces] if framing == "chunked" else pieces
        if framing == "chunked" and then == "end":
            wire.append(b"0\r\n\r\n")
        body = b"".join(wire)
        places = cuts
        if places is None:
            places = [sum(map(len, wire[:number])) for number in range(len(wire))]
        await call.send_in_pieces(body, places, pace)
        if then == "reset":
            call.reset()
        elif then == "cut" or (then == "end" and framing == "close"):
            call.close()
        elif then == "end":
            call.end()

    return script


def document(
    body: Any,
    status: int = 200,
    headers: Headers = (JSON,),
    reason: str = "Fine",
    zipped: bool = False,
) -> Script:
    """A response that is no stream; the body is bytes, or becomes JSON."""

    async def script(call: Call) -> None:
        await call.whole()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        more = [("Content-Length", str(len(data)))]
        if zipped:
            data = gzip.compress(data)
            more = [("Content-Length", str(len(data))), ("Content-Encoding", "gzip")]
        await call.head(status, [*headers, *more], reason)
        await call.send(data)
        call.end()

    return script


def verbatim(data: bytes, then: str = "hang", whole: bool = True) -> Script:
    """Bytes, be they HTTP or not."""

    async def script(call: Call) -> None:
        if whole:
            await call.whole()
        if data:
            await call.send(data)
        if then == "reset":
            call.reset()
        elif then == "close":
            call.close()

    return script


def hang() -> Script:
    """Not even headers."""
    return verbatim(b"")


def headers_and_hang(status: int = 200, headers: Headers = (EVENT_STREAM,)) -> Script:
    return verbatim(head(status, [*headers, ("Transfer-Encoding", "chunked")]))


def if_streamed(streamed: Script, unstreamed: Script) -> Script:
    """One script for requests with C{stream}, and one for the others."""

    async def script(call: Call) -> None:
        await call.whole()
        await (streamed if call.json.get("stream") else unstreamed)(call)

    return script
