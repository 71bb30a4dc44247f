"""The HTTP client that requests to New-API go out by, against raw sockets."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from gemproxy.http.agent import PersistentAgent, endpoints
from gemproxy.http.body import BytesBody, read_body
from gemproxy.http.connection import BadResponse
from gemproxy.http.connection_pool import IDLE_CONNECTIONS, IDLE_TIME, ConnectionPool
from gemproxy.http.request_writer import WrongLength, request_head
from gemproxy.http.write_coalescer import WriteCoalescer
from testing.fake_newapi import Call, FakeNewApi, Script, document, events, hang, head, verbatim
from testing.processes import free_port
from testing.tls import make_certificate
from tests.support import deaf_port, until
from tests.test_relay_flow import quiet

pytestmark = pytest.mark.slow

MB = 1_000_000


class Reader(Protocol):
    """
    Reads a body.

    @ivar pieces: as they were handed out.
    @ivar reason: why there is no more of it.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.reason: Any = None
        self._ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        assert self.reason is None
        self.reason = reason.value
        self._ended.callback(None)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    async def end(self) -> bytes:
        self._ended.addTimeout(10, reactor)
        await self._ended
        return self.body


async def read(response: Any) -> Reader:
    reader = Reader()
    response.deliverBody(reader)
    await reader.end()
    return reader


def get(agent: PersistentAgent, upstream: FakeNewApi, method: bytes = b"GET") -> Deferred[Any]:
    return Deferred.fromCoroutine(ask(agent, upstream, method, None))


def post(agent: PersistentAgent, upstream: FakeNewApi, body: Any = b"body") -> Deferred[Any]:
    producer = BytesBody(body) if isinstance(body, bytes) else body
    return Deferred.fromCoroutine(ask(agent, upstream, b"POST", producer))


async def ask(agent: PersistentAgent, upstream: FakeNewApi, method: bytes, body: Any) -> Any:
    # The fake takes no request before its script for the one before is over.
    await until(
        lambda: all(call.finished or call.closed is not None for call in upstream.calls),
        "the upstream has said its last word",
    )
    return await agent.request(method, upstream.url.encode() + b"/v1/x", None, body)


async def failure_of(asked: Deferred[Any]) -> Any:
    with pytest.raises(Exception) as caught:
        await asked
    return caught.value


def connections_of(upstream: FakeNewApi) -> int:
    return len({id(call.connection) for call in upstream.calls})


# Heads of requests:


def test_a_request_s_head() -> None:
    headers = Headers({b"x-a": [b"1", b"2"], b"accept": [b"*/*"]})
    fields = list(headers.getAllRawHeaders())
    assert request_head(b"POST", b"/v1/x?y=%0d", b"host:1", fields, BytesBody(b"four")) == (
        b"POST /v1/x?y=%0d HTTP/1.1\r\nHost: host:1\r\nX-A: 1\r\nX-A: 2\r\nAccept: */*\r\n"
        b"Content-Length: 4\r\n\r\n"
    )
    assert request_head(b"GET", b"/", b"h", (), None) == b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    assert b"\r\nContent-Length: 0\r\n" in request_head(b"POST", b"/", b"h", (), None)
    given = request_head(b"GET", b"/", b"h", [(b"Host", [b"other"])], None)
    assert given == b"GET / HTTP/1.1\r\nHost: other\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "name", "value"),
    [
        (b"GET", b"/", b"X-A", b"a\r\nX-B: b"),
        (b"GET", b"/", b"X-A", b"a\nX-B: b"),
        (b"GET", b"/", b"X-A", b"a\rX-B: b"),
        (b"GET", b"/", b"X-A", b"a\0"),
        (b"GET", b"/", b"X-A: a\r\nX-B", b"b"),
        (b"GET", b"/", b"X-A\0", b"b"),
        (b"GET", b"/ HTTP/1.1\r\nX-B: b\r\n", b"X-A", b"a"),
        (b"GET", b"/a b", b"X-A", b"a"),
        (b"GET", b"/\xff", b"X-A", b"a"),
        (b"GET", b"", b"X-A", b"a"),
        (b"GET /\r\n", b"/", b"X-A", b"a"),
        (b"G T", b"/", b"X-A", b"a"),
        (b"", b"/", b"X-A", b"a"),
    ],
)
def test_nothing_can_be_put_into_a_head(
    method: bytes, target: bytes, name: bytes, value: bytes
) -> None:
    with pytest.raises(ValueError):
        request_head(method, target, b"host", [(name, [value])], None)


