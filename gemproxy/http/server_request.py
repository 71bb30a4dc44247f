"""What a streaming proxy needs of Twisted's Request and its channel, and they have no API for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.web.server import Request

from gemproxy.http.client_connections import ClientChannel
from gemproxy.http.framing import doubt_about
from gemproxy.http.header_map import HeaderMap


class ServerRequest(Request):
    """
    A request that can be answered before it is received, or left without its end.

    Twisted passes a request on when its body is complete. An upload of 50 MB would be kept in a
    file until then, and a client that sends too much would not be answered at all. The attributes
    used here (C{method}, C{clientproto}, C{channel.persistent}, and those in L{write}) are what
    Twisted's own methods read; C{tests/test_twisted_internals.py} fails if that changes.
    """

    __slots__ = ()

    transport: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requestHeaders, self.responseHeaders = HeaderMap(), HeaderMap()

    @property
    def request_line(self) -> tuple[bytes, bytes, bytes]:
        """Method, target and version, as soon as the headers have come."""
        return cast("ClientChannel", self.channel).request_line

    @property
    def framing_doubt(self) -> str | None:
        """See L{doubt_about}; once the headers have come."""
        channel = cast("ClientChannel", self.channel)
        _, _, version = channel.request_line
        return doubt_about(self.requestHeaders.getAllRawHeaders(), version, channel.is_folded)

    def wait_for_body(self) -> None:
        """Called when some of its body is still to come after a read from the client."""

    def begin_early(self) -> None:
        """Let a response be written now. The connection is closed after it."""
        self.method, _, self.clientproto = self.request_line
        self.close_after_response()
        self.setHeader(b"connection", b"close")
        self.stop_continue()

    def stop_continue(self) -> None:
        """Do not invite a client that waits for C{100 Continue} to send its body."""
        self.requestHeaders.removeHeader(b"expect")

    def close_after_response(self) -> None:
        """Take no other request from this connection."""
        self.channel.persistent = False

    def write(self, data: bytes) -> None:
        if not self.startedWriting:
            self.complete_head()
            super().write(data)
            if self.startedWriting:
                self.forget_response_headers()
        elif self.chunked and data and not (self.finished or self._disconnected):
            # Most pieces of a stream: what Twisted's own six calls do with them, in one.
            self.sentLength += len(data)
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            super().write(data)

    def complete_head(self) -> None:
        """Called when the response begins: the last moment for its headers."""

    def end_body(self) -> None:
        """Write the end of the response's body; the request itself goes on being received."""
        self.write(b"")
        if self.chunked:
            self.channel.write(b"0\r\n\r\n")
            self.chunked = 0

    def leave_unfinished(self) -> None:
        """
        Have the response end without the end of its body, by closing the connection: there is no
        other way to tell a client that the body is incomplete.
        """
        self.chunked = 0
        self.close_after_response()

    def switch_protocols(self, phrase: bytes) -> None:
        """
        Send the head of a response with the status 101. What is written from now on goes out as it
        is, and the connection is closed when the response is finished.
        """
        self.setResponseCode(101, phrase)
        self.close_after_response()
        self.startedWriting = 1
        self.channel.writeHeaders(b"HTTP/1.1", b"101", phrase, self.responseHeaders)
        self.forget_response_headers()

    def take_over(self, receive: Callable[[bytes], None]) -> None:
        """See L{ClientChannel.take_over}."""
        cast("ClientChannel", self.channel).take_over(receive)

    def forget_request_headers(self) -> None:
        """Free their memory, for as long as the response takes."""
        self.requestHeaders = HeaderMap()

    def forget_response_headers(self) -> None:
        """The same for the headers of a response that has begun."""
        self.responseHeaders = HeaderMap()
