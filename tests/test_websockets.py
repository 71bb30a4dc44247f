"""WebSockets between clients and an upstream, with frames by hand (RFC 6455) and by a library."""

from __future__ import annotations

import base64
import hashlib
from functools import partial
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from gemproxy.openai.headers import to_upstream
from testing.fake_newapi import JSON, Call, Script, document, hang, verbatim
from tests.support import Connection, Relay, running_relay, until
from tests.test_passthrough import MB, sent_by
from tests.test_relay_flow import memory, quiet

pytestmark = pytest.mark.slow

NONCE = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(
    hashlib.sha1(NONCE.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 - as RFC 6455 has it
).decode()
KEY = "sk-fixed-1234"


def frame(opcode: int, payload: bytes, masked: bool = False) -> bytes:
    """A frame of at most 125 bytes; those of clients are masked."""
    assert len(payload) < 126
    head = bytes([0x80 | opcode, len(payload) | (0x80 if masked else 0)])
    if not masked:
        return head + payload
    mask = b"\x01\x02\x03\x04"
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


CLOSE = frame(8, (4321).to_bytes(2, "big") + b"gone fishing")


async def open_websocket(relay: Relay, path: str = "/v1/realtime?model=gpt", **headers: str) -> Any:
    wanted = {
        "Connection": "keep-alive, Upgrade",
        "Upgrade": "WebSocket",
        "Sec_WebSocket_Key": NONCE,
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Extensions": "permessage-deflate",
        "Sec_Fetch_Mode": "websocket",
    } | headers
    return await relay.send("GET", path, **wanted)


def switch(*early: bytes) -> Script:
    """Accepts a WebSocket, and sends frames in the same piece."""

    async def script(call: Call) -> None:
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {ACCEPT}",
            "Sec-WebSocket-Protocol: realtime",
        ]
        await call.send("\r\n".join([*lines, "", ""]).encode() + b"".join(early))

    return script


async def accepted(relay: Relay, client: Connection, number: int = 0) -> Call:
    await client.until_received(b"\r\n\r\n")
    assert client.received.startswith(b"HTTP/1.1 101 "), client.received
    return await relay.upstream.when_asked(number)


def came(call: Call, data: bytes) -> Deferred[None]:
    """Waits for bytes of the client at the upstream."""
    return Deferred.fromCoroutine(
        until(lambda: data in call.connection._received, f"{data!r} has come")
    )


@pytest.mark.parametrize("path", ["/v1/realtime?model=gpt&a=%20", "/v1/some/thing", "/mj/live/"])
@ensureDeferred
async def test_bytes_pass_in_both_directions(relay: Relay, path: str) -> None:
    relay.upstream.play(switch(frame(1, b"early")))
    protocols = "realtime, openai-insecure-api-key.sk-client, openai-beta.realtime-v1"
    client = await open_websocket(
        relay, path, Authorization="Bearer sk-1", Sec_WebSocket_Protocol=protocols
    )
    call = await accepted(relay, client)
    assert (call.method, call.target) == ("GET", path)
    assert call.all_headers("connection") == ["Upgrade"]
    assert call.all_headers("upgrade") == ["websocket"]
    assert call.header("sec-websocket-key") == NONCE
    assert call.header("sec-websocket-version") == "13"
    assert call.header("sec-websocket-extensions") == "permessage-deflate"
    assert call.header("sec-websocket-protocol") == protocols
    assert call.header("authorization") == "Bearer sk-1"
    assert call.header("x-forwarded-for") == "127.0.0.1"
    assert call.header("sec-fetch-mode") is None
    await client.until_received(frame(1, b"early"))
    head = bytes(client.received).lower().split(b"\r\n\r\n")[0]
    assert b"\r\nconnection: upgrade" in head
    assert b"\r\nupgrade: websocket" in head
    assert b"\r\nsec-websocket-accept: " + ACCEPT.lower().encode() in head
    assert b"\r\nsec-websocket-protocol: realtime" in head
    assert b"transfer-encoding" not in head
    assert b"content-length" not in head
    for number in range(20):
        client.transport.write(frame(2, b"up %d" % number, masked=True))
        await came(call, frame(2, b"up %d" % number, masked=True))
        await call.send(frame(1, b"down %d" % number))
        await client.until_received(frame(1, b"down %d" % number))
    assert client.received.split(b"\r\n\r\n", 1)[1].startswith(frame(1, b"early"))


