"""Fetching pictures by their addresses, over sockets of this machine."""

from __future__ import annotations

import base64
import datetime
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_twisted import ensureDeferred
from twisted.internet import reactor, ssl
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from gemproxy.chat.errors import ChatError
from gemproxy.gemini.pictures import PictureFetcher, is_public
from gemproxy.gemini.translate.media import media_part
from gemproxy.gemini.translate.remote_pictures import remote_pictures, with_pictures
from gemproxy.http.lookups import Lookups
from gemproxy.util.threads import Threads
from testing.google import scenarios
from testing.processes import free_port
from tests.support import chat, running, until

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
MB = 1024 * 1024


def test_pictures_come_from_public_addresses_and_the_usual_ports():
    assert is_public("1.1.1.1", 80)
    assert is_public("2606:4700:4700::1111", 443)
    for port in (22, 8080):
        assert not is_public("1.1.1.1", port)
    for address in ("127.0.0.1", "192.0.0.192", "192.88.99.1", "3fff::1"):
        assert not is_public(address, 80)


class Web(Resource):
    """
    A web server of the tests' own.

    @ivar pages: by path, what answers.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, Callable[[Request], Any]] = {}
        self.requests: list[Request] = []
        self.gone = 0

    def render_GET(self, request: Request) -> Any:
        self.requests.append(request)
        request.notifyFinish().addErrback(lambda _: setattr(self, "gone", self.gone + 1))
        return self.pages[request.path.decode()](request)

    @property
    def paths(self) -> list[str]:
        return [request.path.decode() for request in self.requests]


def page(
    body: bytes = PNG, kind: str | None = "image/png", code: int = 200
) -> Callable[[Request], Any]:
    def answer(request: Request) -> bytes:
        request.setResponseCode(code)
        request.setHeader(b"content-type", (kind or "").encode())
        return body

    return answer


def redirect(location: str, code: int = 302) -> Callable[[Request], Any]:
    def answer(request: Request) -> bytes:
        request.setResponseCode(code)
        if location:
            request.setHeader(b"location", location.encode())
        return b"elsewhere"

    return answer


def hang(request: Request) -> int:
    request.setHeader(b"content-type", b"image/png")
    request.write(PNG)
    return NOT_DONE_YET


def silent(request: Request) -> int:
    return NOT_DONE_YET


def broken(request: Request) -> int:
    request.setHeader(b"content-type", b"image/png")
    request.setHeader(b"content-length", b"1000")
    request.write(PNG)
    request.channel.transport.loseConnection()
    return NOT_DONE_YET


def announced(size: int) -> Callable[[Request], Any]:
    def answer(request: Request) -> int:
        request.setHeader(b"content-type", b"image/png")
        request.setHeader(b"content-length", str(size).encode())
        request.write(PNG)
        return NOT_DONE_YET

    return answer


def unannounced(size: int) -> Callable[[Request], Any]:
    def answer(request: Request) -> int:
        request.setHeader(b"content-type", b"image/png")
        for _ in range(size // MB):
            request.write(bytes(MB))
        request.finish()
        return NOT_DONE_YET

    return answer


class Port:
    """Where a L{Web} is."""

    def __init__(self, web: Web, port: Any) -> None:
        self.web = web
        self.port = port
        self.number = port.getHost().port

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.number}{path}"


@pytest_twisted.async_yield_fixture
async def server() -> AsyncIterator[Port]:
    web = Web()
    site = Site(web)
    site.noisy = False
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    yield Port(web, port)
    await port.stopListening()
    for request in web.requests:
        if getattr(request, "channel", None) is not None:
            request.channel.transport.abortConnection()


def on_loopback(address: str, port: int) -> bool:
    return address == "127.0.0.1"


class Fetching(PictureFetcher):
    """Fetches all pictures of some messages."""

    async def fetch(self, messages: Any) -> Any:  # type: ignore[override]
        return with_pictures(messages, await super().fetch(remote_pictures(messages)))


def fetcher(may_connect: Any = on_loopback, **more: Any) -> Fetching:
    return Fetching(reactor, may_connect, **more)


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def messages(*urls: str) -> list[Any]:
    parts = [{"type": "text", "text": "Look:"}, *map(picture, urls)]
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]


async def refusal(fetch: Any) -> ChatError:
    with pytest.raises(ChatError) as caught:
        await fetch
    assert (caught.value.status, caught.value.type) == (400, "invalid_request_error")
    assert f"'{caught.value.param}'" in caught.value.message
    return caught.value


WHERE = "messages[1].content[1].image_url.url"


@ensureDeferred
async def test_a_picture_takes_the_place_of_its_address(server: Port) -> None:
    server.web.pages["/a.png"] = page()
    server.web.pages["/b"] = page(b"<svg>", "Image/SVG+xml; charset=utf-8")
    asked = messages(server.url("/a.png"), server.url("/b"), PNG_URL)
    asked[1]["content"].append({"type": "image_url", "image_url": server.url("/a.png")})
    before = repr(asked)
    got = await fetcher().fetch(asked)
    assert got == [
        asked[0],
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look:"},
                picture(PNG_URL),
                picture("data:image/svg+xml;base64,PHN2Zz4="),
                picture(PNG_URL),
                picture(PNG_URL),
            ],
        },
    ]
    assert repr(asked) == before
    assert sorted(server.web.paths) == ["/a.png", "/b"]


@ensureDeferred
async def test_a_request_tells_nothing_of_the_client(server: Port) -> None:
    server.web.pages["/a"] = page()
    await fetcher().fetch(messages(server.url("/a?b=c d&e=\u00e9#f")))
    (request,) = server.web.requests
    assert request.uri == b"/a?b=c%20d&e=%C3%A9"
    headers = {name.lower() for name, _ in request.requestHeaders.getAllRawHeaders()}
    assert headers == {b"host", b"accept", b"user-agent", b"connection"}


@pytest.mark.parametrize(
    "asked",
    [
        None,
        5,
        "http://127.0.0.1/",
        [],
        [None, 5, "http://127.0.0.1/"],
        [{"content": "http://127.0.0.1/"}],
        [{"content": [None, 5, "http://127.0.0.1/"]}],
        [{"content": [{"type": "text", "text": "http://127.0.0.1/"}]}],
        [{"content": [{"type": "image_url"}, {"type": "image_url", "image_url": 5}]}],
        [{"content": [{"type": "video_url", "video_url": {"url": "http://127.0.0.1/"}}]}],
        [{"content": [{"type": "image", "source": 5}, {"type": "input_image"}, {"type": []}]}],
        [{"content": [{"type": "image", "source": {"type": "base64", "data": "AA=="}}]}],
        [{"content": [picture("data:image/png;base64,AA=="), picture("ftp://127.0.0.1/")]}],
        [{"content": [picture("https://www.youtube.com/watch?v=9hE5-98ZeCg")]}],
        [{"content": [{"type": "input_image", "image_url": "http://youtu.be/9hE5-98ZeCg"}]}],
        [{"content": [picture("https://generativelanguage.googleapis.com/v1beta/files/abc")]}],
    ],
)
@ensureDeferred
async def test_what_is_no_address_of_a_picture_is_left_alone(asked: Any) -> None:
    assert await fetcher().fetch(asked) is asked


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (picture, "image_url.url"),
        (lambda url: {"type": "image_url", "image_url": url}, "image_url.url"),
        (lambda url: {"type": "input_image", "image_url": url}, "image_url"),
        (lambda url: {"type": "input_image", "image_url": {"url": url}}, "image_url.url"),
        (lambda url: {"type": "image", "source": {"type": "url", "url": url}}, "source.url"),
    ],
)
@ensureDeferred
async def test_a_picture_of_any_kind_is_fetched(server: Port, make: Any, place: str) -> None:
    server.web.pages |= {"/a": page(), "/b": page(code=404)}
    (message,) = await fetcher().fetch([{"content": [make(server.url("/a"))]}])
    sent = media_part(message["content"][0], "here")
    data = PNG_URL.partition(",")[2]
    assert sent == {"inlineData": {"mimeType": "image/png", "data": data}}
    error = await refusal(fetcher().fetch([{"content": [make(server.url("/b"))]}]))
    assert error.param == f"messages[0].content[0].{place}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (page(code=404), "status 404"),
        (page(code=500), "status 500"),
        (page(b"", None, 304), "status 304"),
        (page(b"<html>", "text/html"), "not a picture"),
        (page(b"%PDF", "application/pdf"), "not a picture"),
        (page(kind=None), "not a picture"),
        (page(kind="images/png"), "not a picture"),
        (redirect(""), "redirect without a Location"),
        (redirect("/"), "more than 3 redirects"),
        (redirect("ftp://127.0.0.1/a.png"), "not an http or https URL"),
        (redirect("file:///etc/passwd"), "not an http or https URL"),
        (redirect("http://user:word@127.0.0.1/"), "user name or password"),
        (redirect("http://[/"), "malformed"),
        (redirect("http://10.0.0.1/"), "address is not public"),
        (redirect("http://[::1]/"), "address is not public"),
        (redirect("http://[::ffff:127.0.0.1]/"), "address is not public"),
        (redirect("http://0x7f000002/"), "address is not public"),
        (broken, "closed the connection before"),
        (page(bytes(20 * MB + 1)), "20 MB"),
        (announced(21 * MB), "20 MB"),
        (unannounced(21 * MB), "20 MB"),
    ],
)
@ensureDeferred
async def test_a_picture_that_cannot_be_had_is_a_bad_request(
    server: Port, answer: Any, reason: str
) -> None:
    server.web.pages["/"] = answer
    error = await refusal(fetcher().fetch(messages(server.url("/"))))
    assert error.param == WHERE
    assert reason in error.message


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://", "not an http or https URL"),
        ("http:///a.png", "not an http or https URL"),
        ("http://127.0.0.1:99999/", ""),
        ("http://127.0.0.1:x/", "malformed"),
        ("http://[::1/", "malformed"),
        ("http://a\ud800b/", "malformed"),
        ("http://" + "a" * 70 + ".invalid/", "malformed"),
        ("http://user@127.0.0.1/", "user name or password"),
        ("https://user:word@127.0.0.1/", "user name or password"),
        ("http://127.0.0.1\r\nHost: x/", ""),
        ("HTTP://10.0.0.1/", "address is not public"),
        ("http://no-such-host.invalid/", "its host name cannot be resolved"),
    ],
)
@ensureDeferred
async def test_a_malformed_address_is_a_bad_request(url: str, reason: str) -> None:
    error = await refusal(fetcher().fetch(messages(url)))
    assert error.param == WHERE
    assert reason in error.message


@ensureDeferred
async def test_a_port_without_a_server_is_a_bad_request() -> None:
    error = await refusal(fetcher().fetch(messages(f"http://127.0.0.1:{free_port()}/")))
    assert "cannot be reached" in error.message


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@ensureDeferred
async def test_three_redirects_are_followed(server: Port, code: int) -> None:
    server.web.pages |= {
        "/1": redirect("/2", code),
        "/2": redirect(f"//127.0.0.1:{server.number}/3", code),
        "/3": redirect(server.url("/4"), code),
        "/4": page(),
    }
    got = await fetcher().fetch(messages(server.url("/1")))
    assert got[1]["content"][1] == picture(PNG_URL)
    assert server.web.paths == ["/1", "/2", "/3", "/4"]


@ensureDeferred
async def test_no_request_is_left_waiting_on_a_connection(server: Port) -> None:
    def redirect_and_hang(request: Request) -> int:
        redirect("/2")(request)
        request.write(b"more to come")
        return NOT_DONE_YET

    server.web.pages |= {"/1": redirect_and_hang, "/2": page()}
    await fetcher().fetch(messages(server.url("/1")))
    await until(lambda: server.web.gone == 1, "the first hop's connection is closed")


def silence(host: str, port: int, **rest: Any) -> Any:
    """A resolver of the system that does not answer in time."""
    sleep(0.2)
    return []


class Names:
    """Hosts with the addresses that a test gives them, one look-up after another."""

    def __init__(self, **hosts: list[list[str]]) -> None:
        self.hosts = hosts

    def __call__(self, host: str) -> Deferred[list[str]]:
        return succeed(self.hosts[host].pop(0))


@ensureDeferred
async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(server: Port) -> None:
    server.web.pages["/"] = page()
    names = Names(host=[["127.0.0.1"], ["127.0.0.2"]])
    got = await fetcher(look_up=names).fetch(messages(server.url("/", "host")))
    assert got[1]["content"][1] == picture(PNG_URL)
    assert names.hosts == {"host": [["127.0.0.2"]]}
    assert server.web.requests[0].getHeader("host") == f"host:{server.number}"


@ensureDeferred
async def test_each_hop_is_looked_at_anew(server: Port) -> None:
    server.web.pages["/"] = redirect("/")
    names = Names(host=[["127.0.0.1"], ["127.0.0.2"]])
    error = await refusal(fetcher(look_up=names).fetch(messages(server.url("/", "host"))))
    assert "address is not public" in error.message
    assert len(server.web.requests) == 1


@ensureDeferred
async def test_a_request_looks_up_a_few_names_at_a_time(server: Port) -> None:
    asked: list[tuple[str, Deferred[list[str]]]] = []

    def look_up(host: str) -> Deferred[list[str]]:
        asked.append((host, Deferred()))
        return asked[-1][1]

    pictures = fetcher(look_up=look_up)
    urls = [f"http://h{number}.test:{server.number}/" for number in range(16)]
    work = Deferred.fromCoroutine(pictures.fetch(messages(*urls)))
    assert [host for host, _ in asked] == ["h0.test", "h1.test", "h2.test", "h3.test"]
    asked[0][1].callback(["127.0.0.1"])
    await until(lambda: len(asked) == 5, "the next one is looked up")
    asked[1][1].callback(["10.0.0.1"])
    assert "address is not public" in (await refusal(work)).message
    assert len(asked) <= 6


@ensureDeferred
async def test_a_host_name_that_nobody_answers_for_is_given_up(server: Port) -> None:
    look_up = Lookups(reactor, Threads(reactor, 1, "slow"), 0.05, silence).addresses
    error = await refusal(fetcher(look_up=look_up).fetch(messages(server.url("/", "slow.test"))))
    assert (error.status, error.param) == (400, "messages[1].content[1].image_url.url")
    assert "its host name was not found within" in error.message


@ensureDeferred
async def test_a_host_with_one_private_address_gets_no_request(server: Port) -> None:
    server.web.pages["/"] = page()
    names = Names(host=[["127.0.0.1", "10.0.0.1"]])
    error = await refusal(fetcher(look_up=names).fetch(messages(server.url("/", "host"))))
    assert "address is not public" in error.message
    assert not server.web.requests


@ensureDeferred
async def test_the_next_address_is_tried_where_one_does_not_answer(server: Port) -> None:
    server.web.pages["/"] = page()
    names = Names(host=[["127.0.0.3", "127.0.0.1"]])
    everywhere = fetcher(lambda address, port: True, look_up=names)
    await everywhere.fetch(messages(server.url("/", "host")))
    assert len(server.web.requests) == 1


@ensureDeferred
async def test_the_default_is_public_addresses_only(server: Port) -> None:
    server.web.pages["/"] = page()
    usual = Fetching(reactor)
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "0"):
        error = await refusal(usual.fetch(messages(server.url("/", host))))
        assert "address is not public" in error.message
    assert not server.web.requests


@pytest.mark.parametrize("answer", [hang, silent])
@ensureDeferred
async def test_a_slow_server_is_given_up(server: Port, answer: Any) -> None:
    server.web.pages["/"] = answer
    slow = fetcher(time_limit=0.1)
    error = await refusal(slow.fetch(messages(server.url("/"))))
    assert error.param == WHERE
    assert "more than 0.1 s" in error.message
    await until(lambda: server.web.gone == 1, "the connection is closed")


@pytest.mark.parametrize("answer", [hang, silent])
@ensureDeferred
async def test_a_client_that_goes_ends_the_fetching(server: Port, answer: Any) -> None:
    server.web.pages |= {"/1": answer, "/2": answer}
    asked = messages(server.url("/1"), server.url("/2"))
    fetching = Deferred.fromCoroutine(fetcher().fetch(asked))
    await until(lambda: len(server.web.requests) == 2, "both are asked for")
    fetching.cancel()
    with pytest.raises(CancelledError):
        await fetching
    await until(lambda: server.web.gone == 2, "the connections are closed")


@ensureDeferred
async def test_the_first_failure_ends_the_others(server: Port) -> None:
    server.web.pages |= {"/1": hang, "/2": silent}
    asked = messages(server.url("/1"), server.url("/2"))
    fetching = Deferred.fromCoroutine(fetcher().fetch(asked))
    await until(lambda: len(server.web.requests) == 2, "both are asked for")
    refused = next(r for r in server.web.requests if r.path == b"/2")
    refused.setResponseCode(404)
    refused.finish()
    error = await refusal(fetching)
    assert error.param == "messages[1].content[2].image_url.url"
    await until(lambda: server.web.gone == 1, "the other connection is closed")


@ensureDeferred
async def test_all_pictures_of_a_request_share_one_limit(server: Port) -> None:
    server.web.pages |= {f"/{n}": page(bytes(8 * MB)) for n in range(3)}
    two = messages(server.url("/0"), server.url("/1"))
    assert len((await fetcher().fetch(two))[1]["content"]) == 3
    three = messages(*(server.url(f"/{n}") for n in range(3)))
    assert "20 MB" in (await refusal(fetcher().fetch(three))).message


@ensureDeferred
async def test_sixteen_pictures_are_fetched_and_no_more(server: Port) -> None:
    server.web.pages |= {f"/{n}": page() for n in range(17)}
    urls = [server.url(f"/{n}") for n in range(17)]
    got = await fetcher().fetch(messages(*urls[:16], urls[0]))
    assert got[1]["content"][1:] == [picture(PNG_URL)] * 17
    error = await refusal(fetcher().fetch(messages(*urls)))
    assert error.param == "messages[1].content[17].image_url.url"
    assert len(server.web.requests) == 16


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Certificate and key of a server that goes by a name, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@ensureDeferred
async def test_a_server_must_have_the_certificate_of_its_name(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "pictures.example")
    web = Web()
    web.pages["/"] = page()
    site = Site(web)
    site.noisy = False
    options = ssl.DefaultOpenSSLContextFactory(str(key), str(cert))
    port = reactor.listenSSL(0, site, options, interface="127.0.0.1")
    try:
        policy = BrowserLikePolicyForHTTPS(ssl.Certificate.loadPEM(cert.read_bytes()))
        names = Names(**{"pictures.example": [["127.0.0.1"]] * 2, "other.example": [["127.0.0.1"]]})

        def at(name: str) -> list[Any]:
            return messages(f"https://{name}:{port.getHost().port}/")

        trusting = fetcher(look_up=names, policy=policy)
        got = await trusting.fetch(at("pictures.example"))
        assert got[1]["content"][1] == picture(PNG_URL)
        await refusal(trusting.fetch(at("other.example")))
        await refusal(fetcher(look_up=names).fetch(at("pictures.example")))
        assert len(web.requests) == 1
    finally:
        await port.stopListening()


@pytest.mark.cli
@ensureDeferred
async def test_a_picture_is_fetched_for_the_model_where_that_is_on(
    server: Port, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.web.pages["/a.png"] = page()
    with_loopback = partial(PictureFetcher, may_connect=on_loopback)
    monkeypatch.setattr("gemproxy.gemini.service.PictureFetcher", with_loopback)
    question = {"role": "user", "content": [{"type": "text", "text": "What is it?"}]}
    question["content"].append(picture(server.url("/a.png")))
    async with running(tmp_path, FETCH_IMAGES="true", GEMINI_WORKERS=1) as product:
        product.api.play(scenarios.answer("A picture."))
        assert (await product.ask(chat(question))).content == "A picture."
        data = PNG_URL.partition(",")[2]
        assert product.asked[0].parts == [
            {"text": "What is it?"},
            {"inlineData": {"mimeType": "image/png", "data": data}},
        ]
        server.web.pages["/a.png"] = page(b"<svg>", "image/svg+xml")
        reply = await product.ask(chat(question, stream=True))
        assert (reply.status, reply.error["param"]) == (
            400,
            "messages[0].content[1].image_url.url",
        )
        server.web.pages["/a.png"] = hang
        client = await product.begin(chat(question))
        await until(lambda: len(server.web.requests) == 3, "the picture is asked for")
        client.drop()
        await until(lambda: server.web.gone == 1, "the connection is closed")
        assert len(product.asked) == 1
