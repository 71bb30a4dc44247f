"""Requests through a proxy, over real sockets: to an upstream, to Google, and for pictures."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, DefaultOpenSSLContextFactory
from twisted.web.client import BrowserLikePolicyForHTTPS

from gemproxy.http.proxies import Proxies, Proxy
from gemproxy.http.proxy_handshakes import http_connect
from gemproxy.http.tunnel import ProxiedEndpoint, ProxyFailed
from testing.fake_newapi import FakeNewApi, document, stream
from testing.google import scenarios
from testing.processes import free_port
from testing.proxy import ProxyServer
from testing.tls import make_certificate
from tests.support import chat, gpt, running, running_relay, until
from tests.test_pictures import (
    PNG_URL,
    Names,
    Port,
    fetcher,
    messages,
    page,
    picture,
    redirect,
    refusal,
    server,
)
from tests.test_targets import resolver_for

__all__ = ["server"]

HOST = "upstream.test"
PUBLIC = "93.184.215.14"


def context(certificate: Path) -> DefaultOpenSSLContextFactory:
    return DefaultOpenSSLContextFactory(str(certificate), str(certificate))


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that is trusted."""
    certificate = make_certificate(tmp_path, HOST)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return certificate


@pytest_twisted.async_yield_fixture
async def proxy() -> AsyncIterator[ProxyServer]:
    proxy = ProxyServer()
    yield proxy
    await proxy.stop()


@pytest_twisted.async_yield_fixture
async def upstream(proxy: ProxyServer) -> AsyncIterator[FakeNewApi]:
    """Only the proxy knows where its host is."""
    upstream = FakeNewApi()
    proxy.targets[f"{HOST}:80"] = upstream._number
    yield upstream
    await upstream.stop()


@pytest_twisted.async_yield_fixture
async def secure(
    proxy: ProxyServer, upstream: FakeNewApi, certificate: Path
) -> AsyncIterator[FakeNewApi]:
    """The same with TLS."""
    port = reactor.listenSSL(0, upstream._factory, context(certificate), interface="127.0.0.1")
    proxy.targets[f"{HOST}:443"] = port.getHost().port
    yield upstream
    await port.stopListening()


def environ(scheme: str, proxy: ProxyServer, credentials: str = "") -> dict[str, str]:
    kind, _, upstream = scheme.partition("+")
    return {
        "UPSTREAM_URL": f"{upstream}://{HOST}",
        f"{upstream.upper()}_PROXY": f"{kind}://{credentials}{proxy.address}",
    }


@pytest.mark.parametrize("credentials", ["", "me:p%40ss@"])
@ensureDeferred
async def test_an_upstream_without_tls(
    proxy: ProxyServer, upstream: FakeNewApi, credentials: str
) -> None:
    proxy.user = "me:p@ss" if credentials else None
    upstream.always(document({}))
    upstream.play(stream("Hello"))
    async with running_relay(**environ("http+http", proxy, credentials)) as relay:
        assert (await relay.ask(gpt(stream=True))).content == "Hello"
        [asked] = proxy.asked
        assert (asked.how, asked.target) == ("POST", f"http://{HOST}/v1/chat/completions")
        assert asked.headers["host"] == HOST
        assert ("proxy-authorization" in asked.headers) == bool(credentials)
        assert upstream.calls[0].header("host") == HOST
        reply = await relay.get("/v1/files?a=b")
        assert reply.status == 200
    assert proxy.opened == 1


