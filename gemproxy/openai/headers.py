"""Which headers pass between a client and New-API."""

from __future__ import annotations

from collections.abc import Iterable

from gemproxy.chat.request import Headers

# RFC 9110 section 7.6.1, and what belongs to one connection's framing.
_HOP_BY_HOP = frozenset(
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
        b"transfer-encoding",
        b"upgrade",
    }
)


# What a browser says of the page that asks; who may ask has been decided here.
_ABOUT_THE_PAGE = frozenset({b"origin", b"referer"})


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Headers less those that are about the connection they came by."""
    headers = tuple(headers)
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    left_out = _HOP_BY_HOP | named
    return tuple((name, value) for name, value in headers if name.lower() not in left_out)


def to_upstream(headers: Headers, fixed_key: str | None) -> Headers:
    """
    The headers to send on with a client's request.

    @param fixed_key: the key to show instead of the client's.
    """
    kept = tuple(
        (name, value)
        for name, value in end_to_end(headers)
        if name.lower() not in _ABOUT_THE_PAGE and not name.lower().startswith(b"sec-")
    )
    if fixed_key is None:
        return kept
    kept = tuple(
        (name, value)
        for name, value in kept
        if name.lower() not in (b"authorization", b"x-api-key", b"api-key", b"cookie")
    )
    return (*kept, (b"Authorization", b"Bearer " + fixed_key.encode()))


def without(headers: Headers, *names: bytes) -> Headers:
    """@param names: in lower case."""
    return tuple((name, value) for name, value in headers if name.lower() not in names)