@ensureDeferred
async def test_what_a_client_sends_too_early_arrives_in_order(relay: Relay) -> None:
    client = await open_websocket(relay)
    relay.upstream.always(hang())
    call = await relay.upstream.when_asked()
    early = b"".join(frame(2, b"%05d" % number * 20, masked=True) for number in range(500))
    client.transport.write(early)
    await deferLater(reactor, 0.05)
    await switch()(call)
    await accepted(relay, client)
    client.transport.write(b"last")
    await came(call, b"last")
    assert bytes(call.connection._received) == early + b"last"


@pytest.mark.parametrize("who", ["client", "upstream"])
@ensureDeferred
async def test_the_code_of_a_close_passes_and_then_both_are_closed(relay: Relay, who: str) -> None:
    relay.upstream.play(switch())
    client = await open_websocket(relay)
    call = await accepted(relay, client)
    if who == "upstream":
        await call.send(CLOSE)
        call.close()
        await client.when(lambda: client.closed, 5)
        assert client.received.endswith(CLOSE)
        await call.when_closed()
    else:
        client.transport.write(CLOSE)
        await came(call, CLOSE)
        client.transport.loseConnection()
        await call.when_closed()
    await until(lambda: not relay.daemon._admission.open, "nothing is under way")


@ensureDeferred
async def test_the_end_of_one_side_is_the_end_of_the_other(relay: Relay) -> None:
    relay.upstream.always(switch())
    client = await open_websocket(relay)
    call = await accepted(relay, client)
    client.drop()
    await call.when_closed(1)
    client = await open_websocket(relay)
    call = await accepted(relay, client, 1)
    call.reset()
    await client.when(lambda: client.closed, 5)
    relay.upstream.always(hang())
    client = await open_websocket(relay)
    call = await relay.upstream.when_asked(2)
    client.drop()
    await call.when_closed(1)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500])
@ensureDeferred
async def test_a_refusal_arrives_as_it_is(relay: Relay, status: int) -> None:
    body = {"error": {"message": "No."}}
    relay.upstream.play(document(body, status, [JSON, ("Retry-After", "9")], "No Way"))
    client = await open_websocket(relay)
    reply = await client.reply()
    assert (reply.status, reply.reason, reply.json) == (status, "No Way", body)
    assert reply.headers["retry-after"] == "9"
    client.received.clear()
    client.send("GET", "/health")
    assert (await client.reply()).status == 200


@ensureDeferred
async def test_an_upstream_that_does_not_answer_is_an_error() -> None:
    async with running_relay(TIMEOUT=0.5) as relay:
        for script, status in ((hang(), 504), (verbatim(b"", "close"), 502)):
            relay.upstream.play(script)
            assert (await (await open_websocket(relay)).reply()).status == status
        # An open one may be silent.
        relay.upstream.play(switch())
        client = await open_websocket(relay)
        call = await accepted(relay, client, 2)
        await deferLater(reactor, 1.2)
        assert not client.closed
        await call.send(b"still there")
        await client.until_received(b"still there")


@ensureDeferred
async def test_a_switch_that_was_not_asked_for_is_an_error(relay: Relay) -> None:
    relay.upstream.play(switch())
    reply = await (await relay.send("GET", "/v1/files")).reply()
    assert (reply.status, reply.error["code"]) == (502, "upstream_error")
    for headers in ({"Connection": "close"}, {"Upgrade": "h2c"}):
        relay.upstream.play(document(b"plain"))
        assert (await (await open_websocket(relay, **headers)).reply()).body == b"plain"
        assert relay.upstream.calls[-1].header("upgrade") is None
        assert relay.upstream.calls[-1].header("sec-websocket-key") is None