@pytest.mark.parametrize("kind", ["http", "https", "socks5", "socks5h"])
@pytest.mark.parametrize("credentials", ["", "me:p%40ss@"])
@ensureDeferred
async def test_an_upstream_with_tls(
    proxy: ProxyServer, secure: FakeNewApi, certificate: Path, kind: str, credentials: str
) -> None:
    through = ProxyServer(tls=context(certificate)) if kind == "https" else proxy
    through.targets = proxy.targets
    through.user = "me:p@ss" if credentials else None
    secure.always(document({}))
    secure.play(stream("Hello"))
    settings = environ(f"{kind}+https", through, credentials)
    with ExitStack() as stack:
        if kind == "https":
            # The proxy needs a certificate of its name.
            settings["HTTPS_PROXY"] = settings["HTTPS_PROXY"].replace("127.0.0.1", HOST)
            stack.enter_context(resolver_for(through.number))
        async with running_relay(**settings) as relay:
            assert (await relay.ask(gpt(stream=True))).content == "Hello"
            assert (await relay.get("/v1/files")).status == 200
    if kind == "https":
        await through.stop()
    [asked] = through.asked
    how = "SOCKS" if kind.startswith("socks") else "CONNECT"
    assert (asked.how, asked.target) == (how, f"{HOST}:443")
    assert through.opened == 1
    assert secure.calls[0].header("proxy-authorization") is None


@ensureDeferred
async def test_socks_serves_upstreams_without_tls_as_well(
    proxy: ProxyServer, upstream: FakeNewApi
) -> None:
    async with running_relay(**environ("socks5+http", proxy)) as relay:
        assert (await relay.ask(gpt(stream=True))).content == "Hello"
    assert [(asked.how, asked.target) for asked in proxy.asked] == [("SOCKS", f"{HOST}:80")]


@pytest.mark.parametrize(
    ("scheme", "credentials", "reason"),
    [
        ("http+http", "", "asks for a user and password"),
        ("http+http", "me:secret@", "or does not accept these"),
        ("http+https", "me:secret@", "with status 407 Proxy Authentication Required"),
        ("socks5+http", "", "asks for a user and password"),
        ("socks5+http", "me:secret@", "refused the user and password"),
    ],
)
@ensureDeferred
async def test_a_proxy_that_wants_others(
    proxy: ProxyServer, upstream: FakeNewApi, scheme: str, credentials: str, reason: str
) -> None:
    proxy.user = "somebody:else"
    async with running_relay(**environ(scheme, proxy, credentials)) as relay:
        reply = await relay.ask(gpt(stream=True))
        passed = await relay.get("/v1/files")
    for error in (reply, passed):
        assert error.status == 502
        assert "(UPSTREAM_URL) cannot be reached: the proxy " in error.error["message"]
        assert proxy.address in error.error["message"]
        assert reason in error.error["message"]
        assert "secret" not in error.error["message"]
    assert upstream.calls == []


@pytest.mark.parametrize("scheme", ["http+https", "socks5+https", "socks5+http"])
@ensureDeferred
async def test_a_target_that_the_proxy_does_not_reach(proxy: ProxyServer, scheme: str) -> None:
    async with running_relay(**environ(scheme, proxy)) as relay:
        error = (await relay.ask(gpt(stream=True))).error
    reason = "host is unreachable" if "socks" in scheme else "with status 502 Bad Gateway"
    assert reason in error["message"]


@pytest.mark.parametrize("scheme", ["http+http", "http+https", "socks5+https"])
@ensureDeferred
async def test_a_proxy_that_is_not_there(proxy: ProxyServer, scheme: str) -> None:
    settings = environ(scheme, proxy)
    settings = {n: v.replace(str(proxy.number), str(free_port())) for n, v in settings.items()}
    async with running_relay(**settings) as relay:
        message = (await relay.ask(gpt(stream=True))).error["message"]
    assert "the proxy " in message
    assert "cannot be reached: Connection was refused" in message


@ensureDeferred
async def test_this_machine_needs_no_proxy(proxy: ProxyServer) -> None:
    address = f"http://{proxy.address}"
    async with running_relay(ALL_PROXY=address, HTTP_PROXY=address) as relay:
        assert (await relay.ask(gpt(stream=True))).content == "Hello"
    assert proxy.opened == 0


