"""More than can be served, and more than anybody may send."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from testing.fake_newapi import Call
from testing.google import scenarios
from tests.support import Relay, chat, gpt, running, running_relay, until
from tests.test_admission import all_of, assert_fine, say, statuses
from tests.test_relay_flow import memory

MB = 1_000_000
CROWD = 200


@pytest.mark.cli
@ensureDeferred
async def test_a_crowd_is_refused_at_once_and_the_rest_stays_quick(tmp_path: Path) -> None:
    limits = {"GEMINI_WORKERS": 1, "GEMINI_SESSIONS": 2, "GEMINI_QUEUE": 3}
    async with running(tmp_path, **limits) as product:
        product.api.play(*[scenarios.hang()] * 5)
        served = [await product.begin(chat(f"{n}")) for n in range(5)]
        await product.until_asked(2)
        await until(lambda: product.daemon.pool.queued() == 3, "the others wait")
        began = reactor.seconds()
        crowd = [await product.begin(chat("too many", stream=n % 2 == 0)) for n in range(CROWD)]
        for client in crowd:
            reply = await client.reply()
            assert (reply.status, reply.error["code"]) == (503, "overloaded")
            assert reply.headers["retry-after"] == "5"
        assert reactor.seconds() - began < 3
        for path in ("/health", "/ready", "/v1/models"):
            began = reactor.seconds()
            assert (await product.get(path)).status == 200
            assert reactor.seconds() - began < 3
        assert len(product.asked) == 2
        assert not any(client.closed for client in served)
        assert "queued_requests 3.0" in (await product.get("/metrics")).body.decode()


def flood(kind: str) -> tuple[bytes, bytes]:
    """How a request begins, and how it goes on and on."""
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    match kind:
        case "many headers":
            return start, b"".join(b"X-%d: y\r\n" % n for n in range(1000))
        case "one header":
            return start + b"X: ", b"y" * 100_000
        case "a folded header":
            return start + b"X: y\r\n", b" y\r\n" * 20_000
        case "a path":
            return b"GET /", b"a" * 100_000
        case "empty lines":
            return b"", b"\r\n" * 50_000
        case "a chunk's size":
            return start + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 100_000
        case "a chunk's extension":
            return start + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 100_000
        case "trailers":
            return start + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 20_000
    raise ValueError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        *("many headers", "one header", "a folded header", "a path", "empty lines"),
        *("a chunk's size", "a chunk's extension", "trailers"),
    ],
)
@ensureDeferred
async def test_what_goes_on_and_on_is_ended_and_not_kept(relay: Relay, kind: str) -> None:
    start, more = flood(kind)
    before = memory()
    client = await say(relay, start)
    sent = 0
    while not client.closed and sent < 20 * MB:
        client.transport.write(more)
        sent += len(more)
        await until(lambda: client.closed or not client.transport._tempDataLen, "it is taken")
    await all_of(client)
    assert sent < 5 * MB
    assert memory() - before < 10 * MB
    assert set(statuses(client.received)) <= {400, 413, 431}
    assert relay.upstream.calls == []
    await assert_fine(relay)


async def quiet_for_good(call: Call) -> None:
    await call.whole()


@pytest.mark.parametrize(("host", "keys"), [("0.0.0.0", ""), ("0.0.0.0", "k"), ("127.0.0.2", "")])
@ensureDeferred
async def test_an_open_port_for_other_machines_is_warned_of(host: str, keys: str) -> None:
    async with running_relay(HOST=host, PROXY_API_KEYS=keys) as relay:
        warned = [text for text in relay.warnings if "PROXY_API_KEYS" in text]
        assert len(warned) == (host == "0.0.0.0" and not keys)
        assert all(host in text for text in warned)


@ensureDeferred
async def test_a_client_that_goes_as_the_daemon_stops_is_no_failure() -> None:
    # A failure in the log is one of this test.
    async with running_relay() as relay:
        relay.upstream.play(quiet_for_good)
        await relay.begin(gpt())
        await relay.upstream.when_asked()
