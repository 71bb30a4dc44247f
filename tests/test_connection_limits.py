"""More connections than there may be, and more than there are file descriptors for."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from gemproxy.chat.errors import overloaded
from gemproxy.http.connection_limits import (
    ConnectionLimiter,
    RefusedConnection,
    RefusedConnections,
    descriptors_are_short,
    reserve,
    response_of,
    soft_limit,
)
from gemproxy.http.transport import PromptPort
from gemproxy.http.write_coalescer import WriteCoalescer
from testing.processes import Running, free_port
from tests.support import Relay, encode, gpt, running_relay, until
from tests.test_admission import all_of, assert_fine, get, post, say, statuses


async def holding(relay: Relay, number: int) -> None:
    """Connections that are open and say nothing."""
    for _ in range(number):
        await relay.connect()
    connections = relay.daemon._connections[0]
    await until(lambda: len(connections.open) == number, "they are there")


@ensureDeferred
async def test_connections_have_their_limit_in_all() -> None:
    async with running_relay(MAX_CONNECTIONS=3) as relay:
        await holding(relay, 3)
        refused = await say(relay, post("Content-Length: 100000"), b"x" * 100_000)
        reply = await refused.reply()
        assert (reply.status, reply.error["code"]) == (503, "overloaded")
        assert "MAX_CONNECTIONS" in reply.error["message"]
        assert (reply.headers["retry-after"], reply.headers["connection"]) == ("5", "close")
        assert statuses(await all_of(refused)) == [503]
        assert len(relay.warnings) == 1
        relay.connections[0].drop()
        await until(lambda: len(relay.daemon._connections[0].open) == 2, "one is gone")
        counted = await relay.count_of("gemproxy_refused_connections_total", 'limit="total"')
        assert counted == 1
        await assert_fine(relay)


@ensureDeferred
async def test_a_daemon_that_stops_waits_for_no_refused_client() -> None:
    async with running_relay(MAX_CONNECTIONS=1) as relay:
        await holding(relay, 1)
        silent = await relay.connect()
        await until(lambda: relay.warnings, "it is refused")
        await relay.daemon.stopService()
        await silent.when(lambda: silent.closed, 1)
        assert statuses(silent.received) == [503]


@ensureDeferred
async def test_and_by_address() -> None:
    async with running_relay(CLIENT_CONNECTIONS=2) as relay:
        await holding(relay, 2)
        reply = await (await say(relay, get("/ready"))).reply()
        assert (reply.status, reply.error["code"]) == (429, "too_many_connections")
        assert reply.headers["retry-after"] == "5"
        await assert_fine(relay)


@ensureDeferred
async def test_many_clients_may_come_through_a_proxy() -> None:
    async with running_relay(CLIENT_CONNECTIONS=2, TRUSTED_PROXIES="127.0.0.0/8") as relay:
        await holding(relay, 5)
        assert (await relay.get("/ready")).status == 200


@ensureDeferred
async def test_and_to_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with running_relay(CLIENT_CONNECTIONS=2, STREAM_PORT=f"unix:{path}") as relay:
        with ExitStack() as opened:
            for _ in range(5):
                client = opened.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(path))
            connections = relay.daemon._connections[0]
            await until(lambda: len(connections.open) == 5, "they are there")
        await until(lambda: not connections.open, "they are gone")


def limiter(clock: Clock, seen: list[str], *limits: int | None, short: bool = False):
    return ConnectionLimiter(
        clock, *limits, lambda address: address == "proxy", seen.append, lambda: short
    )


def test_what_is_counted() -> None:
    seen: list[str] = []
    door = limiter(Clock(), seen, 4, 2)
    for address in ("a", "a", "b", ""):
        assert door.refusal(address) is None
        door.opened(address)
    assert door.refusal("c").code == "overloaded"
    door.closed("b")
    assert door.refusal("a").code == "too_many_connections"
    assert door.refusal("b") is door.refusal("proxy") is door.refusal("") is None
    door.closed("a")
    assert door.refusal("a") is None
    assert seen == ["total", "client"]
    assert limiter(Clock(), seen, None, None, short=True).refusal("a").status == 503
    assert seen[2:] == ["descriptors"]


def test_a_crowd_is_warned_of_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = Clock(), Mock()
    monkeypatch.setattr(ConnectionLimiter, "log", log)
    door = limiter(clock, [], None, None, short=True)
    for _ in range(5):
        door.refusal("a")
        clock.advance(20)
    assert log.warn.call_count == 2


ERROR = overloaded("Too many.", 5)


def refuse(others: RefusedConnections) -> tuple[RefusedConnection, StringTransport]:
    connection, transport = others.protocol(ERROR), StringTransport()
    transport.loseWriteConnection = lambda: None
    connection.makeConnection(transport)
    return connection, transport


def test_who_is_refused_is_answered_once_and_only_listened_to_for_a_moment() -> None:
    clock = Clock()
    connection, transport = refuse(RefusedConnections(clock))
    assert transport.value() == b""
    for _ in range(3):
        connection.dataReceived(get())
    assert transport.value() == response_of(ERROR)
    assert not transport.disconnecting
    clock.advance(2)
    assert transport.disconnecting
    connection.connectionLost()
    assert clock.getDelayedCalls() == []


def test_who_says_nothing_is_told_in_the_end() -> None:
    clock = Clock()
    connection, transport = refuse(RefusedConnections(clock))
    clock.advance(2)
    assert (transport.value(), transport.disconnecting) == (response_of(ERROR), True)
    connection.connectionLost()


def test_of_a_crowd_the_oldest_gives_way() -> None:
    clock = Clock()
    others = RefusedConnections(clock)
    room = reserve(soft_limit()) // 2
    crowd = [refuse(others) for _ in range(room + 2)]
    assert [transport.disconnecting for _, transport in crowd] == [True] * 2 + [False] * room
    assert crowd[0][1].value() == response_of(ERROR)
    for connection, _ in crowd:
        connection.connectionLost()
    assert clock.getDelayedCalls() == []
    last, transport = refuse(others)
    others.close()
    assert transport.disconnecting
    last.connectionLost()
    assert clock.getDelayedCalls() == []


# Descriptors


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """This process can have only so many more file descriptors than it has."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_some_descriptors_are_not_for_clients() -> None:
    assert not descriptors_are_short()
    with descriptors_left(reserve(64) + 1):
        assert not descriptors_are_short()
    for number in (reserve(64), 1, 0):
        with descriptors_left(number):
            assert descriptors_are_short()
    assert (reserve(64), reserve(1024), reserve(10**6)) == (16, 128, 256)