@pytest.mark.parametrize("uri", [b"/v1/x", b"ftp://host/", b"http:///x", b"", b"http://h/a\nb"])
@ensureDeferred
async def test_what_is_no_uri_is_refused(agent: PersistentAgent, uri: bytes) -> None:
    assert isinstance(await failure_of(agent.request(b"GET", uri)), ValueError)


@pytest.mark.parametrize(
    ("path", "target"), [("", "/"), ("?a=b", "/?a=b"), ("/x?y#z", "/x?y"), ("/#/x", "/")]
)
@ensureDeferred
async def test_targets(
    agent: PersistentAgent, upstream: FakeNewApi, path: str, target: str
) -> None:
    await read(await agent.request(b"GET", (upstream.url + path).encode()))
    call = upstream.calls[0]
    assert call.target == target
    assert call.headers == [("Host", upstream.url.removeprefix("http://"))]


# Connections that are used again:


@ensureDeferred
async def test_a_connection_is_used_again(agent: PersistentAgent, upstream: FakeNewApi) -> None:
    scripts = [
        events(b"one"),
        events(b"two", framing="length"),
        document(b"", 204),
        document(b"", 304),
        document({}),
        verbatim(b""),
    ]
    upstream.play(*scripts[:-1])
    for number in range(5):
        response = await post(agent, upstream)
        assert response.code == (200, 200, 204, 304, 200)[number]
        assert isinstance((await read(response)).reason, ResponseDone)
    assert connections_of(upstream) == 1
    assert [bytes(call.body) for call in upstream.calls] == [b"body"] * 5


@pytest.mark.parametrize(
    "last",
    [
        head(200, [("Connection", "close"), ("Content-Length", "2")]) + b"ab",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
        head(200, [("Content-Length", "2")]) + b"abc",
        head(200, [("Content-Length", "2")]) + b"ab" + head(200, [("Content-Length", "0")]),
    ],
)
@ensureDeferred
async def test_a_connection_of_no_further_use_is_closed(
    agent: PersistentAgent, upstream: FakeNewApi, last: bytes
) -> None:
    upstream.play(verbatim(last))
    reader = await read(await post(agent, upstream))
    assert (reader.body, type(reader.reason)) == (b"ab", ResponseDone)
    await upstream.calls[0].when_closed(1)
    await read(await post(agent, upstream))
    assert connections_of(upstream) == 2