@ensureDeferred
async def test_a_slow_upstream_slows_the_client(relay: Relay) -> None:
    relay.upstream.play(switch())
    client = await open_websocket(relay)
    call = await accepted(relay, client)
    call.stop_reading()
    before = memory()
    sent = await sent_by(client, b"x" * 50_000, 80 * MB)
    assert sent < 30 * MB
    assert memory() - before < 20 * MB
    call.go_on_reading()
    client.transport.write(b"the end")
    await came(call, b"the end")
    assert len(call.connection._received) == sent + len(b"the end")
    call.stop_reading()
    await sent_by(client, b"x" * 50_000, 80 * MB)
    call.reset()
    await client.when(lambda: client.closed, 5)


@ensureDeferred
async def test_a_slow_client_slows_the_upstream(relay: Relay) -> None:
    async def script(call: Call) -> None:
        await switch()(call)
        for _ in range(600):
            await call.send(b"x" * 100_000)

    relay.upstream.play(script)
    client = await open_websocket(relay)
    await client.until_received(b"xxx")
    client.transport.pauseProducing()
    call = relay.upstream.calls[0]
    before = memory()
    assert await quiet(call, 0.5) < 20 * MB
    assert memory() - before < 20 * MB
    client.transport.resumeProducing()
    await client.when(lambda: len(client.received) > 60 * MB, 30)


# Who may:


@ensureDeferred
async def test_a_key_is_required_and_may_be_a_protocol() -> None:
    async with running_relay(PROXY_API_KEYS="sk-proxy") as relay:
        wrong = "realtime, openai-insecure-api-key.sk-other"
        for headers in ({}, {"Sec_WebSocket_Protocol": wrong}):
            assert (await (await open_websocket(relay, **headers)).reply()).status == 401
        assert relay.upstream.calls == []
        right = "realtime,openai-insecure-api-key.sk-proxy"
        for number, headers in enumerate(
            ({"Sec_WebSocket_Protocol": right}, {"Authorization": "Bearer sk-proxy"})
        ):
            relay.upstream.play(switch())
            await accepted(relay, await open_websocket(relay, **headers), number)


@ensureDeferred
async def test_pages_from_elsewhere_open_none(relay: Relay) -> None:
    client = await open_websocket(relay, Origin="https://evil.example")
    assert (await client.reply()).status == 403
    assert relay.upstream.calls == []


@ensureDeferred
async def test_a_fixed_key_replaces_those_in_protocols() -> None:
    async with running_relay(FIXED_API_KEY=KEY) as relay:
        relay.upstream.always(switch())
        protocols = (
            "realtime, openai-insecure-api-key.sk-client,openai-organization.org-client, "
            "openai-project.proj-client, openai-beta.realtime-v1"
        )
        client = await open_websocket(
            relay,
            "/v1/realtime?model=gpt&key=sk-client",
            Sec_WebSocket_Protocol=protocols,
            Authorization="Bearer sk-client",
        )
        call = await accepted(relay, client)
        assert call.target == "/v1/realtime?model=gpt"
        assert call.header("sec-websocket-protocol") == "realtime, openai-beta.realtime-v1"
        assert call.all_headers("authorization") == [f"Bearer {KEY}"]
        assert "client" not in str(call.headers)


def test_a_protocol_that_is_a_key_alone_is_left_out():
    asked = ((b"Connection", b"upgrade"), (b"Upgrade", b"websocket"))
    name = b"Sec-WebSocket-Protocol"
    sent = to_upstream((*asked, (name, b"openai-insecure-api-key.x")), "fixed")
    assert name not in dict(sent)


@ensureDeferred
async def test_a_websocket_is_a_request_under_way() -> None:
    async with running_relay(CLIENT_REQUESTS=1) as relay:
        relay.upstream.always(switch())
        client = await open_websocket(relay)
        await accepted(relay, client)
        assert (await (await open_websocket(relay)).reply()).status == 429
        client.drop()
        await until(lambda: not relay.daemon._admission.open, "nothing is under way")
        await accepted(relay, await open_websocket(relay), 1)