def test_who_comes_when_none_is_left_is_answered() -> None:
    answers: list[int] = []

    def answer() -> bytes:
        answers.append(1)
        return b"Sorry"

    port = PromptPort(0, None, 5, "127.0.0.1", None)
    port.overflow, port.coalescer = answer, WriteCoalescer()
    listening = port.createInternetSocket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    with listening, ExitStack() as opened:
        clients = [opened.enter_context(socket.socket()) for _ in range(4)]
        for client in clients[:3]:
            client.connect(listening.getsockname())
        clients[0].sendall(get())
        for _ in range(2):
            with descriptors_left(0), pytest.raises(BlockingIOError):
                listening.accept()
        assert [client.recv(10) for client in clients[:3]] == [b"Sorry"] * 3
        assert [client.recv(10) for client in clients[:3]] == [b""] * 3
        clients[3].connect(listening.getsockname())
        listening.accept()[0].close()
        assert len(answers) == 3
    assert (listening.fileno(), listening._spare) == (-1, None)


def ask(port: int, data: bytes, seconds: float = 10) -> bytes:
    with socket.create_connection(("127.0.0.1", port), seconds) as client:
        client.sendall(data)
        told = b""
        while piece := client.recv(65536):
            told += piece
        return told


@pytest.mark.slow
def test_a_daemon_whose_descriptors_are_gone_says_so(tmp_path: Path) -> None:
    """A real one, with C{ulimit -n 64}, and clients that make it open as many to New-API."""
    with socket.socket() as upstream, ExitStack() as opened:
        upstream.bind(("127.0.0.1", 0))
        # It takes requests, and answers none.
        upstream.listen(100)
        url = f"http://127.0.0.1:{upstream.getsockname()[1]}"
        port = free_port()
        twistd = Path(sys.executable).with_name("twistd")
        environ = {
            "PATH": os.environ["PATH"],
            "PORT": "off",
            "STREAM_PORT": str(port),
            "GEMINI_PROXY_URL": url,
            "UPSTREAM_URL": url,
            "MAX_RETRIES": "0",
            "LOG_DIR": "",
            "USAGE_DAYS": "0",
            "DRAIN": "0",
        }
        command = [str(twistd), "-n", "--pidfile=", "gemproxy"]
        daemon = Running.start(
            ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command], tmp_path, environ
        )
        try:
            daemon.until_listening(port)
            closing = get("/health", "Connection: close")
            body = encode(gpt())
            asking = post(f"Content-Length: {len(body)}") + body
            clients = [
                opened.enter_context(socket.create_connection(("127.0.0.1", port), 10))
                for _ in range(100)
            ]
            # Those that it took; the others were refused.
            assert statuses(ask(port, closing)) in ([503], [200])
            for client in clients:
                try:
                    client.sendall(asking)
                except OSError:
                    continue
            for _ in range(3):
                told = ask(port, closing)
                assert statuses(told) == [503]
                assert b"ulimit -n" in told
            for client in clients:
                client.settimeout(0)
                try:
                    told = client.recv(1000)
                except OSError:
                    continue
                # New-API is not to blame, and does not rest.
                assert not told or b"ulimit -n" in told
                client.close()
            opened.close()
            end = time.monotonic() + 10
            while statuses(ask(port, closing)) != [200]:
                assert time.monotonic() < end
        finally:
            daemon.stop()
        said = daemon.log.read_bytes()
        assert b"Traceback" not in said
        assert said.count(b"connections are refused") == 1