@ensureDeferred
async def test_a_client_that_leaves_ends_the_handshake(proxy: ProxyServer) -> None:
    proxy.silent = True
    async with running_relay(**environ("http+https", proxy)) as relay:
        client = await relay.begin(gpt(stream=True))
        await until(lambda: proxy.heard, "the proxy is asked")
        client.drop()
        await until(lambda: not proxy.connections, "the connection is closed")


def tunnel_to(proxy: ProxyServer, timeout: float = 10) -> ProxiedEndpoint:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", proxy.number)
    of_proxy = Proxy("http", "127.0.0.1", proxy.number)
    return ProxiedEndpoint(
        reactor, of_proxy, endpoint, lambda: http_connect(of_proxy, HOST, 443), timeout
    )


@ensureDeferred
async def test_a_proxy_has_only_so_much_time(proxy: ProxyServer) -> None:
    proxy.silent = True
    with pytest.raises(ProxyFailed, match=r"sent no answer for 0\.1 s"):
        await tunnel_to(proxy, 0.1).connect(Factory.forProtocol(Protocol))
    await until(lambda: not proxy.connections, "the connection is closed")
    before = proxy.heard
    asked = tunnel_to(proxy).connect(Factory.forProtocol(Protocol))
    await until(lambda: proxy.heard > before, "the proxy is asked")
    asked.cancel()
    with pytest.raises(CancelledError):
        await asked


