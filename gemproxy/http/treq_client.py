"""treq over our agent, without what costs more than the rest of a request together."""

from __future__ import annotations

from functools import lru_cache
from http.cookiejar import CookieJar
from typing import Any, cast

from attrs import frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from gemproxy.http.body import BytesBody


class _NoCookies(CookieJar):
    """treq would keep an upstream's cookies, and send one client's with another's request."""

    def add_cookie_header(self, request: Any) -> None:
        pass

    def extract_cookies(self, response: Any, request: Any) -> None:
        pass


_NO_COOKIES: Any = _NoCookies()


class _WireURL(EncodedURL):
    """
    A URL that is encoded already.

    treq encodes the URL of each request, which is 7 % of the CPU of a small answer, and puts it
    together again. There is no public way to give it an encoded one.
    """

    text: str

    def to_uri(self) -> EncodedURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self.text


@lru_cache(16)
def _wire_url(text: str) -> EncodedURL:
    # Its to_uri cannot encode an IPv6 address.
    url = cast("_WireURL", _WireURL.from_text(text))
    url.text = EncodedURL.to_text(url)
    return url


@frozen
@implementer(IAgent)
class _FirstEncoding:
    """
    Keeps the first C{Accept-Encoding} alone. treq adds C{gzip} to every request, and a compressed
    stream is not readable before its compressor has enough.
    """

    agent: IAgent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        if headers is not None and (accepted := headers.getRawHeaders(b"accept-encoding")):
            headers.setRawHeaders(b"accept-encoding", accepted[:1])
        return self.agent.request(method, uri, headers, bodyProducer)


def send(
    clock: IReactorTime,
    agent: IAgent,
    method: bytes,
    url: bytes,
    headers: Headers,
    body: bytes | None,
) -> Deferred[IResponse]:
    """
    Send a request and do not follow redirects. The response's body is not buffered; gzip is
    decoded.

    @param url: encoded, and one of a few; they are remembered.
    @param headers: without C{Accept-Encoding}, gzip is accepted.
    """
    sent: Any = HTTPClient(_FirstEncoding(agent), _NO_COOKIES).request(
        method.decode(),
        _wire_url(url.decode()),
        headers=headers,
        data=None if body is None else BytesBody(body),
        cookies=_NO_COOKIES,
        unbuffered=True,
        allow_redirects=False,
        reactor=cast("Any", clock),
    )
    return cast("Deferred[IResponse]", sent)
