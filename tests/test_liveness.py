"""Connections whose other side vanishes: what the system is told to watch, and what is repeated."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.web.client import ResponseFailed

from gemproxy.http.agent import PersistentAgent
from gemproxy.http.body import RepeatableBody
from gemproxy.http.client_connections import STALLED
from gemproxy.http.connection import UNACKNOWLEDGED
from testing.fake_newapi import FakeNewApi, document, hang, verbatim
from testing.google import scenarios
from testing.tls import make_certificate
from tests.support import Connection, Product, Relay, chat, running_relay, shared_daemon
from tests.test_http_agent import Echo, connections_of, failure_of, read

shared_product = shared_daemon("module", MAX_RETRIES=0)

on_linux = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option"
)


def options(transport: Any) -> dict[str, int]:
    """The options of the socket below a transport."""
    while not hasattr(transport, "getHandle") or hasattr(transport, "wrappedProtocol"):
        transport = transport.transport
    handle = transport.getHandle()
    return {
        "probed": handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "after": handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        "interval": handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        "most": handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        "limit": handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    }


PROBED = {"probed": 1, "after": 10, "interval": 10, "most": 3}


def idle_connection(agent: PersistentAgent) -> Any:
    [origin] = agent._origins.values()
    [connection] = origin.pool._idle
    return connection


@on_linux
@ensureDeferred
async def test_a_request_on_a_used_connection_must_be_acknowledged(
    agent: PersistentAgent, upstream: FakeNewApi
) -> None:
    url = f"{upstream.url}/v1/x".encode()
    upstream.play(document({}), hang(), document({}))
    await read(await agent.request(b"GET", url))
    connection = idle_connection(agent)
    assert options(connection.transport) == PROBED | {"limit": 0}
    asked = agent.request(b"GET", url)
    call = await upstream.when_asked(1)
    assert options(connection.transport)["limit"] == UNACKNOWLEDGED * 1000
    await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
    response = await asked
    # From the first byte on, its owner decides how long the silence may be.
    assert options(connection.transport)["limit"] == 0
    await call.send(b"body")
    await read(response)


@on_linux
@ensureDeferred
async def test_the_limit_is_less_than_the_patience_with_the_backend() -> None:
    async with running_relay(TIMEOUT=10) as relay:
        relay.upstream.play(document({}), hang())
        await relay.get("/v1/files")
        connection = idle_connection(relay.daemon._agent)
        await relay.send("GET", "/v1/files")
        await relay.upstream.when_asked(1)
        assert options(connection.transport)["limit"] == 5000


@pytest.fixture
def tls_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = DefaultOpenSSLContextFactory(str(certificate), str(certificate))
    port = reactor.listenSSL(0, Factory.forProtocol(Echo), context, interface="127.0.0.1")
    yield b"https://localhost:%d/" % port.getHost().port
    pytest_twisted.blockon(port.stopListening())


@on_linux
@ensureDeferred
async def test_connections_with_tls_are_watched(agent: PersistentAgent, tls_url: bytes) -> None:
    await read(await agent.request(b"POST", tls_url, None, RepeatableBody(b"one")))
    connection = idle_connection(agent)
    assert options(connection.transport) == PROBED | {"limit": 0}
    asked = agent.request(b"POST", tls_url, None, RepeatableBody(b"two"))
    assert options(connection.transport)["limit"] == UNACKNOWLEDGED * 1000
    assert (await read(await asked)).body == b"two"
    assert options(connection.transport)["limit"] == 0
    await agent.close()


@on_linux
@ensureDeferred
async def test_clients_are_watched(relay: Relay) -> None:
    await relay.get("/health")
    [connections] = relay.daemon._connections
    [channel] = connections.open
    seen = options(channel.transport)
    assert (seen["probed"], seen["after"], seen["limit"]) == (1, 60, STALLED * 1000)


@ensureDeferred
async def test_a_unix_socket_has_nothing_to_be_watched(tmp_path: Path) -> None:
    path = str(tmp_path / "gemproxy.sock")
    async with running_relay(STREAM_PORT=f"unix:{path}") as relay:
        endpoint = UNIXClientEndpoint(reactor, path)
        connection = await endpoint.connect(Factory.forProtocol(Connection))
        connection.send("GET", "/health")
        assert (await connection.reply()).status == 200
        connection.drop()
        assert relay.warnings == []


@pytest.mark.parametrize("then", ["close", "reset"])
@ensureDeferred
async def test_a_body_that_may_be_repeated_is(
    agent: PersistentAgent, upstream: FakeNewApi, then: str
) -> None:
    url = f"{upstream.url}/v1/x".encode()
    upstream.play(document({}), verbatim(b"", then), document(b"yes"))
    await read(await agent.request(b"GET", url))
    response = await agent.request(b"POST", url, None, RepeatableBody(b"body"))
    assert (await read(response)).body == b"yes"
    assert [bytes(call.body) for call in upstream.calls] == [b"", b"body", b"body"]
    assert connections_of(upstream) == 2


@pytest.mark.parametrize("how", ["a new connection", "after a byte", "twice"])
@ensureDeferred
async def test_but_not_for_any_failure(
    agent: PersistentAgent, upstream: FakeNewApi, how: str
) -> None:
    url = f"{upstream.url}/v1/x".encode()
    if how != "a new connection":
        upstream.play(document({}))
        await read(await agent.request(b"GET", url))
    cut = verbatim(b"H" if how == "after a byte" else b"", "close")
    upstream.play(cut, cut, document({}))
    before = len(upstream.calls)
    asked = agent.request(b"POST", url, None, RepeatableBody(b"body"))
    assert isinstance(await failure_of(asked), ResponseFailed)
    assert len(upstream.calls) == before + (2 if how == "twice" else 1)


@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_google_is_asked_again_if_a_used_connection_is_lost(
    product: Product, stream: bool
) -> None:
    product.api.play(
        scenarios.answer("one"), scenarios.cut(), scenarios.answer("two"), scenarios.answer("three")
    )
    for content in ("one", "two", "three"):
        reply = await product.ask(chat(stream=stream))
        assert (reply.status, reply.content) == (200, content)
    assert len(product.asked) == 4
    first, _, second, _ = product.asked
    assert first.parts == second.parts
