"""Heads of requests that servers in a row might read in different ways."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from gemproxy.http.framing import doubt_about
from testing.fake_newapi import EVENT_STREAM, Call, document
from tests.support import Relay
from tests.test_admission import all_of, assert_fine, get, post, say, statuses

PATHS = ["/v1/files", "/v1/chat/completions", "/health"]
DOUBTFUL = {
    "two hosts": ["Host: localhost"],
    "two hosts, one empty": ["host:"],
    "a folded header": ["X: a\r\n b"],
    "a folded header of framing": ["Transfer-Encoding:\r\n chunked"],
    "folded with a tab": ["X: a\r\n\tContent-Length: 5"],
    "an empty fold": ["X: a\r\n "],
    "chunked, identity": ["Transfer-Encoding: chunked, identity"],
    "identity, chunked": ["Transfer-Encoding: identity, chunked"],
    "chunked and identity": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    "identity and chunked": ["Transfer-Encoding: identity", "Transfer-Encoding: chunked"],
    "chunked twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    "identity": ["Transfer-Encoding: identity"],
    "identity and a length": ["Transfer-Encoding: identity", "Content-Length: 0"],
    "chunked and a length": ["Transfer-Encoding: chunked", "Content-Length: 0"],
    "a length and chunked": ["Content-Length: 0", "Transfer-Encoding: chunked"],
    "chunked with a parameter": ["Transfer-Encoding: chunked;q=1"],
    "chunked in quotes": ['Transfer-Encoding: "chunked"'],
    "an empty coding": ["Transfer-Encoding:"],
    "nearly chunked": ["Transfer-Encoding: xchunked"],
    "TE of chunked": ["TE: chunked, identity"],
    "TE of chunked among others": ["TE: trailers, Chunked;q=0.5"],
    "an underscore": ["Transfer_Encoding: chunked", "Content-Length: 0"],
    "an underscore in a length": ["content_length: 5", "Content-Length: 0"],
    "an underscore elsewhere": ["Proxy_Connection: keep-alive"],
    "a space before the colon": ["Transfer-Encoding : chunked"],
    "a space before the name": [" Transfer-Encoding: chunked"],
}


@pytest.mark.parametrize("headers", DOUBTFUL.values(), ids=DOUBTFUL)
@ensureDeferred
async def test_a_doubtful_head_is_refused_and_nothing_after_it_is_read(
    relay: Relay, headers: list[str]
) -> None:
    for path in PATHS:
        client = await say(relay, post(*headers, path=path), b"0\r\n\r\n", get("/v1/smuggled"))
        told = await all_of(client)
        assert statuses(told) == [400]
    assert relay.upstream.calls == []
    await assert_fine(relay)


@ensureDeferred
async def test_the_error_says_what_is_doubtful(relay: Relay) -> None:
    client = await say(relay, get("/v1/files", "Transfer_Encoding: chunked"))
    reply = await client.reply()
    assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
    assert "'transfer_encoding'" in reply.error["message"]
    assert reply.headers["connection"] == "close"


@ensureDeferred
async def test_chunked_needs_http_1_1(relay: Relay) -> None:
    client = await say(relay, post("Transfer-Encoding: chunked", version="1.0"), b"0\r\n\r\n")
    assert statuses(await all_of(client)) == [400]
    assert relay.upstream.calls == []


@ensureDeferred
async def test_what_clients_do_send_is_taken(relay: Relay) -> None:
    relay.upstream.always(document({}))
    for headers in (
        ["Transfer-Encoding: Chunked", "TE: trailers"],
        ["Transfer-Encoding:  chunked ", "TE: deflate;q=0.5"],
        ["Transfer-Encoding: chunked", "X_Api_Key: k", "User_Agent: x", "X: "],
    ):
        client = await say(relay, post(*headers, path="/v1/files"), b"1\r\na\r\n0\r\n\r\n")
        assert (await client.reply()).status == 200
    assert [bytes(call.body) for call in relay.upstream.calls] == [b"a"] * 3


def test_no_doubt_without_a_reason() -> None:
    headers = [(b"Host", [b"a"]), (b"X-Two", [b"a", b"b"]), (b"Transfer-Encoding", [b"CHUNKED"])]
    assert doubt_about(headers, b"HTTP/1.1", False) is None
    assert doubt_about(headers, b"HTTP/1.0", False) is not None
    assert doubt_about(headers, b"HTTP/1.1", True) is not None
    assert doubt_about([], b"HTTP/1.0", False) is None


@pytest.mark.parametrize(
    "path",
    [
        "/v1/..;/api/user",
        "/v1/..;x=y/api/user",
        "/v1/.;/files",
        "/v1/%2e%2e%3b/api/user",
        "/v1/files/..;",
        "/v1/files/..;%2f..;%2fapi",
        "/v1/%252e%252e/api/user",
        "/v1/..%253b/api/user",
        "/v1/models/..;/x",
        "http://localhost/v1/..;/api/user",
    ],
)
@ensureDeferred
async def test_dots_in_disguise_lead_nowhere(relay: Relay, path: str) -> None:
    for client in (await say(relay, get(path)), await say(relay, post(path=path))):
        reply = await client.reply()
        assert (reply.status, reply.error["type"]) == (400, "invalid_request_error")
    assert relay.upstream.calls == []


@ensureDeferred
async def test_no_response_tells_a_version_or_lets_a_browser_guess(relay: Relay) -> None:
    relay.upstream.always(document({}))
    replies = [
        await relay.get(path) for path in ("/health", "/metrics", "/nowhere", "/v1/files", "/v1/..")
    ]
    early = await say(relay, post(f"Content-Length: {10**12}"))
    broken = await say(relay, b"GET / HTTP/3\r\n\r\n")
    replies += [await early.reply(), await broken.reply()]
    assert replies[-1].error["type"] == "invalid_request_error"
    for reply in replies:
        assert reply.headers["server"] == "gemproxy"
        assert reply.headers["x-content-type-options"] == "nosniff"


@ensureDeferred
async def test_an_error_does_not_get_into_a_response_that_has_begun(relay: Relay) -> None:
    async def answer_early(call: Call) -> None:
        await call.head(200, [EVENT_STREAM, ("Transfer-Encoding", "chunked")])
        await call.send(b"5\r\nearly\r\n")

    relay.upstream.play(answer_early)
    client = await say(relay, post("Transfer-Encoding: chunked", path="/v1/files"), b"1\r\na\r\n")
    await client.until_received(b"early")
    client.transport.write(b"nonsense\r\n")
    told = await all_of(client)
    assert statuses(told) == [200]
