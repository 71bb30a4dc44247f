"""
Notices requests that come back: an upstream that asks this daemon what the daemon asks it.

Each request to an upstream carries a mark in a header of its own. New-API passes no such header on,
but does pass Accept, so the mark is there too, as a type that nobody wants.
"""

from __future__ import annotations

from attrs import frozen

from gemproxy.chat.request import Headers
from gemproxy.http.header_map import HeaderMap

_VIA = b"x-gemproxy-via"
LOOP_HEADERS = (b"accept", _VIA)
"""The headers in which a mark may be, in lower case."""

_TYPE = b"application/x.gemproxy."


@frozen
class LoopMark:
    """@ivar id: that of this daemon, unguessable, of letters and digits."""

    id: bytes

    def add_to(self, headers: HeaderMap) -> None:
        """Mark a request to an upstream."""
        accepted = headers.getRawHeaders(b"accept", [b"*/*"])
        accept = b", ".join([*accepted, _TYPE + self.id + b";q=0"])
        headers.setRawHeaders(b"accept", [accept])
        headers.setRawHeaders(_VIA, [self.id])

    def is_in(self, headers: Headers) -> bool:
        """Whether a request has come back."""
        return any(
            (name.lower() == _VIA and self.id in value)
            or (name.lower() == b"accept" and _TYPE + self.id in value)
            for name, value in headers
        )
