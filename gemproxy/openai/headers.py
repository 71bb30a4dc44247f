"""Selects the headers passed from a client to an upstream."""

from __future__ import annotations

from gemproxy.chat.request import Headers
from gemproxy.http.headers import end_to_end

# What a fixed key replaces: it is the client's, or a key for this proxy.
_KEYS = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"cookie"})
# Sent by browsers about the requesting page; access has already been checked here.
_ABOUT_THE_PAGE = frozenset({b"origin", b"referer"})


def to_upstream(headers: Headers, fixed_key: str | None) -> Headers:
    """
    The headers to send upstream with a client's request.

    @param fixed_key: the key to send instead of the client's own.
    """
    kept = tuple(
        (name, value)
        for name, value in end_to_end(headers)
        if name.lower() not in _ABOUT_THE_PAGE and not name.lower().startswith(b"sec-")
    )
    if fixed_key is None:
        return kept
    kept = tuple((name, value) for name, value in kept if name.lower() not in _KEYS)
    return (*kept, (b"Authorization", b"Bearer " + fixed_key.encode()))
