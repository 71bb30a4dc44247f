"""Which headers pass between a client and an upstream."""

from __future__ import annotations

from gemproxy.chat.request import Headers
from gemproxy.http.headers import end_to_end

# What a browser says of the page that asks; who may ask has been decided here.
_ABOUT_THE_PAGE = frozenset({b"origin", b"referer"})


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
