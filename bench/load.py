"""The clients: connections that ask, note when each byte comes, and check what came."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from time import monotonic

from attrs import define, field, frozen

from bench.answers import STAMP, Spec, WrongAnswer

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.I)
CLIENT_KEY = "sk-of-the-client"
HISTORY = [
    {"role": "system", "content": "You are a helpful assistant. Answer in a few words. " * 4},
    {"role": "user", "content": "What does the quick brown fox do? " * 4},
    {"role": "assistant", "content": "It jumps over the lazy dog. " * 4},
    {"role": "user", "content": "And then?"},
]


@frozen
class Target:
    """
    Whom to ask.

    @ivar model_prefix: what comes before the model's name there.
    @ivar gemini_model: the model, where its name cannot order an answer. The last message does.
    """

    port: int
    model_prefix: str = ""
    gemini_model: str | None = None

    def request(self, model: str, stream: bool, **fields: object) -> bytes:
        """A chat completion request, head and body."""
        messages = HISTORY
        if self.gemini_model is not None:
            messages = [*HISTORY[:-1], {"role": "user", "content": model}]
            model = self.gemini_model
        body = {"model": self.model_prefix + model, "messages": messages, "stream": stream}
        content = json.dumps(body | fields).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{self.port}\r\n"
            "Content-Type: application/json\r\n"
            f"Authorization: Bearer {CLIENT_KEY}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content


@define(eq=False)
class Received:
    """
    A response, with the times of its pieces.

    @ivar first: when the first piece of text came.
    """

    asked: float
    marker: bytes
    first: float | None = None
    ended: float | None = None
    arrivals: list[tuple[float, bytes]] = field(factory=list, repr=False)

    @property
    def raw(self) -> bytes:
        return b"".join(data for _, data in self.arrivals)

    def body(self) -> bytes:
        """@raise WrongAnswer: the status is not 200."""
        head, _, rest = self.raw.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise WrongAnswer(f"{head[:40]!r}: {rest[:300]!r}")
        return without_http_chunks(rest) if _CHUNKED.search(head) else rest

    def check(self, spec: Spec, stream: bool) -> None:
        """@raise WrongAnswer: it is not the answer that was ordered."""
        if stream:
            spec.check_stream(self.body())
        else:
            spec.check_document(self.body())

    def delays(self, begin: float, end: float) -> list[float]:
        """Seconds from sending to receiving of each chunk that came in this time."""
        return [
            at - float(stamp[1])
            for at, data in self.arrivals
            if begin <= at < end
            for stamp in STAMP.finditer(data)
        ]


def without_http_chunks(data: bytes) -> bytes:
    pieces = []
    start = 0
    while True:
        end = data.index(b"\r\n", start)
        size = int(data[start:end].partition(b";")[0], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(data[end + 2 : end + 2 + size])
        start = end + 2 + size + 2


class Connection(asyncio.Protocol):
    """A client's connection; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._response: Received | None = None
        self._waiting: asyncio.Future[Received] | None = None
        self._head = b""
        self._left: int | None = None
        self._tail = b""
        self._throttle: Callable[[int], None] | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def ask(
        self, request: bytes, marker: bytes = b"t=", bytes_per_second: float | None = None
    ) -> Received:
        """
        @param marker: what shows that a piece of the answer's text has come.
        @param bytes_per_second: how fast to read.
        @raise ConnectionError: the connection was closed before the response was whole.
        """
        waiting = self.ask_only(request, marker)
        if bytes_per_second:
            self._throttle = self._throttled(bytes_per_second)
        return await waiting

    def ask_only(self, request: bytes, marker: bytes = b"t=") -> asyncio.Future[Received]:
        if self.transport.is_closing():
            raise ConnectionError("the connection was closed")
        self._head, self._left, self._tail = b"", None, b""
        self._waiting = asyncio.get_running_loop().create_future()
        self._response = Received(monotonic(), marker)
        self.transport.write(request)
        return self._waiting

    @property
    def response(self) -> Received | None:
        """What has come so far."""
        return self._response

    def data_received(self, data: bytes) -> None:
        now = monotonic()
        response = self._response
        if response is None:
            return
        response.arrivals.append((now, data))
        if response.first is None and response.marker in data:
            response.first = now
        if self._is_whole(data):
            response.ended = now
            waiting, self._waiting, self._response = self._waiting, None, None
            if waiting is not None and not waiting.done():
                waiting.set_result(response)
        elif self._throttle is not None:
            self._throttle(len(data))

    def _is_whole(self, data: bytes) -> bool:
        if self._left is not None:
            self._left -= len(data)
            return self._left <= 0
        if self._tail == b"" and not self._head.endswith(b"chunked"):
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            length = _LENGTH.search(self._head, 0, end + 2)
            if length is not None:
                self._left = int(length[1]) + end + 4 - len(self._head)
                return self._left <= 0
            self._head = b"chunked"
        self._tail = self._tail[-4:] + data[-5:]
        return self._tail.endswith(b"0\r\n\r\n")

    def _throttled(self, bytes_per_second: float) -> Callable[[int], None]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        total = 0

        def read(size: int) -> None:
            nonlocal total
            total += size
            wait = begun + total / bytes_per_second - loop.time()
            if wait > 0:
                self.transport.pause_reading()
                loop.call_later(wait, self.transport.resume_reading)

        return read

    def connection_lost(self, reason: Exception | None) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(ConnectionError("the connection was closed"))

    def close(self) -> None:
        self.transport.abort()


async def connections(port: int, count: int) -> list[Connection]:
    """Many connections, a few at a time."""
    opened: list[Connection] = []
    while len(opened) < count:
        some = min(50, count - len(opened))
        opened += await asyncio.gather(*(Connection.open(port) for _ in range(some)))
    return opened
