"""Where an upstream may be: any base URL, IPv6, and servers with a certificate of a private CA."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from cryptography import x509
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.ssl import DefaultOpenSSLContextFactory

from gemproxy.openai.backend import base_url
from testing.fake_newapi import FakeNewApi, document, stream
from testing.tls import make_certificate
from tests.support import gpt, running_relay
from tests.tables import each

HOST = "https://example.org"


@each(
    ("setting", "target", "url"),
    [
        ("", "/v1/models", "/v1/models"),
        ("/", "/v1/models", "/v1/models"),
        ("/v1", "/v1/models", "/v1/models"),
        ("/v1/", "/v1/models", "/v1/models"),
        ("/ai/v1", "/v1/models", "/ai/v1/models"),
        ("/ai", "/v1/models", "/ai/models"),
        ("/api/paas/v4", "/v1/models", "/api/paas/v4/models"),
        ("/api/v3", "/v1/models?a=/v1", "/api/v3/models?a=/v1"),
        ("/v1beta/openai", "/v1/v1", "/v1beta/openai/v1"),
        ("/v1/chat/completions", "/v1/chat/completions", "/v1/chat/completions"),
        ("/api/v3/chat/completions/", "/v1/models", "/api/v3/models"),
        ("/chat/completions", "/v1/models", "/v1/models"),
        # Beside the API:
        ("", "/dashboard/billing/usage", "/dashboard/billing/usage"),
        ("/v1", "/v1beta/models", "/v1beta/models"),
        ("/ai/v1", "/api/usage/token/", "/ai/api/usage/token/"),
        ("/api/v3", "/dashboard", "/api/v3/dashboard"),
        ("/v1", "/v1", "/v1"),
        ("/v1", "/v1?a", "/v1?a"),
        ("/v4", "/v1?a", "/v4?a"),
    ],
)
def test_the_address_of_a_request(setting: str, target: str, url: str) -> None:
    assert base_url(HOST + setting).join(target.encode()) == (HOST + url).encode()


@pytest.mark.parametrize("target", ["v1/x", "", "/v1/\r\n", "//\u20ac"])
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError):
        base_url(HOST + "/v1").join(target.encode())


@ensureDeferred
async def test_all_requests_go_below_the_base_url() -> None:
    upstream = FakeNewApi()
    try:
        async with running_relay(UPSTREAM_URL=f"{upstream.url}/api/v4/chat/completions") as relay:
            upstream.play(stream("Hello"), document({"data": []}), document({}))
            assert (await relay.ask(gpt(stream=True))).content == "Hello"
            await relay.get("/v1/models")
            assert (await relay.get("/v1/files?a=b")).status == 200
        assert [call.target for call in upstream.calls] == [
            "/api/v4/chat/completions",
            "/api/v4/models",
            "/api/v4/files?a=b",
        ]
    finally:
        await upstream.stop()


@ensureDeferred
async def test_an_upstream_may_have_an_ipv6_address() -> None:
    upstream = FakeNewApi()
    port = reactor.listenTCP(0, upstream._factory, interface="::1")
    number = port.getHost().port
    try:
        async with running_relay(UPSTREAM_URL=f"http://[::1]:{number}") as relay:
            assert (await relay.ask(gpt(stream=True))).content == "Hello"
            assert upstream.calls[0].header("host") == f"[::1]:{number}"
    finally:
        await port.stopListening()
        await upstream.stop()


class SecureNewApi:
    """A New-API with TLS."""

    def __init__(self, folder: Path) -> None:
        self.certificate = make_certificate(folder)
        self.plain = FakeNewApi()
        context = DefaultOpenSSLContextFactory(str(self.certificate), str(self.certificate))
        self.port = reactor.listenSSL(0, self.plain._factory, context, interface="127.0.0.1")
        self.number = self.port.getHost().port
        self.url = f"https://localhost:{self.number}/v1"

    async def stop(self) -> None:
        await self.port.stopListening()
        await self.plain.stop()


@pytest_twisted.async_yield_fixture
async def secure(tmp_path: Path) -> AsyncIterator[SecureNewApi]:
    secure = SecureNewApi(tmp_path)
    yield secure
    await secure.stop()


def name_in_directory(certificate: Path) -> str:
    """The file name by which OpenSSL finds a certificate in a directory; see openssl-rehash(1)."""
    name = x509.load_pem_x509_certificate(certificate.read_bytes()).subject
    # The canonical form: text in UTF-8, lower case, and without the outer sequence.
    [attribute] = name
    text = str(attribute.value).lower().encode()
    oid = bytes.fromhex("0603550403")
    inner = oid + b"\x0c" + bytes([len(text)]) + text
    inner = b"\x30" + bytes([len(inner)]) + inner
    der = b"\x31" + bytes([len(inner)]) + inner
    digest = hashlib.sha1(der).digest()  # noqa: S324 - as OpenSSL names files
    return digest[3::-1].hex() + ".0"


@pytest.mark.parametrize("how", ["file", "directory", "untrusted"])
@ensureDeferred
async def test_a_private_ca_is_trusted_where_the_environment_says_so(
    secure: SecureNewApi, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "file":
        monkeypatch.setenv("SSL_CERT_FILE", str(secure.certificate))
    elif how == "directory":
        folder = tmp_path / "certs"
        folder.mkdir()
        (folder / name_in_directory(secure.certificate)).symlink_to(secure.certificate)
        monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    async with running_relay(UPSTREAM_URL=secure.url) as relay:
        reply = await relay.ask(gpt(stream=True))
        if how == "untrusted":
            assert reply.status == 502
            assert "certificate verify failed" in reply.error["message"]
            assert secure.plain.calls == []
        else:
            assert reply.content == "Hello"