@ensureDeferred
async def test_the_one_that_was_used_last_is_used_first(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    responses = await gatherResults([post(agent, upstream) for _ in range(3)])
    assert connections_of(upstream) == 3
    for response in responses:
        await read(response)
    await read(await post(agent, upstream))
    assert upstream.calls[3].connection is upstream.calls[2].connection


@ensureDeferred
async def test_origins_are_kept_apart(agent: PersistentAgent, upstream: FakeNewApi) -> None:
    other = FakeNewApi()
    try:
        for fake in (upstream, other, upstream, other):
            await read(await post(agent, fake))
        assert (len(upstream.calls), len(other.calls)) == (2, 2)
        assert (connections_of(upstream), connections_of(other)) == (1, 1)
    finally:
        await other.stop()


@ensureDeferred
async def test_only_so_many_origins_are_remembered(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    under_way = agent.request(b"GET", f"{upstream.url}/v1/files".encode())
    for number in range(200):
        with suppress(Exception):
            await agent.request(b"GET", b"http://127.1.1.%d:1/" % number)
    assert len(agent._origins) <= 64
    assert (await under_way).code == 200
    assert (await agent.request(b"GET", f"{upstream.url}/v1/files".encode())).code == 200


@ensureDeferred
async def test_a_connection_that_was_closed_is_not_used(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    for number in range(2):
        await read(await post(agent, upstream))
        upstream.calls[number].close()
        await upstream.calls[number].when_closed()
        # The agent hears of it in a later turn.
        for _ in range(3):
            await deferLater(reactor, 0)
    assert connections_of(upstream) == 2


@ensureDeferred
async def test_unsolicited_bytes_are_not_a_response(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    await read(await post(agent, upstream))
    await upstream.calls[0].send(head(200, [("Content-Length", "4")]) + b"evil")
    await upstream.calls[0].when_closed()
    assert b"evil" not in (await read(await post(agent, upstream))).body
    assert connections_of(upstream) == 2


class FakeConnection:
    is_open = True

    def close(self) -> None:
        self.is_open = False

    abort = close


def test_idle_connections_are_closed_in_time() -> None:
    clock = Clock()
    pool = ConnectionPool(clock)
    first, second, third = (FakeConnection() for _ in range(3))
    pool.release(first)  # type: ignore[arg-type]
    clock.advance(IDLE_TIME / 2)
    pool.release(second)  # type: ignore[arg-type]
    pool.release(third)  # type: ignore[arg-type]
    assert pool.acquire() is third
    for _ in range(20):
        clock.advance(IDLE_TIME / 2 / 15)
    assert (first.is_open, second.is_open) == (False, True)
    for _ in range(20):
        clock.advance(IDLE_TIME / 2 / 15)
    assert (second.is_open, third.is_open) == (False, True)
    assert pool.acquire() is None
    assert clock.getDelayedCalls() == []


def test_one_that_is_about_to_be_closed_is_not_used() -> None:
    pool = ConnectionPool(Clock())
    connections = [FakeConnection() for _ in range(2)]
    for connection in connections:
        pool.release(connection)  # type: ignore[arg-type]
    connections[1].is_open = False
    assert pool.acquire() is connections[0]
    assert pool.acquire() is None


def test_there_are_only_so_many_idle_connections() -> None:
    pool = ConnectionPool(Clock())
    connections = [FakeConnection() for _ in range(IDLE_CONNECTIONS + 2)]
    for connection in connections:
        pool.release(connection)  # type: ignore[arg-type]
    assert [c.is_open for c in connections] == [False] * 2 + [True] * IDLE_CONNECTIONS


@ensureDeferred
async def test_closing_ends_idle_connections_and_those_that_become_idle(
    upstream: FakeNewApi,
) -> None:
    agent = PersistentAgent(reactor, WriteCoalescer(), endpoints(reactor, 10))
    responses = await gatherResults([post(agent, upstream), post(agent, upstream)])
    await read(responses[0])
    await agent.close()
    await upstream.calls[0].when_closed(1)
    assert upstream.calls[1].closed is None
    await read(responses[1])
    await upstream.calls[1].when_closed(1)


# Trying again:


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"])
@ensureDeferred
async def test_a_request_that_may_be_repeated_is(
    agent: PersistentAgent, upstream: FakeNewApi, method: bytes, then: str
) -> None:
    upstream.play(document({}), verbatim(b"", then), document(b"", 204))
    await read(await get(agent, upstream))
    assert (await get(agent, upstream, method)).code == 204
    assert [call.method for call in upstream.calls[1:]] == [method.decode()] * 2


@ensureDeferred
async def test_it_is_repeated_once(agent: PersistentAgent, upstream: FakeNewApi) -> None:
    upstream.play(document({}), verbatim(b"", "close"), verbatim(b"", "close"))
    await read(await get(agent, upstream))
    assert isinstance(await failure_of(get(agent, upstream)), ResponseNeverReceived)
    assert len(upstream.calls) == 3


@pytest.mark.parametrize("how", ["POST", "PATCH", "PUT", "with a body", "after a byte", "new"])
@ensureDeferred
async def test_others_are_not_repeated(
    agent: PersistentAgent, upstream: FakeNewApi, how: str
) -> None:
    if how != "new":
        upstream.play(document({}))
        await read(await get(agent, upstream))
    upstream.play(verbatim(b"H" if how == "after a byte" else b"", "close"))
    before = len(upstream.calls)
    if how == "with a body":
        uri = upstream.url.encode() + b"/v1/x"
        asked = agent.request(b"GET", uri, None, BytesBody(b"body"))
    else:
        asked = get(agent, upstream, how.encode() if how.isupper() else b"GET")
    failure = await failure_of(asked)
    assert isinstance(failure, ResponseFailed)
    assert isinstance(failure, ResponseNeverReceived) == (how != "after a byte")
    assert failure.reasons[0].check(ConnectionDone)
    assert len(upstream.calls) == before + 1


# Responses that are none:


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nno header\r\n"])
@ensureDeferred
async def test_garbage(agent: PersistentAgent, upstream: FakeNewApi, data: bytes) -> None:
    upstream.play(verbatim(data))
    failure = await failure_of(post(agent, upstream))
    assert isinstance(failure, ResponseFailed)
    assert isinstance(failure.reasons[0].value, BadResponse)
    await upstream.calls[0].when_closed(1)


@ensureDeferred
async def test_a_flood_of_headers_is_dammed(agent: PersistentAgent, upstream: FakeNewApi) -> None:
    async def flood(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await call.send(b"X-A: 1\r\n" * 1000)

    upstream.play(flood)
    assert isinstance((await failure_of(post(agent, upstream))).reasons[0].value, BadResponse)
    await upstream.calls[0].when_closed(1)
    assert upstream.calls[0].sent < 10 * MB


@pytest.mark.parametrize(
    ("framing", "then", "kind"),
    [
        ("chunked", "cut", ResponseFailed),
        ("chunked", "reset", ResponseFailed),
        ("close", "cut", PotentialDataLoss),
        ("close", "end", PotentialDataLoss),
        ("length", "end", ResponseDone),
        ("chunked", "end", ResponseDone),
    ],
)
@ensureDeferred
async def test_how_a_body_may_end(
    agent: PersistentAgent, upstream: FakeNewApi, framing: str, then: str, kind: Any
) -> None:
    upstream.play(events(b"one", b"two", framing=framing, then=then))
    reader = await read(await post(agent, upstream))
    assert reader.body == b"onetwo"
    assert type(reader.reason) is kind


@ensureDeferred
async def test_a_body_that_is_short_of_its_length_is_cut(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    upstream.play(verbatim(head(200, [("Content-Length", "9")]) + b"four", "close"))
    response = await post(agent, upstream)
    assert response.length == 9
    reader = await read(response)
    assert (reader.body, type(reader.reason)) == (b"four", ResponseFailed)


@ensureDeferred
async def test_what_came_before_broken_chunks_is_handed_out(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    upstream.play(verbatim(head(200, [("Transfer-Encoding", "chunked")]) + b"2\r\nab\r\nzzz\r\n"))
    reader = await read(await post(agent, upstream))
    assert (reader.body, type(reader.reason)) == (b"ab", ResponseFailed)
    await upstream.calls[0].when_closed(1)


# Reading a body:


@ensureDeferred
async def test_what_one_read_brought_is_one_piece(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    upstream.play(verbatim(head(200, [("Transfer-Encoding", "chunked")]) + b"1\r\na\r\n" * 9))
    reader = Reader()
    (await post(agent, upstream)).deliverBody(reader)
    await until(lambda: reader.pieces, "there is a piece")
    assert reader.pieces == [b"a" * 9]
    await upstream.calls[0].send(b"1\r\nb\r\n" * 3 + b"0\r\n\r\n")
    await reader.end()
    assert reader.pieces == [b"a" * 9, b"bbb"]


def large(size: int) -> Script:
    async def script(call: Call) -> None:
        await call.whole()
        await call.head(200, [("Content-Length", str(size))])
        for _ in range(size // 100_000):
            await call.send(b"x" * 100_000)
        call.end()

    return script


@ensureDeferred
async def test_a_body_waits_for_its_reader(agent: PersistentAgent, upstream: FakeNewApi) -> None:
    upstream.play(large(40 * MB))
    response = await post(agent, upstream)
    assert await quiet(upstream.calls[0]) < 20 * MB
    reader = await read(response)
    assert (len(reader.body), type(reader.reason)) == (40 * MB, ResponseDone)
    await read(await post(agent, upstream))
    assert connections_of(upstream) == 1


@ensureDeferred
async def test_a_short_body_waits_for_its_reader_and_delays_no_other(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    upstream.always(verbatim(head(200, [("Content-Length", "2")]) + b"ab"))
    upstream.play(document(b"ab"))
    response = await post(agent, upstream)
    await until(lambda: upstream.calls[0].finished, "the upstream is done")
    for _ in range(5):
        await deferLater(reactor, 0)
    reader = await read(response)
    assert (reader.body, type(reader.reason)) == (b"ab", ResponseDone)
    with pytest.raises(RuntimeError):
        response.deliverBody(Reader())


class Pausing(Reader):
    """Pauses at every piece, whatever that piece is."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.pauseProducing()


@ensureDeferred
async def test_a_reader_paces_the_upstream(agent: PersistentAgent, upstream: FakeNewApi) -> None:
    upstream.play(large(40 * MB))
    reader = Pausing()
    (await post(agent, upstream)).deliverBody(reader)
    call = upstream.calls[0]
    sent = await quiet(call)
    assert len(reader.pieces) == 1
    reader.transport.resumeProducing()
    await until(lambda: len(reader.pieces) == 2, "there is one more piece")
    reader.dataReceived = super(Pausing, reader).dataReceived  # type: ignore[method-assign]
    reader.transport.resumeProducing()
    assert len(await reader.end()) == 40 * MB
    assert sent < 20 * MB


@ensureDeferred
async def test_a_connection_is_not_given_back_paused(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    async def in_two(call: Call) -> None:
        await call.whole()
        await call.send(head(200, [("Content-Length", "4")]) + b"ab")
        await call.send(b"cd")
        call.end()

    upstream.always(in_two)
    for _ in range(3):
        reader = Pausing()
        (await post(agent, upstream)).deliverBody(reader)
        await until(lambda reader=reader: reader.pieces, "there is a piece")
        reader.transport.resumeProducing()
        assert await reader.end() == b"abcd"
        # It has no hold on the connection any more.
        reader.transport.pauseProducing()
        reader.transport.stopProducing()
    assert connections_of(upstream) == 1


@pytest.mark.parametrize("how", ["stopProducing", "loseConnection", "abortConnection"])
@ensureDeferred
async def test_a_reader_may_stop(agent: PersistentAgent, upstream: FakeNewApi, how: str) -> None:
    upstream.play(large(40 * MB))

    class Stopping(Reader):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            getattr(self.transport, how)()

    reader = await stopped(await post(agent, upstream), Stopping())
    assert len(reader.pieces) == 1
    assert isinstance(reader.reason, ResponseFailed)
    await upstream.calls[0].when_closed(1)
    await read(await post(agent, upstream))


async def stopped(response: Any, reader: Reader) -> Reader:
    response.deliverBody(reader)
    await reader.end()
    return reader


@ensureDeferred
async def test_a_reader_that_stops_at_the_very_end_does_no_harm(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    class Stopping(Reader):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.stopProducing()

    reader = await stopped(await post(agent, upstream, b"x"), Stopping())
    del reader
    await read(await post(agent, upstream))


# Requests that are given up:


@ensureDeferred
async def test_connecting_may_be_cancelled(agent: PersistentAgent) -> None:
    with deaf_port() as port:
        asked = agent.request(b"GET", b"http://127.0.0.1:%d/" % port)
        asked.cancel()
        with pytest.raises(ConnectingCancelledError):
            await asked


@ensureDeferred
async def test_connecting_takes_only_so_long() -> None:
    agent = PersistentAgent(reactor, WriteCoalescer(), endpoints(reactor, 0.2))
    with deaf_port() as port:
        failure = await failure_of(agent.request(b"GET", b"http://127.0.0.1:%d/" % port))
        assert isinstance(failure, ConnectError)
    await agent.close()


@ensureDeferred
async def test_an_unreachable_server_is_an_error(agent: PersistentAgent) -> None:
    failure = await failure_of(agent.request(b"GET", b"http://127.0.0.1:%d/" % free_port()))
    assert isinstance(failure, ConnectError)


@ensureDeferred
async def test_waiting_may_be_cancelled(agent: PersistentAgent, upstream: FakeNewApi) -> None:
    for used in (False, True):
        if used:
            await read(await get(agent, upstream))
        upstream.play(hang())
        asked = get(agent, upstream)
        call = await upstream.when_asked(len(upstream.calls))
        asked.cancel()
        assert isinstance(await failure_of(asked), CancelledError)
        await call.when_closed(1)
    assert len(upstream.calls) == 3


@implementer(IBodyProducer)
class Producer:
    """Produces what the test says."""

    def __init__(self, length: Any) -> None:
        self.length = length
        self.consumer: Any = None
        self.done: Deferred[None] = Deferred()
        self.paused = False
        self.stopped = False

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.stopped = True


@pytest.mark.parametrize("length", [6, UNKNOWN_LENGTH])
@ensureDeferred
async def test_a_body_is_sent_as_it_is_produced(
    agent: PersistentAgent, upstream: FakeNewApi, length: Any
) -> None:
    for _ in range(2):
        producer = Producer(length)
        asked = post(agent, upstream, producer)
        call = await upstream.when_asked(len(upstream.calls))
        producer.consumer.write(b"one")
        await call.when(lambda call=call: bytes(call.body) == b"one")
        # Nothing is no end.
        producer.consumer.write(b"")
        producer.consumer.write(b"two")
        producer.done.callback(None)
        await read(await asked)
        assert bytes(call.body) == b"onetwo"
        expected = ("transfer-encoding", "chunked") if length != 6 else ("content-length", "6")
        assert call.header(expected[0]) == expected[1]
        assert not producer.stopped
    assert connections_of(upstream) == 1


@ensureDeferred
async def test_a_producer_is_paced(agent: PersistentAgent, upstream: FakeNewApi) -> None:
    async def reading_late(call: Call) -> None:
        call.stop_reading()
        await call.when(lambda: call.complete, 30)
        await document({})(call)

    upstream.play(reading_late)
    producer = Producer(60 * MB)
    asked = post(agent, upstream, producer)
    call = await upstream.when_asked()
    written = 0
    while not producer.paused:
        producer.consumer.write(b"x" * 100_000)
        written += 100_000
        await deferLater(reactor, 0)
    assert written < 30 * MB
    call.go_on_reading()
    await until(lambda: not producer.paused, "it may go on")
    producer.consumer.write(b"x" * (60 * MB - written))
    producer.done.callback(None)
    await read(await asked)
    assert len(call.body) == 60 * MB


@pytest.mark.parametrize("extra", [b"toolong", b"two"])
@ensureDeferred
async def test_a_body_of_another_length_is_not_sent(
    agent: PersistentAgent, upstream: FakeNewApi, extra: bytes
) -> None:
    producer = Producer(8)
    asked = post(agent, upstream, producer)
    call = await upstream.when_asked()
    producer.consumer.write(b"one")
    producer.consumer.write(extra)
    producer.done.callback(None)
    failure = await failure_of(asked)
    assert isinstance(failure.reasons[0].value, WrongLength)
    await call.when_closed(1)
    assert not call.complete


@ensureDeferred
async def test_a_producer_that_fails_fails_the_request(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    producer = Producer(8)
    asked = post(agent, upstream, producer)
    call = await upstream.when_asked()
    producer.done.errback(KeyError("why"))
    assert (await failure_of(asked)).reasons[0].check(KeyError)
    await call.when_closed(1)


@pytest.mark.parametrize("how", ["cancelled", "closed"])
@ensureDeferred
async def test_a_producer_is_stopped_when_its_body_is_not_needed(
    agent: PersistentAgent, upstream: FakeNewApi, how: str
) -> None:
    producer = Producer(8)
    asked = post(agent, upstream, producer)
    call = await upstream.when_asked()
    if how == "cancelled":
        asked.cancel()
    else:
        call.reset()
    failure = await failure_of(asked)
    assert isinstance(failure, CancelledError if how == "cancelled" else ResponseNeverReceived)
    await call.when_closed(1)
    assert producer.stopped
    # It may be late.
    producer.consumer.write(b"late")
    producer.done.callback(None)


@ensureDeferred
async def test_an_answer_may_come_before_the_end_of_the_request(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    upstream.play(verbatim(head(415, [("Content-Length", "2")]) + b"no", whole=False))
    producer = Producer(8)
    response = await post(agent, upstream, producer)
    assert response.code == 415
    assert (await read(response)).body == b"no"
    assert producer.stopped
    await upstream.calls[0].when_closed(1)


@ensureDeferred
async def test_an_answer_may_begin_before_the_end_of_the_request(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    async def script(call: Call) -> None:
        await call.send(head(200, [("Content-Length", "4")]) + b"no")
        await call.whole()
        await call.send(b"w!")
        call.end()

    upstream.play(script)
    producer = Producer(3)
    reader = Reader()
    (await post(agent, upstream, producer)).deliverBody(reader)
    producer.consumer.write(b"one")
    producer.done.callback(None)
    assert await reader.end() == b"now!"
    await read(await post(agent, upstream))
    assert connections_of(upstream) == 1


# TLS:


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path)


class Echo(Protocol):
    """Answers a request with the request, and a large one with as much."""

    def __init__(self) -> None:
        self._received = b""

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        start, _, body = self._received.partition(b"\r\n\r\n")
        length = int(start.rpartition(b"Content-Length: ")[2])
        if len(body) == length:
            self.transport.write(head(200, [("Content-Length", str(length))]) + body)
            self._received = b""


@pytest.fixture
def tls_port(certificate: Path) -> Iterator[int]:
    factory = Factory.forProtocol(Echo)
    factory.noisy = False
    context = DefaultOpenSSLContextFactory(str(certificate), str(certificate))
    port = reactor.listenSSL(0, factory, context, interface="127.0.0.1")
    yield port.getHost().port
    pytest_twisted.blockon(port.stopListening())


@ensureDeferred
async def test_tls(monkeypatch: pytest.MonkeyPatch, certificate: Path, tls_port: int) -> None:
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(certificate))
    agent = PersistentAgent(reactor, WriteCoalescer(), endpoints(reactor, 10))
    uri = b"https://localhost:%d/v1/x" % tls_port
    for body in (b"small", b"large" * MB, b"small"):
        response = await agent.request(b"POST", uri, None, BytesBody(body))
        reader = Pausing()
        response.deliverBody(reader)
        while reader.reason is None:
            reader.transport.resumeProducing()
            await deferLater(reactor, 0)
        assert reader.body == body
        assert isinstance(reader.reason, ResponseDone)
    await agent.close()


@ensureDeferred
async def test_an_untrusted_certificate_is_refused(agent: PersistentAgent, tls_port: int) -> None:
    failure = await failure_of(agent.request(b"GET", b"https://localhost:%d/" % tls_port))
    assert isinstance(failure, ResponseNeverReceived)
    assert not failure.reasons[0].check(ConnectionDone, ConnectionLost)
    assert "certificate verify failed" in str(failure.reasons[0].value)


@ensureDeferred
async def test_a_body_that_was_read_is_kept_by_nobody() -> None:
    readers: list[Any] = []

    class Response:
        deliverBody = readers.append

    reading = read_body(Response(), 100)  # type: ignore[arg-type]
    for piece in (b"a", b"b"):
        readers[0].dataReceived(piece)
    readers[0].connectionLost(Failure(ResponseDone()))
    assert await reading == b"ab"
    # Not until the next collection of garbage, either.
    assert readers[0].data == b""
