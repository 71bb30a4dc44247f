"""Which headers are about one connection, and hence stay on it."""

from __future__ import annotations

from collections.abc import Iterable

Fields = tuple[tuple[bytes, bytes], ...]

# RFC 9110 section 7.6.1, and what belongs to the framing of one message.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    }
)

# In every response of ours. Twisted would send its name and version; and no browser is to guess
# that a document is a page.
ALWAYS_SENT = ((b"Server", b"gemproxy"), (b"X-Content-Type-Options", b"nosniff"))


def options_of(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """What C{Connection} headers name, in lower case: it belongs to the connection too."""
    return frozenset(
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    )


def asks_for_websocket(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request's headers are those of RFC 6455 section 4.1."""
    headers = tuple(headers)
    return b"upgrade" in options_of(headers) and any(
        name.lower() == b"upgrade" and value.strip().lower() == b"websocket"
        for name, value in headers
    )


def without(headers: Iterable[tuple[bytes, bytes]], *names: bytes) -> Fields:
    """@param names: in lower case."""
    return tuple([field for field in headers if field[0].lower() not in names])