@ensureDeferred
async def test_geminis_models_have_none(relay: Relay) -> None:
    client = await open_websocket(relay, "/v1/realtime?model=gemini-live-2.5")
    reply = await client.reply()
    assert (reply.status, reply.error["code"]) == (404, "unknown_url")
    assert relay.upstream.calls == []


# The end of the daemon:


@ensureDeferred
async def test_a_stop_waits_for_a_websocket() -> None:
    async with running_relay(DRAIN=30) as relay:
        relay.upstream.play(switch())
        client = await open_websocket(relay)
        call = await accepted(relay, client)
        stopped = relay.daemon.stopService()
        await call.send(frame(1, b"down"))
        await client.until_received(frame(1, b"down"))
        client.transport.write(b"up")
        await came(call, b"up")
        assert not stopped.called
        call.close()
        await stopped
        await client.when(lambda: client.closed, 5)


@ensureDeferred
async def test_a_websocket_does_not_keep_the_daemon() -> None:
    async with running_relay(DRAIN=0.3) as relay:
        relay.upstream.play(switch())
        client = await open_websocket(relay)
        call = await accepted(relay, client)
        began = reactor.seconds()
        await relay.daemon.stopService()
        assert reactor.seconds() - began < 3
        await client.when(lambda: client.closed, 5)
        await call.when_closed()


# With a library at both ends.


async def wsproto_server(call: Call) -> None:
    """Accepts, echoes each message, and closes with the code that it is told."""
    lines = [f"{call.method} {call.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in call.headers]
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data("\r\n".join([*lines, "", ""]).encode())
    read = 0
    while True:
        for event in server.events():
            match event:
                case Request():
                    await call.send(server.send(AcceptConnection(extensions=[PerMessageDeflate()])))
                case TextMessage() if event.data.startswith("close "):
                    code = int(event.data.removeprefix("close "))
                    await call.send(server.send(CloseConnection(code, "as asked")))
                case Message():
                    await call.send(server.send(evolved(event)))
                case CloseConnection():
                    call.close()
                    return
        await until(partial(has_more, call.connection._received, read), "more has come")
        more = bytes(call.connection._received[read:])
        read += len(more)
        server.receive_data(more)


def has_more(received: bytearray, read: int) -> bool:
    return len(received) > read


def evolved(event: Message) -> Message:
    return type(event)(data=event.data, message_finished=event.message_finished)


@pytest.mark.parametrize("code", [1000, 1011, 4321])
@ensureDeferred
async def test_a_library_at_both_ends_sees_messages_and_close_codes(
    relay: Relay, code: int
) -> None:
    relay.upstream.play(wsproto_server)
    connection = await relay.connect()
    client = WSConnection(ConnectionType.CLIENT)
    request = Request("localhost", "/v1/realtime?model=gpt", extensions=[PerMessageDeflate()])
    connection.transport.write(client.send(request))
    seen: list[Any] = []
    read = 0

    async def until_seen(kind: type) -> Any:
        nonlocal read
        while not any(isinstance(event, kind) for event in seen):
            await connection.when(partial(has_more, connection.received, read))
            more = bytes(connection.received[read:])
            read += len(more)
            client.receive_data(more)
            seen.extend(client.events())
        return next(event for event in seen if isinstance(event, kind))

    await until_seen(AcceptConnection)
    for message in (TextMessage("h\u00e9llo" * 5000), BytesMessage(bytes(range(256)) * 300)):
        connection.transport.write(client.send(message))
        whole = message.data[:0]
        while len(whole) < len(message.data):
            echo = await until_seen(type(message))
            seen.remove(echo)
            whole += echo.data
        assert whole == message.data
    connection.transport.write(client.send(TextMessage(f"close {code}")))
    closed = await until_seen(CloseConnection)
    assert (closed.code, closed.reason) == (code, "as asked")
    connection.transport.write(client.send(closed.response()))
    await connection.when(lambda: connection.closed)
