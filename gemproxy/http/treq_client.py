"""treq over our agent, without what costs more than the rest of a request together."""

from __future__ import annotations

from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

from attrs import frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from gemproxy.http.body import BytesBody

# treq would keep an upstream's cookies, and send one client's with another client's request.
_NO_COOKIES = CookieJar(DefaultCookiePolicy(allowed_domains=[]))


class _WireURL(EncodedURL):
    """
    A URL that is encoded already.

    treq encodes the URL of each request, which is 7 % of the CPU of a small answer. There is
    no public way to give it an encoded one.
    """

    def to_uri(self) -> EncodedURL:
        return self


@lru_cache(16)
def _wire_url(text: str) -> EncodedURL:
    # Its to_uri cannot encode an IPv6 address.
    return _WireURL.from_text(text)


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
    agent: IAgent, method: bytes, url: bytes, headers: Headers, body: bytes | None
) -> Deferred[IResponse]:
    """
    Send a request and do not follow redirects. The response's body is not buffered; gzip is
    decoded.

    @param url: encoded, and one of a few; they are remembered.
    @param headers: without C{Accept-Encoding}, gzip is accepted.
    """
    sent: Any = HTTPClient(_FirstEncoding(agent), cast("Any", _NO_COOKIES)).request(
        method.decode(),
        _wire_url(url.decode()),
        headers=headers,
        data=None if body is None else BytesBody(body),
        unbuffered=True,
        allow_redirects=False,
    )
    return cast("Deferred[IResponse]", sent)
