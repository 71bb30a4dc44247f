"""Which proxy a request goes through: the environment, read by the rules of curl. Pure."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from gemproxy.config import BadSetting
from gemproxy.http.proxies import Proxies, Proxy
from gemproxy.http.proxy_handshakes import ProxyRefused, Step, http_connect, socks5
from gemproxy.http.url import split_url
from tests.support import running_relay
from tests.tables import each

A = "http://a.proxy:1"
B = "http://b.proxy:2"


def proxy_of(url: str, **environ: str) -> str | None:
    proxy = Proxies.from_environ(environ).of(split_url(url.encode())[0])
    return None if proxy is None else str(proxy)


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": A}, A, None),
        ({"http_proxy": A}, A, None),
        ({"HTTPS_PROXY": A}, None, A),
        ({"https_proxy": A}, None, A),
        ({"ALL_PROXY": A}, A, A),
        ({"all_proxy": A, "https_proxy": B}, A, B),
        ({"HTTP_PROXY": A, "http_proxy": B}, B, None),
        ({"HTTP_PROXY": A, "http_proxy": ""}, None, None),
        ({"HTTP_PROXY": "  ", "ALL_PROXY": ""}, None, None),
        # What a CGI server makes of a client's header:
        ({"HTTP_PROXY": A, "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": A, "HTTPS_PROXY": B, "REQUEST_METHOD": "GET"}, A, B),
        ({"ALL_PROXY": A, "NO_PROXY": "*"}, None, None),
        ({"ALL_PROXY": A, "NO_PROXY": "*", "no_proxy": ""}, A, A),
    ],
)
def test_the_variables(environ: dict[str, str], http: str | None, https: str | None) -> None:
    assert proxy_of("http://example.org/", **environ) == http
    assert proxy_of("https://example.org/", **environ) == https


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("proxy", Proxy("http", "proxy", 80)),
        ("proxy:3128", Proxy("http", "proxy", 3128)),
        ("http://proxy:3128/", Proxy("http", "proxy", 3128)),
        ("HTTPS://Proxy.Example", Proxy("https", "proxy.example", 443)),
        ("http://[::1]:8080", Proxy("http", "::1", 8080)),
        ("10.0.0.1:8080", Proxy("http", "10.0.0.1", 8080)),
        ("http://me:p%40ss%3A%2f@proxy:1", Proxy("http", "proxy", 1, "me", "p@ss:/")),
        ("http://me@proxy:1", Proxy("http", "proxy", 1, "me", "")),
        ("me:word@proxy:1", Proxy("http", "proxy", 1, "me", "word")),
        ("socks5://proxy", Proxy("socks5", "proxy", 1080)),
        ("socks5h://me:word@proxy:9050", Proxy("socks5", "proxy", 9050, "me", "word")),
    ],
)
def test_the_address_of_a_proxy(text: str, proxy: Proxy) -> None:
    assert Proxies.from_environ({"http_proxy": text}).by_scheme == {b"http": proxy}
    assert "word" not in str(proxy) + repr(proxy)


@each(
    "text",
    [
        *("http://", "http://:80", "http://a:b", "http://a:99999", "http://a:0", "http://[::1"),
        *("http://a/path", "http://a?b", "http://a#b", "http://a b", "http://é:1", "ftp://a:1"),
        *("socks4://a:1", "://a", "http://me:se%0dcret@a", "http://-a"),
        "socks5://me:" + "secret" * 50 + "@a",
        "http://me:sec/ret@a:1",
    ],
)
@each("name", ["HTTP_PROXY", "https_proxy", "all_proxy"])
def test_what_is_no_address_of_a_proxy(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{name.upper()}: .*expected http://host:port") as caught:
        Proxies.from_environ({name: text})
    assert "sec" not in str(caught.value)


@each(
    ("no_proxy", "url", "direct"),
    [
        ("example.org", "http://example.org/", True),
        ("example.org", "http://EXAMPLE.org./", True),
        ("Example.org.", "http://example.org/", True),
        ("example.org", "http://www.example.org/", True),
        ("example.org", "http://badexample.org/", False),
        ("example.org", "http://example.org.evil.org/", False),
        (".example.org", "http://www.example.org/", True),
        (".example.org", "http://example.org/", True),
        ("*.example.org", "http://www.example.org/", True),
        ("example.org:81", "http://example.org:81/", True),
        ("example.org:81", "http://example.org/", False),
        ("example.org:80", "http://example.org/", True),
        ("a, b ,example.org", "http://example.org/", True),
        ("a b example.org", "http://b:1/", True),
        ("new_api", "http://new_api:3000/", True),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.1.2.3/8", "http://10.9.9.9/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.0.0.0/8", "http://ten.example/", False),
        ("10.0.0.1", "http://10.0.0.1/", True),
        ("10.0.0.1", "http://10.0.0.10/", False),
        ("0.0.1", "http://10.0.0.1/", False),
        ("10.0.0.1:81", "http://10.0.0.1:81/", True),
        ("10.0.0.1:81", "http://10.0.0.1/", False),
        ("fd00::/8", "http://[fd12::1]/", True),
        ("[fd12::1]", "http://[fd12::1]/", True),
        ("fd12::1", "http://[FD12:0::1]/", True),
        ("[fd12::1]:81", "http://[fd12::1]:81/", True),
        ("[fd12::1]:81", "http://[fd12::1]/", False),
        ("10.0.0.0/8", "http://[::ffff:10.0.0.1]/", True),
        ("", "http://example.org/", False),
        (" , ", "http://example.org/", False),
        # This machine:
        ("", "http://localhost:3001/", True),
        ("", "http://LocalHost./", True),
        ("", "http://a.localhost/", True),
        ("", "http://127.0.0.1:3001/", True),
        ("", "http://127.9.9.9/", True),
        ("", "http://[::1]:3001/", True),
        ("", "http://[::ffff:127.0.0.1]/", True),
        ("", "http://notlocalhost/", False),
        ("", "http://128.0.0.1/", False),
    ],
)
def test_what_goes_without_a_proxy(no_proxy: str, url: str, direct: bool) -> None:
    assert proxy_of(url, http_proxy=A, NO_PROXY=no_proxy) == (None if direct else A)


@pytest.mark.parametrize("text", ["10.0.0.0/99", "a/b", "http://a", "a:b", "a:99999", "10.*", "é"])
def test_what_no_proxy_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"^NO_PROXY: '.*' is not allowed; expected host names"):
        Proxies.from_environ({"no_proxy": f"a,{text}"})


@ensureDeferred
async def test_a_bad_value_stops_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "NO_PROXY"):
        with pytest.raises(BadSetting, match=f"^{name}: "):
            async with running_relay(**{name: "ftp://a/"}):
                pass


# Handshakes:


def talk(handshake: Any, *answers: bytes) -> list[Step]:
    """All that is said, given the answers."""
    steps = [next(handshake)]
    for answer in answers:
        try:
            steps.append(handshake.send(answer))
        except StopIteration:
            return [*steps, Step(b"over", 0)]
    return steps


def test_connect() -> None:
    proxy = Proxy("http", "proxy", 1, "me", "p:\u00e9")
    credentials = base64.b64encode("me:p:\u00e9".encode())
    said = (
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n"
        b"Proxy-Authorization: Basic " + credentials + b"\r\n\r\n"
    )
    steps = talk(http_connect(proxy, "example.org", 443), b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n")
    assert steps == [(said, None), (b"over", 0)]
    [step] = talk(http_connect(Proxy("http", "proxy", 1), "::2", 80))
    assert step.send == b"CONNECT [::2]:80 HTTP/1.1\r\nHost: [::2]:80\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "CONNECT h:443 with status 403 Forbidden"),
        (b"HTTP/1.1 407\r\n\r\n", "CONNECT h:443 with status 407$"),
        (b"HTTP/1.1 302 " + b"x" * 999 + b"\r\n\r\n", "302 x{100}$"),
        (b"SSH-2.0\r\n\r\n", "sent no HTTP response"),
    ],
)
def test_connect_refused(answer: bytes, reason: str) -> None:
    with pytest.raises(ProxyRefused, match=reason):
        talk(http_connect(Proxy("http", "proxy", 1), "h", 443), answer)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("host", b"\3\4host"),
        ("10.0.0.1", b"\1\x0a\0\0\1"),
        ("::1", b"\4" + bytes(15) + b"\1"),
    ],
)
@pytest.mark.parametrize(
    ("bound", "sizes"), [(1, [4 + 2]), (4, [16 + 2]), (3, [1, 7 + 2])], ids=["v4", "v6", "name"]
)
def test_socks(host: str, address: bytes, bound: int, sizes: list[int]) -> None:
    answers = [b"\5\0", bytes([5, 0, 0, bound]), *[b"\7"] * (len(sizes) - 1), b"\0" * sizes[-1]]
    steps = talk(socks5(Proxy("socks5", "proxy", 1), host, 443), *answers)
    assert steps == [
        (b"\5\1\0", 2),
        (b"\5\1\0" + address + b"\x01\xbb", 4),
        *((b"", size) for size in sizes),
        (b"over", 0),
    ]


def test_socks_with_a_user() -> None:
    steps = talk(socks5(Proxy("socks5", "proxy", 1, "me", "word"), "h", 1), b"\5\2", b"\1\0")
    assert steps == [(b"\5\1\2", 2), (b"\1\2me\4word", 2), (b"\5\1\0\3\1h\0\1", 4)]


@pytest.mark.parametrize(
    ("user", "answers", "reason"),
    [
        (None, [b"HT"], "does not speak SOCKS 5"),
        (None, [b"\5\xff"], "asks for a user"),
        (None, [b"\5\2"], "asks for a user"),
        ("me", [b"\5\xff"], "takes no user"),
        ("me", [b"\5\2", b"\1\1"], "refused the user"),
        (None, [b"\5\0", b"\5\5\0\1"], "did not connect to h, port 1: the connection was refused"),
        (None, [b"\5\0", b"\5\x63\0\1"], "SOCKS error 99"),
    ],
)
def test_socks_refused(user: str | None, answers: list[bytes], reason: str) -> None:
    with pytest.raises(ProxyRefused, match=reason):
        talk(socks5(Proxy("socks5", "proxy", 1, user), "h", 1), *answers)


def test_socks_has_no_room_for_a_long_name() -> None:
    with pytest.raises(ProxyRefused, match="too long"):
        talk(socks5(Proxy("socks5", "proxy", 1), "h" * 256, 1), b"\5\0")
