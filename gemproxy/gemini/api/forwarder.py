"""Passes requests on to Google that need no model to speak, such as those for files."""

from __future__ import annotations

import re
from urllib.parse import quote

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers as HeaderMap
from twisted.web.iweb import IBodyProducer, IResponse

from gemproxy.chat.errors import bad_request, upstream_failed
from gemproxy.chat.request import Headers
from gemproxy.gemini.api.client import ApiFailed, GeminiApi
from gemproxy.gemini.api.keys import KeyRing
from gemproxy.http.url import BaseURL, split_url

# What Google reads of a client's headers; all else is about the client, or this proxy.
_PASSED = re.compile(
    rb"content-type|content-range|range|accept|user-agent|x-goog-api-client|x-goog-fieldmask"
    rb"|x-goog-upload-[a-z-]+|x-server-timeout",
    re.I,
)
_MODEL = re.compile(rb"/v1[a-z]*/models/([A-Za-z0-9._-]{1,200}):(\w+)")
_UPLOAD_URL = b"x-goog-upload-url"
_ERRORS_FROM = 400


@frozen
class GoogleForwarder:
    """
    Has Google answer, with a key of this daemon in place of the client's. Errors are raised, so
    that those about that key can be told as such.
    """

    api: GeminiApi
    keys: KeyRing

    def forward(
        self, method: bytes, target: bytes, headers: Headers, body: IBodyProducer | None
    ) -> Deferred[IResponse]:
        return Deferred.fromCoroutine(self._forward(method, target, headers, body))

    async def _forward(
        self, method: bytes, target: bytes, headers: Headers, body: IBodyProducer | None
    ) -> IResponse:
        asked = _MODEL.fullmatch(target.partition(b"?")[0])
        if asked is None:
            # Files and caches are those of one key.
            return await self._ask(self.keys.first or "", method, target, headers, body)
        lease = await self.keys.acquire(asked[1].decode())
        try:
            return await self._ask(lease.key, method, target, headers, body)
        finally:
            # These methods have quotas of their own: no key rests for what they say.
            self.keys.abandon(lease)

    async def _ask(
        self,
        key: str,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> IResponse:
        sent = HeaderMap({b"accept-encoding": [b"identity"]})
        for name, value in headers:
            if _PASSED.fullmatch(name):
                sent.addRawHeader(name, value)
        path, _, query = target.partition(b"?")
        kept = b"&".join(pair for pair in query.split(b"&") if not pair.startswith(b"key="))
        wanted = self.api.endpoint.of_client(path + (b"?" + kept if kept else b""))
        try:
            response = await self.api.send(method, wanted, key, sent, body)
        except ApiFailed as failed:
            raise failed.failure.error from None
        except ValueError:
            raise bad_request("The request target is not a path.") from None
        if response.code >= _ERRORS_FROM:
            raise (await self.api.failure_of(response)).error
        if places := response.headers.getRawHeaders(_UPLOAD_URL):
            base = self.api.endpoint.base
            place = _upload_url(places[0], base, headers, _shown_key(headers, query))
            response.headers.setRawHeaders(_UPLOAD_URL, [place])
        return response


def _shown_key(headers: Headers, query: bytes) -> bytes:
    """What the client shows to this proxy as its key, as the value of a query's parameter."""
    for pair in query.split(b"&"):
        if pair.startswith(b"key="):
            return pair[4:]
    shown = next((value for name, value in headers if name.lower() == b"x-goog-api-key"), b"")
    return quote(shown.decode("latin-1"), safe="").encode()


def _upload_url(place: bytes, base: BaseURL, headers: Headers, key: bytes) -> bytes:
    """
    Where the client is to send the bytes of a file: here, and not to Google itself. SDKs show no
    key there, so it is in the address, as that of Google holds the right to upload.
    """
    try:
        _, target = split_url(place)
    except ValueError:
        raise upstream_failed("The Gemini API named no address for an upload.") from None
    named = {name.lower(): value.split(b",")[0].strip() for name, value in headers}
    scheme = named.get(b"x-forwarded-proto", b"http")
    host = named.get(b"x-forwarded-host") or named.get(b"host", b"localhost")
    path, _, query = target.removeprefix(base.path).partition(b"?")
    pairs = [pair for pair in query.split(b"&") if pair and not pair.startswith(b"key=")]
    pairs += [b"key=" + key] if key else []
    return b"%b://%b%b?%b" % (scheme, host, path, b"&".join(pairs))
