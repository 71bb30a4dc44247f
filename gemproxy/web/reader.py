"""Reads the bodies of requests: small ones at once, and large ones in another process."""

from __future__ import annotations

from attrs import frozen

from gemproxy.chat.embeddings import EmbeddingsRequest
from gemproxy.chat.errors import INVALID_REQUEST, ChatError, bad_request
from gemproxy.chat.images import ImagesRequest
from gemproxy.chat.json_limits import JsonLimits
from gemproxy.chat.request import BOM, ChatRequest, is_large, models_beside
from gemproxy.dialects.dialect import Dialect, DialectRequest, Translation
from gemproxy.http.encodings import (
    DECODED,
    BadEncoding,
    DecodedTooLarge,
    UnknownEncoding,
    codings,
    decoded,
)
from gemproxy.offload.pool import Offload
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.bodies import (
    read_chat,
    read_dialect,
    read_embeddings,
    read_images,
    read_large_chat,
    read_model,
    renamed,
)
from gemproxy.web.completions import choices_in
from gemproxy.web.site import headers_of

# Encoded bodies may become a thousand times as large.
_SMALL_ENCODED = 10_000


@frozen
class BodyReader:
    """
    @ivar limits: of what is JSON.
    """

    offload: Offload
    limits: JsonLimits

    async def body(self, request: ProxyRequest) -> bytes:
        """
        The body of a request that is there as a whole, decoded. It is freed, and what is passed on
        of the headers does not say any more how it was encoded.

        @raise ChatError: 400, 413, 415, the body cannot be decoded; 503, it is too large for now.
        """
        raw = encoded = request.take_body()
        values = request.requestHeaders.getRawHeaders("content-encoding", [])
        if not raw or not values:
            return raw
        try:
            raw = await self.offload.when(
                len(raw) > _SMALL_ENCODED, decoded, raw, codings(values), request.body_limit
            )
        except UnknownEncoding as error:
            # RFC 7694.
            request.setHeader(b"accept-encoding", ", ".join(DECODED).encode())
            raise ChatError(
                415,
                INVALID_REQUEST,
                f"The Content-Encoding '{error}' is not supported. Send the body as it is, or "
                f"encoded with {' or '.join(DECODED)}.",
            ) from None
        except BadEncoding as error:
            raise bad_request(f"The request body is not valid {error}.") from None
        except DecodedTooLarge:
            raise request.too_large() from None
        request.requestHeaders.removeHeader("content-encoding")
        request.hold(max(0, len(raw) - len(encoded)))
        return raw

    async def chat(self, request: ProxyRequest) -> ChatRequest:
        """
        The chat completion request in the body of a request. The body and headers are freed.

        @raise ChatError: it is not a chat completion request, or see L{body}.
        """
        raw = await self.body(request)
        if is_large(raw):
            chat = await self.offload.run(read_large_chat, raw, self.limits)
            chat.raw = raw.removeprefix(BOM)
        else:
            chat = read_chat(raw, self.limits)
        del raw
        chat.headers = headers_of(request)
        chat.query = request.uri.partition(b"?")[2]
        request.forget_request_headers()
        return chat

    async def images(self, request: ProxyRequest, raw: bytes) -> ImagesRequest:
        """
        The request for pictures in a body. The headers are freed.

        @raise ChatError: 400, it is not such a request.
        """
        images = await self.offload.when(is_large(raw), read_images, raw, self.limits)
        images.chat.headers = headers_of(request)
        request.forget_request_headers()
        return images

    async def embeddings(self, raw: bytes) -> EmbeddingsRequest:
        """@raise ChatError: 400, the body is no request for embeddings."""
        return await self.offload.when(is_large(raw), read_embeddings, raw, self.limits)

    async def translation(self, dialect: Dialect, asked: DialectRequest) -> Translation:
        """@raise ChatError: 400, the request cannot be understood."""
        large = is_large(asked.raw)
        return await self.offload.when(large, read_dialect, dialect, asked, self.limits)

    async def model(self, raw: bytes) -> str | None:
        """
        The model that a body names, whatever it is for.

        @raise ChatError: 400, the body is beyond the limits.
        """
        return await self.offload.when(is_large(raw), read_model, raw, self.limits)

    async def other_models(self, raw: bytes) -> list[str]:
        """The models that a body names elsewhere than in C{model}, see L{models_beside}."""
        return await self.offload.when(is_large(raw), models_beside, raw) if raw else []

    async def renamed(self, raw: bytes, model: str) -> bytes:
        """A body whose model was read, for another model."""
        return await self.offload.when(is_large(raw), renamed, raw, model)

    async def choices(self, raw: bytes) -> int:
        """The number of choices that a request for completions is for."""
        return await self.offload.when(is_large(raw), choices_in, raw)
