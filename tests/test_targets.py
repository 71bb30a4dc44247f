"""Request targets: whatever a client writes, only the configured host gets a request."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.web.iweb import IAgent
from zope.interface import implementer

from gemproxy.http.confined import ConfinedAgent, ForeignOrigin
from gemproxy.http.url import BaseURL, Origin, split_url
from gemproxy.web.paths import split_target
from tests.support import Relay, chat, running_relay

UPSTREAM = "upstream.example"


@implementer(IHostnameResolver)
class RecordingResolver:
    """
    Finds every name at one port of this machine.

    @ivar names: those that were looked up.
    """

    def __init__(self, port: int) -> None:
        self.names: list[str] = []
        self._port = port

    def resolveHostName(self, receiver: Any, hostName: str, *args: Any, **kwargs: Any) -> Any:
        self.names.append(hostName)
        receiver.resolutionBegan(None)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", self._port))
        receiver.resolutionComplete()
        return receiver


@contextmanager
def resolver_for(port: int) -> Iterator[RecordingResolver]:
    assert IReactorPluggableNameResolver.providedBy(reactor)
    recording = RecordingResolver(port)
    before = reactor.installNameResolver(recording)
    try:
        yield recording
    finally:
        reactor.installNameResolver(before)


async def status_of(relay: Relay, target: bytes, method: bytes = b"GET", body: bytes = b"") -> int:
    client = await relay.connect()
    length = b"Content-Length: %d\r\n" % len(body)
    head = b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b\r\n"
    client.transport.write(head % (method, target, length) + body)
    await client.when(lambda: client.closed)
    return int(client.received.split(b" ", 2)[1])


GLUED = [b".v1/files", b"xv1/files", b"@v1/files", b"#/v1/files", b":1/v1/files", b"?/v1/files"]
FOREIGN = [
    b"http://evil.example/v1/files",
    b"https://evil.example/v1/files",
    b"http://localhost@evil.example/v1/files",
    b"http://evil.example#localhost/v1/files",
    b"ftp://localhost/v1/files",
    b"evil.example:443",
    b"*",
]


@ensureDeferred
async def test_no_target_changes_the_host_of_the_request():
    pieces = [
        *(b"v1", b"/v1/", b"/", b"//", b".", b"..", b"@", b":", b"#", b"?", b"\\", b"%2f", b"%40"),
        *(b"evil.example", b"http://", b"HTTPS://", b"localhost", b"files", b"chat/completions"),
        *(b"[::1]", b";", b"\xc3\xa9", b"\x7f", b"\x01", b":80", b"models"),
    ]
    choose = random.Random(11)
    made = [b"".join(choose.choices(pieces, k=choose.randint(1, 6))) for _ in range(200)]
    settings = {"UPSTREAM_URL": f"http://{UPSTREAM}", "FIXED_API_KEY": "our-key"}
    async with running_relay(**settings) as relay:
        with resolver_for(int(relay.upstream.url.rpartition(":")[2])) as resolver:
            for target in (*GLUED, *FOREIGN, *made):
                for method, body in ((b"GET", b""), (b"POST", b"x")):
                    assert await status_of(relay, target, method, body) < 500, target
            assert await status_of(relay, b"/v1/files") == 200
        assert set(resolver.names) == {UPSTREAM}
        for call in relay.upstream.calls:
            assert call.header("host") == UPSTREAM
            assert call.target.startswith("/v1/")


@pytest.mark.parametrize("target", GLUED + FOREIGN)
@pytest.mark.parametrize(("method", "body"), [(b"GET", b""), (b"POST", b"{}")])
@ensureDeferred
async def test_what_is_no_path_of_ours_is_refused(
    relay: Relay, target: bytes, method: bytes, body: bytes
):
    assert await status_of(relay, target, method, body) == 400
    assert relay.upstream.calls == []


@ensureDeferred
async def test_an_absolute_uri_of_ours_is_served(relay: Relay):
    client = await relay.connect()
    client.transport.write(b"GET http://localhost/v1/files?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await client.reply()).status == 200
    assert [call.target for call in relay.upstream.calls] == ["/v1/files?a=b"]


@ensureDeferred
async def test_a_chat_request_with_an_absolute_uri_is_read(relay: Relay):
    reply = await relay.send("POST", "http://localhost/v1/chat/completions", chat(model="gpt-x"))
    assert (await reply.reply()).status == 200


# Pure


@given(st.binary())
def test_a_target_is_a_path_or_refused(target: bytes):
    try:
        authority, path = split_target(target)
    except ValueError:
        return
    assert path.startswith(b"/")
    assert path.isascii()
    assert authority is not None or target.startswith(b"/")
    assert not set(path) & set(b"\r\n \x00#")


@given(st.binary())
def test_a_url_stays_at_its_origin_whatever_is_joined(target: bytes):
    base = BaseURL.parse("http://up.example/api")
    try:
        url = base.join(target)
    except ValueError:
        return
    origin, joined = split_url(url)
    assert origin == base.origin
    assert joined == b"/api" + target


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://up.example", Origin(b"http", b"up.example", 80), b""),
        ("HTTP://Up.Example:80/", Origin(b"http", b"up.example", 80), b""),
        ("https://up.example:8443/a/", Origin(b"https", b"up.example", 8443), b"/a"),
        ("http://[::1]:3001", Origin(b"http", b"::1", 3001), b""),
    ],
)
def test_a_base_url_is_parsed(url: str, origin: Origin, path: bytes):
    assert BaseURL.parse(url) == BaseURL(origin, path)


@pytest.mark.parametrize(
    "url", ["up.example", "ftp://up.example", "http://", "http://a@b", "http://a:b", "http://a b"]
)
def test_other_urls_are_refused(url: str):
    with pytest.raises(ValueError, match=r"."):
        BaseURL.parse(url)


@implementer(IAgent)
class RecordingAgent:
    def __init__(self) -> None:
        self.uris: list[bytes] = []

    def request(self, method: bytes, uri: bytes, *args: Any) -> Deferred[Any]:
        self.uris.append(uri)
        return succeed(None)


@pytest.mark.parametrize(
    "uri", [b"http://up.example.v1/", b"https://up.example/", b"http://up.example:81/", b"/v1"]
)
@ensureDeferred
async def test_a_confined_agent_goes_nowhere_else(uri: bytes):
    recording = RecordingAgent()
    agent = ConfinedAgent(recording, BaseURL.parse("http://up.example").origin)
    await agent.request(b"GET", b"http://up.example:80/v1")
    with pytest.raises((ForeignOrigin, ValueError)):
        await agent.request(b"GET", uri)
    assert recording.uris == [b"http://up.example:80/v1"]
