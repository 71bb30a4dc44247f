"""
Notices requests that come back: an upstream that asks this daemon what the daemon asks it.

Each request to an upstream carries a mark in a header of its own. New-API passes no such header on,
but does pass Accept, so the mark is there too, as a type that nobody wants.
"""

from __future__ import annotations

from attrs import frozen
from twisted.web.http_headers import Headers

_VIA = b"x-gemproxy-via"
_TYPE = b"application/x.gemproxy."


@frozen
class LoopMark:
    """@ivar id: that of this daemon, unguessable, of letters and digits."""

    id: bytes

    def add_to(self, headers: Headers) -> None:
        """Mark a request to an upstream."""
        accepted = headers.getRawHeaders(b"accept", [b"*/*"])
        accept = b", ".join([*accepted, _TYPE + self.id + b";q=0"])
        headers.setRawHeaders(b"accept", [accept])
        headers.setRawHeaders(_VIA, [self.id])

    def is_in(self, headers: Headers) -> bool:
        """Whether a request has come back."""
        via = b" ".join(headers.getRawHeaders(_VIA, ()))
        accepted = b" ".join(headers.getRawHeaders(b"accept", ()))
        return self.id in via or _TYPE + self.id in accepted