class Speaker(Protocol):
    """A proxy that says one thing."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self._said)
        if not self._said:
            self.transport.loseConnection()


class Listener(Protocol):
    def __init__(self) -> None:
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "closed the connection without an answer"),
        (b"x" * 70_000, "sent no HTTP response"),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", None),
    ],
)
@ensureDeferred
async def test_what_a_proxy_may_say(said: bytes, reason: str | None) -> None:
    factory = Factory.forProtocol(lambda: Speaker(said))
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    number = port.getHost().port
    proxy = Proxy("http", "127.0.0.1", number)
    endpoint = ProxiedEndpoint(
        reactor,
        proxy,
        TCP4ClientEndpoint(reactor, "127.0.0.1", number),
        lambda: http_connect(proxy, HOST, 443),
    )
    connecting = endpoint.connect(Factory.forProtocol(Listener))
    if reason is None:
        listener: Any = await connecting
        assert listener.heard == b"early"
        listener.transport.loseConnection()
    else:
        with pytest.raises(ProxyFailed, match=reason):
            await connecting
    await port.stopListening()


# Google:


@pytest.mark.cli
@pytest.mark.parametrize("scheme", ["http", "https"])
@ensureDeferred
async def test_google_is_reached_through_a_proxy_and_the_cli_is_not_misled(
    proxy: ProxyServer,
    tmp_path: Path,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    proxy.user = "me:word"
    address = f"http://me:word@{proxy.address}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setitem(os.environ, name, address)
    settings = {
        "GOOGLE_GEMINI_BASE_URL": f"{scheme}://{HOST}",
        "HTTP_PROXY": address,
        "HTTPS_PROXY": address,
        "GEMINI_WORKERS": 1,
        "GEMINI_MODELS": "gemini-2.5-flash",
    }
    async with running(tmp_path, **settings) as product:
        site = product.api.site()
        if scheme == "https":
            port = reactor.listenSSL(0, site, context(certificate), interface="127.0.0.1")
        else:
            port = reactor.listenTCP(0, site, interface="127.0.0.1")
        number = 443 if scheme == "https" else 80
        proxy.targets[f"{HOST}:{number}"] = port.getHost().port
        product.api.play(scenarios.answer("Through the proxy."))
        assert (await product.ask(chat())).content == "Through the proxy."
        await port.stopListening()
    [asked] = proxy.asked
    assert asked.how == ("CONNECT" if scheme == "https" else "POST")
    assert HOST in asked.target


# Pictures:


def through(proxy: ProxyServer, no_proxy: str = "") -> Proxies:
    address = f"http://{proxy.address}"
    return Proxies.from_environ(
        {"http_proxy": address, "https_proxy": address, "no_proxy": no_proxy}
    )


def public(address: str, port: int) -> bool:
    return address == PUBLIC


@ensureDeferred
async def test_a_proxy_is_asked_for_the_address_of_a_picture_that_was_checked(
    proxy: ProxyServer, server: Port
) -> None:
    server.web.pages["/a.png"] = page()
    proxy.targets[f"{PUBLIC}:80"] = server.number
    names = Names(**{"pictures.test": [[PUBLIC]]})
    fetching = fetcher(public, look_up=names, proxies=through(proxy))
    got = await fetching.fetch(messages("http://pictures.test/a.png"))
    assert got[1]["content"][1] == picture(PNG_URL)
    assert [(asked.how, asked.target) for asked in proxy.asked] == [("CONNECT", f"{PUBLIC}:80")]
    assert server.web.requests[0].getHeader("host") == "pictures.test"


@ensureDeferred
async def test_a_picture_with_https_has_the_certificate_of_its_name(
    proxy: ProxyServer, server: Port, certificate: Path
) -> None:
    server.web.pages["/"] = page()
    port = reactor.listenSSL(0, server.port.factory, context(certificate), interface="127.0.0.1")
    proxy.targets[f"{PUBLIC}:443"] = port.getHost().port
    names = Names(**{HOST: [[PUBLIC]], "other.test": [[PUBLIC]]})
    policy = BrowserLikePolicyForHTTPS(Certificate.loadPEM(certificate.read_bytes()))
    fetching = fetcher(public, look_up=names, proxies=through(proxy), policy=policy)
    got = await fetching.fetch(messages(f"https://{HOST}/"))
    assert got[1]["content"][1] == picture(PNG_URL)
    await refusal(fetching.fetch(messages("https://other.test/")))
    assert {asked.target for asked in proxy.asked} == {f"{PUBLIC}:443"}
    await port.stopListening()


@pytest.mark.parametrize("addresses", [["10.0.0.1"], [PUBLIC, "127.0.0.1"], []])
@ensureDeferred
async def test_a_proxy_is_asked_for_no_picture_on_a_private_address(
    proxy: ProxyServer, server: Port, addresses: list[str]
) -> None:
    server.web.pages["/"] = redirect("http://inner.test/")
    proxy.targets[f"{PUBLIC}:80"] = server.number
    names = Names(**{"outer.test": [[PUBLIC]], "inner.test": [addresses]})
    fetching = fetcher(public, look_up=names, proxies=through(proxy))
    error = await refusal(fetching.fetch(messages("http://outer.test/")))
    reason = "address is not public" if addresses else "host name cannot be resolved"
    assert reason in error.message
    assert len(proxy.asked) == 1


@ensureDeferred
async def test_a_refusal_of_the_proxy_is_the_reason_why_a_picture_is_missing(
    proxy: ProxyServer,
) -> None:
    names = Names(**{"pictures.test": [[PUBLIC]]})
    fetching = fetcher(public, look_up=names, proxies=through(proxy))
    error = await refusal(fetching.fetch(messages("http://pictures.test/")))
    assert f"answered CONNECT {PUBLIC}:80 with status 502" in error.message


@pytest.mark.parametrize("no_proxy", ["pictures.test", "127.0.0.0/8"])
@ensureDeferred
async def test_pictures_of_some_hosts_need_no_proxy(
    proxy: ProxyServer, server: Port, no_proxy: str
) -> None:
    server.web.pages["/"] = page()
    names = Names(**{"pictures.test": [["127.0.0.1"]]})
    fetching = fetcher(look_up=names, proxies=through(proxy, no_proxy))
    await fetching.fetch(messages(f"http://pictures.test:{server.number}/"))
    assert proxy.opened == 0
