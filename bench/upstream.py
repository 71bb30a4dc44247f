"""
The fake upstream: OpenAI's chat completions, and Google's streams, made up as fast as they can be
sent.

A process of its own: C{python -m bench.upstream PORT}.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from functools import lru_cache
from time import monotonic

from bench.answers import Spec

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_MODEL = re.compile(rb'"model" *: *"([^"]+)"')
# Google's models have names of their own: there the last message names the answer.
_OF_GOOGLE = re.compile(rb":streamGenerateContent\?[^ ]* HTTP/.*(bench-[0-9-]+)", re.S)
_STREAM = re.compile(rb'"stream" *: *true')
_USAGE = re.compile(rb'"include_usage" *: *true')
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_DOCUMENT_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
# Answers with more chunks are rendered once and sent in large pieces.
_MANY = 200
_PIECE = 256 * 1024


@lru_cache(8)
def _rendered(chunks: int, template: bytes, end: bytes) -> bytes:
    return b"".join(template % (0.0, number) for number in range(chunks)) + end


@lru_cache(8)
def _document(spec: Spec) -> bytes:
    return spec.document(0.0)


class _Connection(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._received = b""
        self._transport: asyncio.Transport
        self._next: asyncio.TimerHandle | None = None
        self._rest = memoryview(b"")
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, reason: Exception | None) -> None:
        self._rest = memoryview(b"")
        if self._next is not None:
            self._next.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end + 2)
        if len(self._received) < end + 4 + (int(length[1]) if length else 0):
            return
        request, self._received = self._received, b""
        self._answer(request)

    def _answer(self, request: bytes) -> None:
        if (ordered := _OF_GOOGLE.search(request)) is not None:
            spec = Spec.of_model(ordered[1].decode())
            self._stream(spec, spec.google_template(), spec.google_end())
            return
        model = _MODEL.search(request)
        if model is None:
            # Whoever looks whether this server lives.
            self._transport.write(_DOCUMENT_HEAD % 2 + b"{}")
            return
        spec = Spec.of_model(model[1].decode())
        if _STREAM.search(request) is None:
            document = spec.document(monotonic()) if spec.chunks <= _MANY else _document(spec)
            self._transport.write(_DOCUMENT_HEAD % len(document))
            self._rest = memoryview(document)
            self._send_rest()
            return
        include_usage = _USAGE.search(request) is not None
        self._stream(spec, spec.template(), spec.end(include_usage))

    def _stream(self, spec: Spec, template: bytes, end: bytes) -> None:
        self._transport.write(_STREAM_HEAD)
        if spec.pace:
            self._send(spec, template, 0, self._loop.time(), end)
        elif spec.chunks <= _MANY:
            for number in range(spec.chunks):
                self._transport.write(template % (monotonic(), number))
            self._transport.write(end)
        else:
            self._rest = memoryview(_rendered(spec.chunks, template, end))
            self._send_rest()

    def _send(self, spec: Spec, template: bytes, number: int, due: float, end: bytes) -> None:
        self._transport.write(template % (monotonic(), number))
        number += 1
        if number == spec.chunks:
            self._next = None
            self._transport.write(end)
            return
        due += spec.pace / 1000
        self._next = self._loop.call_at(due, self._send, spec, template, number, due, end)

    def _send_rest(self) -> None:
        while self._rest and not self._paused:
            piece, self._rest = self._rest[:_PIECE], self._rest[_PIECE:]
            self._transport.write(piece)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send_rest()


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(loop), "127.0.0.1", port, backlog=4096)
    gc.disable()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
