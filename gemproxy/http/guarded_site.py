"""A site that looks at the first line of a request before it takes the rest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Request

from gemproxy.http.site import QuietSite

Guard = Callable[[bytes, bytes], bool]
"""Whether requests with this method and target are taken."""


class GuardedRequest(Request):
    """
    A request of which no body is taken that nobody wants.

    The names of HTTPChannel that are used here are checked by C{tests/test_twisted_internals.py}.
    """

    def __init__(self, guard: Guard, body_limit: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._guard = guard
        self._body_limit = body_limit
        self._size = 0

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)
        if not self._guard(self.channel._command, self.channel._path):
            self._refuse(b"404 Not Found")
        elif length is not None and length > self._body_limit:
            self._refuse(b"413 Content Too Large")

    def handleContentChunk(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._body_limit:
            self._refuse(b"413 Content Too Large")
        else:
            super().handleContentChunk(data)

    def _refuse(self, status: bytes) -> None:
        """Answer without having read the request, and close the connection."""
        transport: Any = self.channel.transport
        if not transport.disconnecting:
            transport.write(
                b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
            )
            self.channel.loseConnection()


def guarded_site(resource: Resource, guard: Guard, body_limit: int, reactor: Any) -> QuietSite:
    """@param body_limit: bytes of a request's body at most."""
    return QuietSite(resource, partial(GuardedRequest, guard, body_limit), reactor=reactor)
