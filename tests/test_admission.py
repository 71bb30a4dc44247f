"""What requests have to pass, over real sockets: size, time, framing, keys, pages."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import formatEvent

from gemproxy.service import Patience
from testing.fake_newapi import answer, events, stream
from testing.trial.fuzz import mutated
from tests.support import Connection, Relay, Reply, encode, gpt, running_relay, until

LIMIT = 2000


@pytest_twisted.async_yield_fixture
async def small(patience: Patience) -> AsyncIterator[Relay]:
    """A relay that takes small bodies only."""
    async with running_relay(patience, MAX_BODY=LIMIT) as relay:
        yield relay


async def say(relay: Relay, *pieces: bytes) -> Connection:
    connection = await relay.connect()
    for piece in pieces:
        connection.transport.write(piece)
    return connection


async def all_of(connection: Connection) -> bytes:
    """What came until the connection was closed."""
    await connection.when(lambda: connection.closed)
    return bytes(connection.received)


def post(*headers: str, path: str = "/v1/chat/completions", version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


def get(path: str = "/health", *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


def statuses(data: bytes | bytearray) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d\d\d) ", data)]


async def assert_fine(relay: Relay) -> None:
    """It answers, and holds nothing that it should not."""
    relay.drop_all()
    assert (await relay.get("/health")).status == 200
    relay.upstream.play(stream("All is well"))
    assert (await relay.ask(gpt())).content == "All is well"
    relay.drop_all()
    connections = relay.daemon._connections[0]
    await until(lambda: not connections.open, "all connections are closed")
    assert relay.daemon._admission.open == set()
    assert not relay.daemon._admission._clients


# Size


@pytest.mark.parametrize("patience", [Patience(linger=0.3)])
@ensureDeferred
async def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(
    small: Relay, patience: Patience
) -> None:
    client = await say(small, post(f"Content-Length: {10**15}"))
    reply = await client.reply()
    assert (reply.status, reply.error["type"]) == (413, "invalid_request_error")
    assert str(LIMIT) in reply.reason
    assert reply.headers["connection"] == "close"
    # The client may be sending still; some of that is taken, for it to see the answer.
    assert not client.closed
    client.transport.write(b"x" * 100_000)
    await all_of(client)
    assert statuses(client.received) == [413]
    await assert_fine(small)


@ensureDeferred
async def test_a_body_that_grows_too_large_is_refused_on_the_way(small: Relay) -> None:
    client = await say(small, post("Transfer-Encoding: chunked"), b"3e8\r\n" + b"x" * 1000)
    client.transport.write(b"\r\n3e9\r\n" + b"x" * 1001)
    assert (await client.reply()).status == 413
    assert not client.closed
    # The end of it is what the proxy waits for, but not for long.
    client.transport.write(b"\r\n0\r\n\r\n")
    await all_of(client)
    assert statuses(client.received) == [413]
    await assert_fine(small)


@pytest.mark.parametrize("patience", [Patience(linger=0.2)])
@ensureDeferred
async def test_a_refused_body_that_does_not_end_is_not_waited_for(
    small: Relay, patience: Patience
) -> None:
    began = reactor.seconds()
    client = await say(small, post(f"Content-Length: {LIMIT + 1}"), b"x" * 100)
    await all_of(client)
    assert 0.2 <= reactor.seconds() - began < 2
    await assert_fine(small)


@pytest.mark.parametrize("chunked", [False, True])
@ensureDeferred
async def test_the_largest_body_is_taken(small: Relay, chunked: bool) -> None:
    body = encode(gpt("x"))
    body += b" " * (LIMIT - len(body))
    if chunked:
        pieces = [
            b"%x\r\n%b\r\n" % (len(body[i : i + 99]), body[i : i + 99])
            for i in range(0, len(body), 99)
        ]
        client = await say(small, post("Transfer-Encoding: chunked"), *pieces, b"0\r\n\r\n")
    else:
        client = await say(small, post(f"Content-Length: {LIMIT}"), body)
    assert (await client.reply()).content == "Hello"
    assert small.upstream.calls[0].json["messages"] == gpt("x")["messages"]


@ensureDeferred
async def test_a_body_that_is_too_large_gets_no_100_continue(small: Relay) -> None:
    client = await say(small, post(f"Content-Length: {LIMIT + 1}", "Expect: 100-continue"))
    assert (await client.reply()).status == 413
    assert b"100 Continue" not in client.received
    body = encode(gpt())
    other = await say(small, post(f"Content-Length: {len(body)}", "Expect: 100-continue"))
    await other.until_received(b"100 Continue\r\n\r\n")
    other.received.clear()
    other.transport.write(body)
    assert (await other.reply()).status == 200


# Time


@pytest.mark.parametrize("patience", [Patience(headers=0.3)])
@ensureDeferred
async def test_headers_have_their_time_however_they_trickle(
    relay: Relay, patience: Patience
) -> None:
    began = reactor.seconds()
    silent = await say(relay, b"GET /health HTTP/1.1\r\n")
    trickling = await say(relay, b"GET /health HTTP/1.1\r\n")
    number = 0
    while not trickling.closed and reactor.seconds() < began + 5:
        trickling.transport.write(b"X-%d: x\r\n" % number)
        number += 1
        await deferLater(reactor, 0.05)
    assert await all_of(silent) == await all_of(trickling) == b""
    assert 0.3 <= reactor.seconds() - began < 3
    await assert_fine(relay)


@pytest.mark.parametrize("patience", [Patience(body=0.3, linger=0.1)])
@ensureDeferred
async def test_a_body_has_its_time_however_it_trickles(relay: Relay, patience: Patience) -> None:
    began = reactor.seconds()
    silent = await say(relay, post("Content-Length: 100"), b"x")
    trickling = await say(relay, post("Transfer-Encoding: chunked"))
    while not trickling.closed and reactor.seconds() < began + 5:
        trickling.transport.write(b"1\r\nx\r\n")
        await deferLater(reactor, 0.05)
    for client in (silent, trickling):
        await all_of(client)
        assert statuses(client.received) == [408]
        assert b"not received in time" in client.received
    assert relay.upstream.calls == []
    await assert_fine(relay)


@pytest.mark.parametrize("patience", [Patience(headers=0.1, body=0.1)])
@ensureDeferred
async def test_an_answer_may_take_longer_than_a_request(relay: Relay, patience: Patience) -> None:
    relay.upstream.play(stream(*"abcdef", pace=0.1))
    assert (await relay.ask(gpt(stream=True))).content == "abcdef"


# Framing


@ensureDeferred
async def test_pipelined_requests_are_answered_in_their_order(relay: Relay) -> None:
    body = encode(gpt(stream=True))
    relay.upstream.play(stream("First", pace=0.05), stream("Second"))
    chat = post(f"Content-Length: {len(body)}") + body
    client = await say(relay, chat + chat + get("/health") + get("/nowhere", "Connection: close"))
    told = await all_of(client)
    assert statuses(told) == [200, 200, 200, 404]
    assert told.index(b"First") < told.index(b"Second") < told.index(b'"status"')
    assert told.count(b"data: [DONE]") == 2
    await assert_fine(relay)


@ensureDeferred
async def test_a_client_that_pipelines_without_end_is_not_read_without_end() -> None:
    # That it has gone shows when something is sent to it.
    async with running_relay(HEARTBEAT_INTERVAL=1) as relay:
        await pipeline_without_end(relay)


async def pipeline_without_end(relay: Relay) -> None:
    relay.upstream.play(events(*answer("a")[:2], then="hang"))
    body = encode(gpt(stream=True))
    client = await say(relay, post(f"Content-Length: {len(body)}") + body)
    await client.until_received(b'"a"')
    flood = get("/health") * 1000
    sent = 0

    class Flood:
        going = True

        def resumeProducing(self) -> None:
            nonlocal sent
            self.going = True
            while self.going and sent < 100_000_000:
                client.transport.write(flood)
                sent += len(flood)

        def pauseProducing(self) -> None:
            self.going = False

        def stopProducing(self) -> None:
            self.going = False

    flooding = Flood()
    client.transport.registerProducer(flooding, True)
    flooding.resumeProducing()
    await until(lambda: not flooding.going, "the proxy takes no more")
    before = -1
    while sent != before:
        before = sent
        await deferLater(reactor, 0.2)
    assert sent < 50_000_000
    assert (await relay.get("/health")).status == 200
    client.transport.unregisterProducer()
    await assert_fine(relay)


@ensureDeferred
async def test_http_1_0_gets_whole_answers_and_an_end(relay: Relay) -> None:
    client = await say(relay, b"GET /health HTTP/1.0\r\n\r\n")
    told = await all_of(client)
    assert statuses(told) == [200]
    assert told.endswith(b'{"status":"ok"}')

    body = encode(gpt(stream=True))
    client = await say(relay, post(f"Content-Length: {len(body)}", version="1.0") + body)
    told = await all_of(client)
    assert b"chunked" not in told
    assert told.partition(b"\r\n\r\n")[2].startswith(b"data: {")
    assert told.endswith(b"data: [DONE]\n\n")


@ensureDeferred
async def test_head_is_get_without_a_body(relay: Relay) -> None:
    client = await say(relay, b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + get())
    await client.until_received(b'{"status":"ok"}')
    assert statuses(client.received) == [200, 200]
    assert client.received.count(b'"status"') == 1


@ensureDeferred
async def test_other_methods_are_refused_with_what_is_allowed(relay: Relay) -> None:
    for method in ("PUT", "POST", "DELETE", "OPTIONS", "BREW"):
        reply = await relay.get("/health", method)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
        assert (await relay.get("/", method)).status == 404
    assert relay.upstream.calls == []


BROKEN = [
    b"\r\n\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /health\r\n\r\n",
    b"GET /health HTTP/1.1 more\r\n\r\n",
    b"GET /health HTTP/2.0\r\n\r\n",
    b"GET /hea\0lth HTTP/1.1\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
    b"\0\0\0\0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\n: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHo st: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\nX: a\0b\r\n\r\n",
    b"GET /health HTTP/1.1\r\nX\xff: a\r\n\r\n",
    post("Content-Length: -1"),
    post("Content-Length: +5") + b"12345",
    post("Content-Length: 0x10"),
    post("Content-Length: 5", "Content-Length: 6") + b"123456",
    post("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    post("Transfer-Encoding: gzip"),
    post("Transfer-Encoding: chunked") + b"zz\r\nxx\r\n",
    post("Transfer-Encoding: chunked") + b"-1\r\nxx\r\n",
    post("Transfer-Encoding: chunked") + b"2\r\nxxxx\r\n",
    post("Transfer-Encoding: chunked") + b"f" * 5000,
    post("Transfer-Encoding: chunked") + b"1;" + b"e" * 20_000 + b"\r\nx\r\n",
    get("/health", *(f"X-{n}: x" for n in range(1000))),
    get("/health", *(f"X-{n}: {'x' * 900}" for n in range(30))),
    get("/health", "X: " + "x" * 100_000),
    get("/" + "x" * 100_000),
    b"x" * 100_000,
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
@ensureDeferred
async def test_what_is_no_request_ends_its_connection_alone(relay: Relay, data: bytes) -> None:
    other = await relay.connect()
    client = await say(relay, data)
    await client.when(lambda: client.closed)
    assert statuses(client.received) in ([], [400], [404])
    other.send("GET", "/health")
    assert (await other.reply()).status == 200
    assert relay.upstream.calls == []
    await assert_fine(relay)


STRANGE = [
    "a..b",
    ":",
    "[",
    "caf\udce9",
    "\udcff\udcfe",
    "\u4e2d\u6587",
    "a\tb",
    "'\"\\;,<>%00%ff",
    "x" * 8000,
]


@pytest.mark.parametrize("name", ["Host", "Origin", "Authorization", "Content-Type", "Cookie", "X"])
@ensureDeferred
async def test_no_header_s_value_is_too_strange(name: str) -> None:
    async with running_relay(PROXY_API_KEYS="the-key", CORS_ORIGINS="http://a") as relay:
        for value in STRANGE:
            others = [f"{name}: {value}"]
            if name != "Authorization":
                others.append("Authorization: Bearer the-key")
            data = get("/v1/models", *others)
            if name == "Host":
                data = data.replace(b"Host: localhost\r\n", b"", 1)
            reply = await (await say(relay, data)).reply()
            expected = {"Origin": 403, "Authorization": 401}.get(name, 200)
            assert reply.status == expected
            assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "/%00",
        "/%ff%fe",
        "/v1/%00",
        "/v1/models/%ff",
        "/v1/models/%0d%0aX:%20y",
        "/v1/models/gemini%00",
        "*",
        "//",
        "/?",
        "/?%00=%ff",
        "http://evil.example/health",
        "/%2e%2e/%2e",
    ],
)
@ensureDeferred
async def test_no_path_is_too_strange(relay: Relay, path: str) -> None:
    client = await say(relay, get(path, "Connection: close"))
    reply = await client.reply()
    assert reply.status in (200, 400, 404, 405)
    assert set(reply.headers) <= USUAL
    for call in relay.upstream.calls:
        assert re.fullmatch(r"/v1/[!-~]*", call.target)
        assert call.header("x") is None


USUAL = {
    *("server", "date", "content-type", "content-length", "x-request-id", "connection"),
    *("transfer-encoding", "allow", "x-should-retry", "x-content-type-options"),
}

BODIES = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"{",
    b"[]",
    b"null",
    b'"\\ud800"',
    b'{"model": "gpt-x"',
    b'{"model": "gpt\xff"}',
    b'{"model": null}',
    b'{"model": ["gpt-x"]}',
    b'{"model": ""}',
    b'{"model": "gpt-x", "stream": "yes"}',
    b'{"model": "gpt-x", "stream": 1}',
    b'{"model": "gpt-x", "stream_options": 5}',
    b'{"model": "gpt-x", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"model": "gpt-x", "n": 1e999}',
    b'{"model": "gpt-x", "n": ' + b"9" * 5000 + b"}",
    b'{"model": "gpt-x", "n": NaN}',
    b'{"model": "gpt-x", "n": -Infinity}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@ensureDeferred
async def test_a_body_that_is_no_request_is_a_clear_error(relay: Relay, body: bytes) -> None:
    reply = await relay.ask(body)
    assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
    assert relay.upstream.calls == []


PASSED = [
    b'{"model": "gpt-x", "n": 123456789012345678901234567890, "messages": []}',
    b'{"model": "gpt-x", "messages": [{"content": "\\ud800 \\u0000"}], "n": -0.0}',
    b'{"model": "nobody", "model": "gpt-x", "messages": 5, "temperature": {}, "n": "many"}',
    b'{"model": "gpt-x", "n": true, "stop": 7, "tools": "x", "user": null, "\\u0000": []}',
    b'{"model": "gpt-x", "n": 1000000000, "messages": [[[]]]}',
    b'{"model": "\\u0000\\r\\n\\ud83d\\ude00", "messages": []}',
]


@pytest.mark.parametrize("stream", [b"true", b"false"])
@pytest.mark.parametrize("body", PASSED, ids=range(len(PASSED)))
@ensureDeferred
async def test_what_the_upstream_may_judge_is_passed_on(
    relay: Relay, body: bytes, stream: bytes
) -> None:
    reply = await relay.ask(body[:-1] + b', "stream": ' + stream + b"}")
    assert (reply.status, reply.content) == (200, "Hello")
    assert len(relay.upstream.calls) == 1


# Who may use it


@ensureDeferred
async def test_with_keys_all_but_health_wants_one(relay: Relay) -> None:
    async with running_relay(PROXY_API_KEYS="first-key,second-key") as relay:
        for path in ("/health", "/ready"):
            assert (await relay.get(path)).status == 200
        for path in ("/v1/models", "/models", "/v1/models/gpt-x", "/metrics", "/nowhere", "/v1"):
            reply = await relay.get(path)
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        for shown in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer x"}):
            reply = await relay.ask(gpt(), **shown)
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert relay.upstream.calls == []
        for key in ("first-key", "second-key"):
            assert (await relay.ask(gpt(), Authorization=f"Bearer {key}")).status == 200
            for name in ("X_API_Key", "api_key", "x_goog_api_key"):
                assert (await relay.ask(gpt(), **{name: key})).status == 200
                assert (await relay.ask(gpt(), **{name: key + "x"})).status == 401
            # The one that is left is the upstream's.
            both = {"Authorization": "Bearer sk-upstream", "x_api_key": key}
            assert (await relay.ask(gpt(), **both)).status == 200
            assert relay.upstream.calls[-1].header("authorization") == "Bearer sk-upstream"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@ensureDeferred
async def test_a_key_of_the_proxy_s_is_not_passed_on_beside_a_fixed_one(path: str) -> None:
    names = ("Authorization", "x_api_key", "api_key", "x_goog_api_key")
    settings = {"PROXY_API_KEYS": "first-key", "FIXED_API_KEY": "our-key"}
    async with running_relay(**settings) as relay:
        for name in names:
            key = "Bearer first-key" if name == "Authorization" else "first-key"
            connection = await relay.send("POST", path, gpt(), **{name: key})
            assert (await connection.reply()).status == 200
        assert len(relay.upstream.calls) == len(names)
        for call in relay.upstream.calls:
            assert call.all_headers("authorization") == ["Bearer our-key"]
            assert not any(call.header(name.replace("_", "-")) for name in names[1:])


@ensureDeferred
async def test_the_body_of_a_stranger_is_not_even_received() -> None:
    async with running_relay(PROXY_API_KEYS="first-key") as relay:
        client = await say(relay, post("Content-Length: 1000000"))
        reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (401, "close")
        client.drop()
        await until(lambda: not relay.daemon._connections[0].open, "it is gone")


@pytest.mark.slow
@ensureDeferred
async def test_requests_of_one_address_have_their_limit() -> None:
    async with running_relay(CLIENT_REQUESTS=3) as relay:
        relay.upstream.always(events(*answer("a")[:2], then="hang"))
        clients = [await relay.begin(gpt(stream=True)) for _ in range(2)]
        for client in clients:
            await client.until_received(b'"a"')
        # One that is still being sent counts as well.
        clients.append(await say(relay, post("Content-Length: 1000"), b"x"))
        await until(lambda: len(relay.daemon._admission.open) == 3, "it is under way")

        for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models/gemini-x")):
            refused = await (await relay.send(method, path, gpt())).reply()
            assert (refused.status, refused.error["code"]) == (429, "too_many_requests")
            assert refused.headers["retry-after"] == "1"
            assert "3" in refused.reason
        for path in ("/health", "/ready"):
            assert (await relay.get(path)).status == 200

        clients[2].drop()
        await until(lambda: len(relay.daemon._admission.open) == 2, "it is over")
        assert (await relay.get("/v1/models/gemini-x")).status == 200
        for client in clients[:2]:
            client.drop()
        await until(lambda: not relay.daemon._admission.open, "they are over")
        relay.upstream.always(stream("Hello"))
        for _ in range(5):
            assert (await relay.ask(gpt())).status == 200


@pytest.mark.parametrize("trusted", [True, False])
@ensureDeferred
async def test_clients_behind_a_trusted_proxy_are_told_apart(trusted: bool) -> None:
    proxies = "127.0.0.1, 10.0.0.0/8" if trusted else ""
    async with running_relay(CLIENT_REQUESTS=1, TRUSTED_PROXIES=proxies) as relay:
        relay.upstream.always(events(*answer("a")[:2], then="hang"))
        # The client invents the first address; the nearest proxy has added the last one.
        shown = ("6.6.6.6, 1.2.3.4", "6.6.6.6, 1.2.3.5, 10.0.0.7")
        clients = [await relay.begin(gpt(stream=True), X_Forwarded_For=said) for said in shown]
        for client in clients if trusted else clients[:1]:
            await client.until_received(b'"a"')
        again = await relay.ask(gpt(), X_Forwarded_For="1.2.3.4")
        assert (again.status, again.error["code"]) == (429, "too_many_requests")
        if not trusted:
            assert (await clients[1].reply()).status == 429
        for client in clients:
            client.drop()
        await until(lambda: not relay.daemon._admission.open, "they are over")
        assert not relay.daemon._admission._clients


@ensureDeferred
async def test_who_comes_through_a_proxy_of_this_machine_is_not_this_machine() -> None:
    async with running_relay(TRUSTED_PROXIES="127.0.0.1") as relay:
        for said in ("6.6.6.6, 1.2.3.4", "127.0.0.1, 1.2.3.4"):
            client = await relay.send("GET", "/admin/routes", X_Forwarded_For=said)
            assert (await client.reply()).status == 403
        assert (await relay.get("/admin/routes")).status == 200


@ensureDeferred
async def test_pages_of_other_sites_get_nothing_shown(relay: Relay) -> None:
    for path in ("/v1/files", "/v1/models", "/metrics"):
        client = await say(
            relay, get(path, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors")
        )
        reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (403, "cross_site")
    assert relay.upstream.calls == []


@ensureDeferred
async def test_pages_of_other_origins_cannot_drive_an_open_port(relay: Relay) -> None:
    body = encode(gpt())
    # What a page may send without being asked first.
    client = await say(
        relay,
        post(
            *("Origin: https://evil.example", "Content-Type: text/plain"),
            f"Content-Length: {len(body)}",
        )
        + body,
    )
    reply = await client.reply()
    assert (reply.status, reply.error["code"]) == (403, "origin_not_allowed")
    assert not any(name.startswith("access-control") for name in reply.headers)
    # A name of the page's own that points here.
    client = await say(
        relay,
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: evil.example:3002\r\n"
        b"Origin: http://evil.example:3002\r\nContent-Length: 0\r\n\r\n",
    )
    assert (await client.reply()).status == 403
    client = await say(relay, b"GET /v1/models HTTP/1.1\r\nHost: evil.example:3002\r\n\r\n")
    assert (await client.reply()).error["code"] == "host_not_allowed"
    asked = await relay.connect()
    asked.transport.write(
        b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n"
    )
    assert (await asked.reply()).status == 403
    assert relay.upstream.calls == []


@ensureDeferred
async def test_names_are_checked_wherever_it_listens() -> None:
    async with running_relay(
        HOST="0.0.0.0", FIXED_API_KEY="sk-of-new-api", ALLOWED_HOSTS="chat.example"
    ) as relay:
        evil = await say(relay, b"GET /v1/files HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        error = (await evil.reply()).error
        assert error["code"] == "host_not_allowed"
        assert "ALLOWED_HOSTS" in error["message"]
        assert relay.upstream.calls == []
        for host in (b"chat.example", b"box.lan:3002", b"172.17.0.2:3002"):
            client = await say(relay, b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            assert (await client.reply()).status == 200


@pytest.mark.parametrize("keys", ["", "the-key"])
@ensureDeferred
async def test_listed_pages_may_ask_and_read(keys: str) -> None:
    page = "https://chat.example"
    async with running_relay(CORS_ORIGINS=page, PROXY_API_KEYS=keys) as relay:
        # A browser shows no key when it asks whether it may.
        asking = await relay.connect()
        asking.transport.write(
            b"OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Origin: https://chat.example\r\nAccess-Control-Request-Method: POST\r\n"
            b"Access-Control-Request-Headers: authorization,content-type\r\n\r\n"
        )
        reply = await asking.reply()
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == page
        assert "POST" in reply.headers["access-control-allow-methods"]
        assert "authorization" in reply.headers["access-control-allow-headers"].lower()

        told = await relay.ask(gpt(stream=True), Origin=page, Authorization="Bearer the-key")
        assert (told.status, told.content) == (200, "Hello")
        assert told.headers["access-control-allow-origin"] == page
        assert told.headers["vary"] == "Origin"
        # Errors can be read too, those that come before the body among them.
        refused = await relay.ask({}, Origin=page, Authorization="Bearer the-key")
        assert refused.headers["access-control-allow-origin"] == page
        large = await say(relay, post(f"Origin: {page}", f"Content-Length: {10**12}"))
        assert (await large.reply()).headers["access-control-allow-origin"] == page


# What is known of a request


def contents(folder: Path, pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob(pattern)]


@ensureDeferred
async def test_every_response_has_an_id_and_every_request_its_line(tmp_path: Path) -> None:
    async with running_relay(MAX_BODY=LIMIT, LOG_DIR=tmp_path) as relay:
        replies: list[Reply] = [
            await relay.ask(gpt()),
            await relay.ask(gpt(stream=True)),
            await relay.ask(b"nonsense"),
            await relay.ask(b"x" * (LIMIT + 1)),
            await relay.get("/v1/nowhere?key=s3cret"),
            await relay.get("/elsewhere"),
        ]
        health = await relay.get("/health")
        assert [reply.status for reply in replies] == [200, 200, 400, 413, 200, 404]
        await until(lambda: len(list(tmp_path.glob("*_output.txt"))) == 2, "the journal is written")
        lines = [formatEvent(event) for event in relay.logged]
        for reply in replies:
            id = reply.headers["x-request-id"]
            (line,) = (line for line in lines if f"request={id} " in line)
            assert f"status={reply.status}" in line
            assert "duration=" in line
            assert "s3cret" not in line
        assert len({reply.headers["x-request-id"] for reply in [*replies, health]}) == 7
        assert not any(health.headers["x-request-id"] in line for line in lines)
    kept = {json.loads(text)["id"] for text in contents(tmp_path, "*_input.json")}
    assert kept == {reply.headers["x-request-id"] for reply in replies[:2]}


# A client that is not one


def seeds() -> list[bytes]:
    body = encode(gpt("Hi", stream=True))
    chunked = b"".join(
        b"%x\r\n%b\r\n" % (len(body[i : i + 9]), body[i : i + 9]) for i in range(0, len(body), 9)
    )
    return [
        *BROKEN,
        get("/health"),
        get("/v1/models"),
        get("/v1/anything?x=y"),
        post(f"Content-Length: {len(body)}") + body,
        post("Transfer-Encoding: chunked") + chunked + b"0\r\n\r\n",
        post("Content-Length: 10") + b"0123456789",
        post("Content-Length: 3", path="/v1/embeddings") + b"abc",
        b"OPTIONS * HTTP/1.1\r\nOrigin: http://localhost\r\n\r\n",
    ]


async def one_fuzz(relay: Relay, randomness: random.Random, samples: list[bytes]) -> None:
    client = await relay.connect()
    data = mutated(randomness, samples)
    cut = randomness.randrange(len(data) + 1)
    client.transport.write(data[:cut])
    await deferLater(reactor, 0)
    if client.closed:
        return
    client.transport.write(data[cut:])
    match randomness.randrange(3):
        case 0:
            client.drop()
        case 1:
            client.transport.loseConnection()
        case 2:
            # It stays, and waits for an answer that may never come.
            await deferLater(reactor, 0.02)


@pytest.mark.slow
@ensureDeferred
async def test_a_thousand_clients_that_send_garbage_leave_no_trace(small: Relay) -> None:
    randomness = random.Random(20)
    samples = seeds()
    small.upstream.always(stream("Hello"))
    for _ in range(100):
        fuzz = [one_fuzz(small, randomness, samples) for _ in range(10)]
        await gatherResults([Deferred.fromCoroutine(one) for one in fuzz])
        if len(small.connections) > 200:
            small.drop_all()
    await assert_fine(small)
    await until(
        lambda: not any(call.closed is None and not call.finished for call in small.upstream.calls),
        "no request is left",
    )
    timers = [call for call in reactor.getDelayedCalls() if "ProxyRequest" in str(call)]
    assert timers == []
    assert [text for text in small.warnings if "models of" not in text] == []
