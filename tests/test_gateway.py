"""Who gets past the gateway, how much it takes of a request, and what it tells the CLI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater

from gemproxy.chat.jsontext import dumps
from gemproxy.gemini.api.call import ApiCall
from gemproxy.gemini.cli import gateway as module
from gemproxy.gemini.cli.gateway import EMPTY, Gateway
from gemproxy.gemini.translate.reply import Reply
from tests.support import Client, Connection

MODEL = "v1beta/models/gemini-x:streamGenerateContent"


@asynccontextmanager
async def started(gateway: Gateway) -> AsyncIterator[tuple[Client, str]]:
    """A client, and the path that workers are told."""
    gateway.startService()
    port, _, secret = gateway.url.removeprefix("http://127.0.0.1:").partition("/")
    client = Client(int(port))
    try:
        yield client, f"/{secret}/"
    finally:
        client.drop_all()
        await gateway.stopService()


def running_gateway(api: Any = None) -> AbstractAsyncContextManager[tuple[Client, str]]:
    return started(gateway_to(api))


def gateway_to(api: Any) -> Gateway:
    return Gateway(reactor, TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), api)


async def begun(client: Client, method: str, path: str, *headers: str) -> Connection:
    """A request of which only the head is sent."""
    connection = await client.connect()
    connection.transport.write(
        "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode()
    )
    return connection


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("POST", f"/{'x' * 24}/{MODEL}"),
        ("POST", "SECRET"),
        ("POST", "SECRETv1beta/models/x:countTokens"),
        ("GET", f"SECRET{MODEL}"),
        ("POST", f"SECRET../{MODEL}"),
    ],
)
@ensureDeferred
async def test_a_request_for_nothing_is_refused_before_its_body(method: str, path: str) -> None:
    async with running_gateway() as (client, secret):
        path = path.replace("SECRET", secret)
        for body in ("Content-Length: 1000000", "Transfer-Encoding: chunked"):
            connection = await begun(client, method, path, body)
            await connection.when(lambda c=connection: c.closed)
            assert connection.received.startswith(b"HTTP/1.1 404 ")


@ensureDeferred
async def test_a_body_has_a_limit(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_REQUEST_LIMIT", 1000)
    async with running_gateway() as (client, secret):
        connection = await begun(client, "POST", secret + MODEL, "Content-Length: 1001")
        await connection.when(lambda: connection.closed)
        assert connection.received.startswith(b"HTTP/1.1 413 ")
        chunked = await begun(
            client, "POST", f"{secret}{MODEL}?alt=sse", "Transfer-Encoding: chunked"
        )
        for _ in range(3):
            chunked.transport.write(b"1f4\r\n" + b"x" * 500 + b"\r\n")
        await chunked.when(lambda: chunked.closed)
        assert chunked.received.startswith(b"HTTP/1.1 413 ")


@ensureDeferred
async def test_what_is_no_conversation_is_refused_when_it_is_read() -> None:
    async with running_gateway() as (client, secret):
        for body in (b"", b"{", b"[]", b"{}", b"x" * 200_000):
            reply = await (await client.send("POST", secret + MODEL, body)).reply()
            assert reply.status == 404
            assert reply.json["error"]["message"] == "refused"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST SECRET HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST SECRET HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
        (b"POST SECRET HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", b"400"),
        (b"POST SECRET HTTP/1.1\r\nX: " + b"x" * 70_000, b"431"),
        (b"POST /" + b"x" * 70_000, b"431"),
    ],
)
@ensureDeferred
async def test_what_is_no_request_is_hung_up_on(sent: bytes, status: bytes) -> None:
    async with running_gateway() as (client, secret):
        connection = await client.connect()
        connection.transport.write(sent.replace(b"SECRET", (secret + MODEL).encode()))
        await connection.when(lambda: connection.closed)
        assert connection.received.startswith(b"HTTP/1.1 " + status)


class Api:
    """An API of which the test says when it has answered."""

    def __init__(self) -> None:
        self.answering: Deferred[None] = Deferred()

    def answer(self, call: ApiCall, body: bytes, headers: Any) -> Deferred[None]:
        call.asked = True
        return self.answering


def call_for(
    gateway: Gateway, nonce: str, said: list[Any]
) -> tuple[ApiCall, Deferred[None], bytes]:
    """A call that is expected, what tells of its end, and what the CLI sends for it."""
    call = ApiCall("m", "k", lambda: None, said.append, said.append, Reply())
    over = gateway.open(nonce, call, lambda asked: b"{}")
    asked = {"contents": [{"role": "user", "parts": [{"text": f"{nonce}:go:"}]}]}
    return call, over, dumps(asked)


@ensureDeferred
async def test_the_cli_gets_an_empty_reply_while_the_call_goes_on() -> None:
    api, said = Api(), list[Any]()
    gateway = gateway_to(api)
    call, over, asked = call_for(gateway, "abc", said)
    async with started(gateway) as (client, secret):
        connection = await client.send("POST", secret + MODEL, asked)
        reply = await connection.reply()
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.body == EMPTY
        # There is nothing for a second one, and what becomes of the CLI is nothing to the answer.
        connection.transport.abortConnection()
        again = await (await client.send("POST", secret + MODEL, asked)).reply()
        assert again.status == 404
        call.received(b'data: {"candidates":[{"content":{"parts":[{"text":"Yes."}]}}]}\n\n')
        assert said == ["Yes."]
        assert not (over.called or call.aborted)
        api.answering.callback(None)
        assert over.called


@ensureDeferred
async def test_one_connection_serves_one_request_after_the_other() -> None:
    api = Api()
    api.answering.callback(None)
    gateway = gateway_to(api)
    async with started(gateway) as (client, secret):
        connection = await client.connect()
        for number in range(3):
            _, over, asked = call_for(gateway, f"n{number}", [])
            connection.received.clear()
            connection.send("POST", secret + MODEL, asked)
            reply = await connection.reply()
            assert (over.called, reply.status, reply.body) == (True, 200, EMPTY)
            # A client that is told of no time opens another connection after a short while.
            assert reply.headers["keep-alive"] == "timeout=60"
        # However a request is cut, it is the same.
        _, over, asked = call_for(gateway, "cut", [])
        connection.received.clear()
        whole = f"POST {secret}{MODEL} HTTP/1.1\r\nContent-Length: {len(asked)}\r\n\r\n".encode()
        connection.transport.setTcpNoDelay(True)
        for byte in whole + asked:
            connection.transport.write(bytes([byte]))
            await deferLater(reactor, 0)
        assert (await connection.reply()).body == EMPTY
