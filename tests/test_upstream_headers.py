"""Headers, queries and keys on their way to an upstream and back."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from gemproxy.openai.headers import query_to_upstream, request_id_of
from gemproxy.web.forwarded import TrustedProxies
from testing.fake_newapi import EVENT_STREAM, JSON, document, events, head, in_http_chunks, verbatim
from tests.support import Relay, gpt, running_relay, until
from tests.test_passthrough import pass_through

KEY = "sk-fixed-1234"
LIMITS = [
    ("X-RateLimit-Remaining-Requests", "9"),
    ("x-ratelimit-reset-tokens", "6m0s"),
    ("anthropic-ratelimit-requests-limit", "50"),
    ("Retry-After-Ms", "1500"),
    ("X-Oneapi-Request-Id", "20261128-abc"),
]
OTHERS = [("X-Request-Id", "theirs"), ("Set-Cookie", "a=1"), ("Server", "x"), ("X-Odd", "1")]


@pytest.mark.parametrize("stream", [True, False])
@ensureDeferred
async def test_limits_and_the_name_of_a_request_reach_the_client(
    stream: bool, tmp_path: Path
) -> None:
    async with running_relay(LOG_DIR=tmp_path) as relay:
        chunks = [b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n']
        relay.upstream.play(events(*chunks, headers=[EVENT_STREAM, *LIMITS, *OTHERS]))
        error = {"error": {"message": "Slow down.", "type": "rate_limit_error"}}
        relay.upstream.play(document(error, 429, [JSON, ("Retry-After", "2"), *LIMITS, *OTHERS]))
        for status in (200, 429):
            reply = await relay.ask(gpt(stream=stream))
            assert reply.status == status
            for name, value in LIMITS:
                assert reply.headers[name.lower()] == value
            assert reply.headers["x-request-id"] != "theirs"
            assert not {"set-cookie", "x-odd"} & set(reply.headers)
        assert reply.headers["retry-after"] == "2"
        lines = [event.get("line", "") for event in relay.logged]
        assert sum("upstream_request=20261128-abc" in line for line in lines) == 2
        await until(lambda: len(list(tmp_path.glob("*_output.txt"))) == 2, "the journal is there")
        for output in tmp_path.glob("*_output.txt"):
            assert "upstream_request: 20261128-abc\n" in output.read_text()


def test_the_name_of_a_request_is_new_apis_or_else_the_usual_one():
    both = ((b"X-Request-Id", b"b"), (b"X-Oneapi-Request-Id", b"a"))
    assert request_id_of(both) == "a"
    assert request_id_of(both[:1]) == "b"
    assert request_id_of(((b"request-id", b"c"),)) == "c"
    assert request_id_of(()) is None


@pytest.mark.parametrize("query", ["a=b%20c&x=%2F&x=1&empty=&y", "api-version=2026-01-01&key=mine"])
@ensureDeferred
async def test_the_query_of_a_chat_request_reaches_the_upstream(relay: Relay, query: str) -> None:
    for stream in (True, False):
        client = await relay.send("POST", f"/v1/chat/completions?{query}", gpt(stream=stream))
        assert (await client.reply()).content == "Hello"
    targets = [call.target for call in relay.upstream.calls]
    assert targets == [f"/v1/chat/completions?{query}"] * 2


@ensureDeferred
async def test_a_chat_answer_is_asked_for_without_compression(relay: Relay) -> None:
    for stream in (True, False):
        await relay.ask(gpt(stream=stream), Accept_Encoding="gzip, br, zstd")
    for call in relay.upstream.calls:
        assert call.all_headers("accept-encoding") == ["identity"]
    call, _ = await pass_through(relay, "GET", "/v1/files", Accept_Encoding="gzip, br")
    assert call.all_headers("accept-encoding") == ["gzip, br"]
    call, _ = await pass_through(relay, "GET", "/v1/files")
    assert call.all_headers("accept-encoding") == []


@ensureDeferred
async def test_an_answer_that_is_compressed_all_the_same_is_read(relay: Relay) -> None:
    chunk = (
        b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}'
    )
    relay.upstream.always(events(chunk + b"\n\n", zipped=True))
    assert (await relay.ask(gpt(stream=True))).content == "Hi"


@ensureDeferred
async def test_what_a_response_says_of_its_connection_stays_there(relay: Relay) -> None:
    named = [("Connection", "keep-alive, X-Hop"), ("X-Hop", "1"), ("Connection", "x-ratelimit-a")]
    headers = [*named, ("X-RateLimit-A", "1"), ("Proxy-Connection", "a"), ("TE", "a"), ("X-B", "2")]
    relay.upstream.play(document(b"{}", 200, [JSON, *headers]))
    _, reply = await pass_through(relay, "GET", "/v1/files")
    assert reply.headers["x-b"] == "2"
    gone = {"x-hop", "x-ratelimit-a", "proxy-connection", "te"}
    assert not gone & set(reply.headers)
    relay.upstream.play(document({"error": {"message": "No."}}, 400, [JSON, *headers]))
    assert not gone & set((await relay.ask(gpt())).headers)


# Where a client is:


@ensureDeferred
async def test_the_upstream_learns_where_a_client_is(relay: Relay) -> None:
    lies = {
        "X_Forwarded_For": "1.2.3.4",
        "X_Forwarded_Proto": "https",
        "X_Forwarded_Host": "evil.example",
        "X_Forwarded_Port": "1",
        "X_Real_IP": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "CF_Connecting_IP": "1.2.3.4",
    }
    await relay.ask(gpt(), **lies)
    await pass_through(relay, "GET", "/v1/files", **lies)
    await relay.get("/v1/models")
    assert len(relay.upstream.calls) >= 3
    for call in relay.upstream.calls:
        assert call.all_headers("x-forwarded-for") == ["127.0.0.1"]
        assert call.all_headers("x-forwarded-proto") == ["http"]
        assert call.all_headers("x-forwarded-host") == ["localhost"]
        for name in ("x-forwarded-port", "x-real-ip", "forwarded", "cf-connecting-ip"):
            assert call.header(name) is None


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.0/8, 127.0.0.0/8", "::1,127.0.0.1/32"])
@ensureDeferred
async def test_a_trusted_proxy_is_believed(trusted: str) -> None:
    async with running_relay(TRUSTED_PROXIES=trusted) as relay:
        said = {
            "X_Forwarded_For": "1.2.3.4, 5.6.7.8",
            "X_Forwarded_Proto": "https",
            "X_Forwarded_Host": "chat.example",
            "X_Real_IP": "1.2.3.4",
        }
        call, _ = await pass_through(relay, "GET", "/v1/files", **said)
        assert call.all_headers("x-forwarded-for") == ["1.2.3.4, 5.6.7.8, 127.0.0.1"]
        assert call.all_headers("x-forwarded-proto") == ["https"]
        assert call.all_headers("x-forwarded-host") == ["chat.example"]
        assert call.header("x-real-ip") == "1.2.3.4"
        call, _ = await pass_through(relay, "GET", "/v1/files")
        assert call.all_headers("x-forwarded-for") == ["127.0.0.1"]
        assert call.all_headers("x-forwarded-proto") == ["http"]


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.0.0.1", False), ("", False), ("x", False)],
)
def test_an_address_is_looked_up_in_the_networks(peer: str, trusted: bool):
    assert TrustedProxies.parse(["10.0.0.0/8"]).trusts(peer) is trusted


@given(st.ip_addresses(), st.ip_addresses())
def test_an_address_names_itself_alone(one: Any, other: Any):
    mapped = getattr(other, "ipv4_mapped", None) or other
    assert TrustedProxies.parse([str(one)]).trusts(str(other)) == (
        ipaddress.ip_address(str(one)) == mapped
    )


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("10.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"6.6.6.6", b"1.2.3.4, 10.0.0.9,10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", [b"10.0.0.9"], "10.0.0.9"),
        ("10.0.0.1", [b"1.2.3.4, unknown"], "10.0.0.1"),
        ("10.0.0.1", [b"1.2.3.4, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [b"\xff, "], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"1.2.3.4:5678"], "1.2.3.4"),
        ("10.0.0.1", [b"[2001:DB8::1]:5678"], "2001:db8::1"),
        ("10.0.0.1", [b"2001:db8:0::1"], "2001:db8::1"),
        ("10.0.0.1", [b"::ffff:1.2.3.4"], "1.2.3.4"),
        ("::ffff:10.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        # Not a proxy.
        ("5.6.7.8", [b"1.2.3.4"], "5.6.7.8"),
        ("", [b"1.2.3.4"], ""),
    ],
)
def test_a_client_is_who_the_last_trusted_proxy_says(peer: str, said: list[bytes], client: str):
    assert TrustedProxies.parse(["10.0.0.0/8"]).client_of(peer, said) == client
    assert TrustedProxies().client_of(peer, said) == peer


def test_a_client_without_an_address_is_not_made_one_up():
    sent = TrustedProxies().forwarded(((b"X-Forwarded-For", b"1.2.3.4"),), "", b"http", None)
    assert sent == ((b"X-Forwarded-Proto", b"http"),)


# The key:

EVERY_KEY = {
    "Authorization": "Bearer sk-client",
    "X_Api_Key": "sk-client",
    "Api_Key": "sk-client",
    "X_Goog_Api_Key": "sk-client",
    "Mj_Api_Secret": "sk-client",
    "OpenAI_Organization": "org-client",
    "OpenAI_Project": "proj-client",
    "Cookie": "session=sk-client",
}


@ensureDeferred
async def test_a_fixed_key_replaces_every_key_of_a_client() -> None:
    async with running_relay(FIXED_API_KEY=KEY) as relay:
        for method, path in (
            ("GET", "/v1/files?key=sk-client&a=%20b&KEY=sk-client&keys=1"),
            ("POST", "/v1/chat/completions?key=sk-client&a=%20b&keys=1"),
        ):
            body = gpt() if method == "POST" else None
            call, _ = await pass_through(relay, method, path, body, **EVERY_KEY)
            assert call.target.partition("?")[2] == "a=%20b&keys=1"
            assert call.all_headers("authorization") == [f"Bearer {KEY}"]
            assert "client" not in str(call.headers)
        call, _ = await pass_through(relay, "GET", "/v1/files?key=sk-client")
        assert call.target == "/v1/files"


@ensureDeferred
async def test_without_a_fixed_key_every_key_of_a_client_is_passed_on(relay: Relay) -> None:
    call, _ = await pass_through(relay, "GET", "/v1/files?key=sk-client", **EVERY_KEY)
    assert call.target == "/v1/files?key=sk-client"
    for name, value in EVERY_KEY.items():
        assert call.header(name.replace("_", "-")) == value


KEYS = (b"key=1", b"Key=", b"key", b"k%65y=2")


@given(st.lists(st.sampled_from([*KEYS, b"a=b", b"mykey=1", b"", b"a=%26key"])))
def test_a_query_loses_its_key_and_nothing_else(pairs: list[bytes]):
    query = b"&".join(pairs)
    assert query_to_upstream(query, None) == query
    kept = [pair for pair in pairs if pair not in KEYS]
    assert query_to_upstream(query, "fixed") == b"&".join(kept)


QUOTED = {"error": {"message": f"Bad key {KEY}, or {KEY}.", "code": f"x{KEY}", "type": "x"}}


@pytest.mark.parametrize("stream", [True, False])
@ensureDeferred
async def test_an_error_that_quotes_the_fixed_key_does_not_show_it(stream: bool) -> None:
    async with running_relay(FIXED_API_KEY=KEY) as relay:
        for script in (
            document(QUOTED, 401),
            document(f"No {KEY}".encode(), 403, [("Content-Type", "text/plain")]),
            document(b"", 500, reason=f"Not {KEY}"),
            events(b"data: " + json.dumps(QUOTED).encode() + b"\n\n"),
            document(QUOTED),
        ):
            relay.upstream.play(script)
            client = await relay.begin(gpt(stream=stream))
            await client.reply()
            assert KEY.encode() not in client.received
        assert not [event for event in relay.logged if KEY in str(event.get("line"))]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@ensureDeferred
async def test_a_passed_error_does_not_show_it_either(framing: str) -> None:
    body = json.dumps(QUOTED).encode()
    async with running_relay(FIXED_API_KEY=KEY) as relay:
        for cut in (*range(20, 80, 7), len(body)):
            pieces = [body[:cut], body[cut:]]
            frame = {
                "length": ("Content-Length", str(len(body))),
                "chunked": ("Transfer-Encoding", "chunked"),
            }[framing]
            end = b"0\r\n\r\n" if framing == "chunked" else b""
            data = in_http_chunks(pieces) + end if framing == "chunked" else body
            relay.upstream.play(verbatim(head(401, [JSON, frame], f"No {KEY}") + data, "close"))
            client = await relay.send("GET", "/v1/files")
            reply = await client.reply()
            assert KEY.encode() not in client.received
            assert reply.error["message"] == "Bad key [secret]*****, or [secret]*****."
        relay.upstream.play(document(QUOTED, 200))
        assert (await (await relay.send("GET", "/v1/files")).reply()).json == QUOTED


@ensureDeferred
async def test_a_list_of_models_that_is_refused_does_not_log_it() -> None:
    async with running_relay(FIXED_API_KEY=KEY) as relay:
        relay.upstream.always(document(QUOTED, 401))
        await relay.get("/v1/models")
        assert relay.warnings
        assert not [text for text in relay.warnings if KEY in text and "Gemini" not in text]
