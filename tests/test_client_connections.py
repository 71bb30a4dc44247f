"""One connection of a client: when its requests are read, and how long it has for them."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.web.http import Request

from gemproxy.http.client_connections import ClientChannel, Connections
from gemproxy.http.connection_limits import ConnectionLimiter
from gemproxy.service import Patience
from gemproxy.web.throttle import AdmissionThrottle
from tests.support import Relay, running_relay, until
from tests.test_admission import all_of, assert_fine, get, post, say, statuses

pytestmark = pytest.mark.slow

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


def unlimited() -> ConnectionLimiter:
    return ConnectionLimiter(Clock(), None, None, lambda address: False, lambda limit: None)


@define
class Site:
    throttle: AdmissionThrottle
    connections: Connections = field(factory=lambda: Connections(unlimited()))
    head_timeout: float = 30.0


TURN = 0.001


class Server:
    """
    A channel over a transport in memory. A turn of its reactor lasts L{TURN} seconds.

    @ivar asked: the requests so far; they are answered C{at_once}, or by the test.
    """

    def __init__(self, at_once: bool = True) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.asked: list[Request] = []
        server = self

        class Answered(Request):
            def process(self) -> None:
                server.asked.append(self)
                if at_once:
                    self.answer()

            def wait_for_body(self) -> None:
                """What a L{ServerRequest} does then is of no interest here."""

            def answer(self) -> None:
                self.setHeader(b"content-length", b"2")
                self.write(b"ok")
                self.finish()

        self.channel = ClientChannel()
        self.channel.callLater = lambda seconds, *call: self.clock.callLater(seconds or TURN, *call)
        self.channel.timeOut = 60
        self.channel.requestFactory = Answered
        self.throttle = AdmissionThrottle(self.clock)
        self.channel.site = Site(self.throttle)
        self.channel.makeConnection(self.transport)

    @property
    def paths(self) -> list[int]:
        return [int(request.path[1:]) for request in self.asked]

    @property
    def reads(self) -> bool:
        return self.transport.producerState == "producing"

    def turn(self) -> None:
        self.clock.advance(TURN)

    def lose(self) -> None:
        self.channel.connectionLost(None)
        assert self.clock.getDelayedCalls() == []


@pytest.mark.parametrize("kind", [GET, POST])
def test_one_request_is_answered_in_a_turn(kind: bytes) -> None:
    server = Server()
    server.channel.dataReceived(b"".join(kind % n for n in range(5)))
    for number in range(5):
        assert server.paths == [*range(number + 1)]
        # What has come is enough; and when it is answered, more may come.
        assert server.reads is (number == 4)
        server.turn()
    server.channel.dataReceived(kind % 5)
    assert server.paths == [*range(6)]
    server.lose()


@pytest.mark.parametrize("kind", [GET, POST])
def test_nor_is_more_than_one_if_answers_take_their_time(kind: bytes) -> None:
    server = Server(at_once=False)
    server.channel.dataReceived(b"".join(kind % n for n in range(5)))
    for number in range(5):
        assert server.paths == [*range(number + 1)]
        server.turn()
        assert server.paths == [*range(number + 1)]
        server.asked[-1].answer()
        server.turn()
    assert server.reads
    server.lose()


def in_a_burst() -> tuple[Server, list[int]]:
    """A server whose next request has to wait, and the numbers of those that began."""
    server, begun = Server(), list[int]()
    server.clock.advance(1)
    for number in range(9):
        server.throttle.spread(partial(begun.append, number))
    return server, begun


@pytest.mark.parametrize("pieces", [1, 2, 10])
def test_a_request_of_a_burst_is_parsed_when_it_is_its_turn(pieces: int) -> None:
    server, begun = in_a_burst()
    request = POST % 1
    size = -(-len(request) // pieces)
    for start in range(0, len(request), size):
        server.channel.dataReceived(request[start : start + size])
    assert (server.paths, len(begun)) == ([], 8)
    server.turn()
    assert (server.paths, len(begun)) == ([1], 9)
    server.turn()
    server.channel.dataReceived(GET % 2)
    assert server.paths == [1, 2], "the burst is over"
    server.lose()


def test_what_waits_is_taken_in_before_its_turn_when_the_daemon_stops() -> None:
    server, begun = in_a_burst()
    server.channel.dataReceived(POST % 1)
    server.channel.site.connections.take_in()
    assert (server.paths, len(begun)) == ([1], 8)
    server.turn()
    assert (server.paths, len(begun)) == ([1], 9)
    server.lose()


def test_what_waits_for_its_turn_is_not_read_without_end() -> None:
    server, _ = in_a_burst()
    server.channel.dataReceived(POST % 1)
    assert server.reads
    server.channel.dataReceived((GET % 2) * 2000)
    assert not server.reads
    server.turn()
    assert server.paths == [1]
    server.lose()


def test_nobody_is_asked_for_a_client_that_goes_while_it_waits() -> None:
    server, begun = in_a_burst()
    server.channel.dataReceived(POST % 1)
    server.channel.connectionLost(None)
    server.turn()
    assert (server.paths, len(begun)) == ([], 9)
    assert server.clock.getDelayedCalls() == []


def test_a_client_that_leaves_its_answers_is_not_read() -> None:
    server = Server()
    server.channel.dataReceived(GET % 0 + GET % 1)
    # What a transport does whose buffer is full.
    server.channel.pauseProducing()
    for _ in range(3):
        server.turn()
    assert (server.paths, server.reads) == ([0], False)
    server.channel.resumeProducing()
    server.turn()
    assert (server.paths, server.reads) == ([0, 1], True)
    server.lose()


def test_nor_is_one_that_leaves_an_answer_under_way() -> None:
    server = Server(at_once=False)
    server.channel.dataReceived(GET % 0)
    server.channel.pauseProducing()
    assert server.reads, "nobody would notice that it goes"
    server.channel.dataReceived(GET % 1)
    assert not server.reads
    server.channel.resumeProducing()
    assert server.reads
    server.channel.pauseProducing()
    server.asked[-1].answer()
    server.turn()
    assert (server.paths, server.reads) == ([0], False)
    server.channel.resumeProducing()
    server.turn()
    assert server.paths == [0, 1]
    server.lose()


def test_a_full_transport_is_noticed_without_a_further_request_too() -> None:
    server = Server(at_once=False)
    server.channel.dataReceived(GET % 0)
    server.channel.pauseProducing()
    server.asked[-1].answer()
    assert not server.reads
    server.channel.resumeProducing()
    assert server.reads
    server.lose()


def test_a_transport_that_fills_and_empties_lets_nothing_pile_up() -> None:
    server = Server()
    server.channel.dataReceived(b"".join(GET % n for n in range(10)))
    for _ in range(9):
        server.channel.pauseProducing()
        server.channel.resumeProducing()
        assert not server.reads
        server.turn()
    assert (server.paths, server.reads) == ([*range(10)], True)
    server.lose()


def test_what_is_left_of_a_closed_connection_is_forgotten() -> None:
    server = Server()
    server.channel.dataReceived(GET % 0 + GET % 1)
    server.lose()
    assert server.paths == [0]


@given(data=st.data(), kinds=st.lists(st.sampled_from([GET, POST]), min_size=1, max_size=6))
def test_every_request_is_answered_once_however_it_comes(data: Any, kinds: list[bytes]) -> None:
    server = Server()
    rest = b"".join(kind % number for number, kind in enumerate(kinds))
    steps = st.sampled_from(["receive", "turn", "fill", "empty"])
    while rest or len(server.paths) < len(kinds):
        step = data.draw(steps) if rest else "empty"
        if step == "receive" and server.reads:
            size = data.draw(st.integers(1, 100))
            server.channel.dataReceived(rest[:size])
            rest = rest[size:]
        elif step == "turn":
            before = len(server.asked)
            server.turn()
            assert len(server.asked) <= before + 1
        elif step == "fill":
            server.channel.pauseProducing()
        elif step == "empty":
            server.channel.resumeProducing()
            server.turn()
    assert server.paths == [*range(len(kinds))]
    server.lose()


# Time for the head


@pytest.mark.parametrize("said", [b"", b"G", b"GET / HT", b"GET / HTTP/1.1\r\n", GET[:-2] % 0])
def test_a_head_has_its_time_from_the_beginning_of_the_connection(said: bytes) -> None:
    server = Server()
    server.clock.advance(20)
    for byte in said:
        server.channel.dataReceived(bytes([byte]))
    server.clock.advance(9.9)
    assert not server.transport.disconnecting
    server.clock.advance(0.2)
    assert server.transport.disconnecting
    server.lose()


@pytest.mark.parametrize("said", [b"G", b"GET / HTTP/1.1\r\n"])
def test_a_further_one_has_its_time_from_its_first_byte(said: bytes) -> None:
    server = Server()
    server.channel.dataReceived(GET % 0)
    server.clock.advance(50)
    for byte in said:
        server.channel.dataReceived(bytes([byte]))
        server.clock.advance(1)
    assert not server.transport.disconnecting
    server.clock.advance(30)
    assert server.transport.disconnecting
    server.lose()


def test_neither_a_body_nor_an_answer_nor_silence_counts() -> None:
    server = Server(at_once=False)
    server.clock.advance(29)
    server.channel.dataReceived(POST[:-1] % 0)
    for _ in range(3):
        server.clock.advance(20)
        assert not server.transport.disconnecting
        server.channel.setTimeout(60)
    server.channel.dataReceived(b"c" + GET % 1)
    server.clock.advance(100)
    server.asked[-1].answer()
    server.turn()
    server.asked[-1].answer()
    assert server.paths == [0, 1]
    server.clock.advance(59)
    assert not server.transport.disconnecting
    server.lose()


# Over real sockets


def posted(path: str) -> bytes:
    return post("Content-Length: 2", path=path) + b"{}"


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        (get("/nowhere"), ""),
        (get("/health"), ""),
        (get("/v1/models/gpt-x"), "the-key"),
        (get("/metrics", "x-api-key: the-key"), "the-key"),
        (posted("/v1/chat/completions"), ""),
    ],
    ids=["unknown", "health", "without a key", "metrics", "invalid"],
)
@ensureDeferred
async def test_a_client_that_pipelines_holds_nobody_up(request_: bytes, key: str) -> None:
    number = 200
    async with running_relay(PROXY_API_KEYS=key) as relay:
        client = await say(relay, request_ * number)
        other = await say(relay, get("/ready"))
        await other.reply()
        assert len(statuses(client.received)) < number / 2
        await client.when(lambda: len(statuses(client.received)) == number)
        assert len(set(statuses(client.received))) == 1


@ensureDeferred
async def test_answers_that_nobody_takes_are_not_made() -> None:
    async with running_relay() as relay:
        client = await relay.connect()
        client.transport.pauseProducing()
        await until(lambda: relay.daemon._connections[0].open, "it is there")
        (channel,) = relay.daemon._connections[0].open
        for one in (client.transport, channel.transport):
            # The system would keep megabytes of answers.
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                one.getHandle().setsockopt(socket.SOL_SOCKET, option, 4096)
        client.transport.write(get("/metrics") * 200 + get("/last"))
        await until(lambda: channel._waitingForTransport, "the client's answers are left")
        made = await relay.count_of("gemproxy_responses_total", '"200"')
        for _ in range(20):
            await relay.get("/health")
        assert await relay.count_of("gemproxy_responses_total", '"200"') == made + 21
        assert made < 150
        assert channel.transport._tempDataLen + len(channel.transport.dataBuffer) < 500_000
        assert len(channel._buffer) < 200_000
        client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
        client.transport.resumeProducing()
        await client.when(lambda: b"/last" in client.received[-1000:])
        assert statuses(client.received) == [200] * 200 + [404]
        client.drop()
        await assert_fine(relay)


@pytest.mark.parametrize("patience", [Patience(headers=0.3)])
@ensureDeferred
async def test_a_first_line_a_byte_at_a_time_has_its_time(relay: Relay, patience: Patience) -> None:
    began = reactor.seconds()
    first = await relay.connect()
    second = await say(relay, get())
    await second.reply()
    silent = await relay.connect()
    second.received.clear()
    while not (first.closed and second.closed) and reactor.seconds() < began + 5:
        for client in (first, second):
            client.transport.write(b"G")
        await deferLater(reactor, 0.02)
    for client in (first, second, silent):
        assert await all_of(client) == b""
    assert 0.3 <= reactor.seconds() - began < 3
    await assert_fine(relay)


@pytest.mark.parametrize("patience", [Patience(headers=0.1)])
@ensureDeferred
async def test_a_connection_may_be_idle_for_longer(relay: Relay, patience: Patience) -> None:
    client = await say(relay, get())
    await client.reply()
    await deferLater(reactor, 0.3)
    client.received.clear()
    client.transport.write(get())
    assert (await client.reply()).status == 200
