"""An incremental parser for HTTP/1.1 responses, based on llhttp, the parser of Node.js. No I/O."""

from __future__ import annotations

from attrs import frozen
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from gemproxy.http.headers import HOP_BY_HOP, options_of

# The maximum size of headers, trailers and other data outside of the body, in bytes.
_OVERHEAD_LIMIT = 128 * 1024
_BODILESS = frozenset({204, 304})


@frozen
class Head:
    """
    @ivar version: the HTTP version, such as C{1.1}.
    @ivar headers: the headers in order, without those about the connection.
    @ivar length: the length of the body in bytes; None if it was not announced.
    """

    version: str
    code: int
    phrase: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    length: int | None


class ResponseParser:
    """
    Parses one response. Responses with status 1xx before it are skipped.

    @ivar head: the head of the response; None before it is complete and after it was taken.
    @ivar until_closed: whether the body ends with the connection.
    @ivar done: whether the body is complete.
    @ivar error: the reason why the response is invalid; None if no error was found so far.
    @ivar heard: whether any data was received.
    @ivar switched: whether the connection speaks another protocol from here on: what is fed is
        returned as it is.
    @ivar keep_alive: whether the connection can be reused after this response.
    """

    __slots__ = (
        "_asked_for_head",
        "_has_head",
        "_headers",
        "_left",
        "_may_switch",
        "_overhead",
        "_parser",
        "_phrase",
        "_pieces",
        "done",
        "error",
        "head",
        "heard",
        "keep_alive",
        "on_body",
        "switched",
        "until_closed",
    )

    def __init__(self, method: bytes, may_switch: bool = False) -> None:
        """
        @param method: the method of the request.
        @param may_switch: whether it asked for another protocol.
        """
        self.switched = False
        self._may_switch = may_switch
        self.head: Head | None = None
        self.until_closed = False
        self.done = False
        self.error: str | None = None
        self.heard = False
        self.keep_alive = False
        self._asked_for_head = method == b"HEAD"
        self._has_head = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._phrase = b""
        self._pieces: list[bytes] = []
        # Called by llhttp, more often than all of the below together.
        self.on_body = self._pieces.append
        self._overhead = 0
        # Bytes of the body that are to come, if llhttp does not count them.
        self._left: int | None = None
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # Accept lines that end with LF only, and a Content-Length in a chunked response, which is
        # ignored.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_chunked_length=True
        )

    def feed(self, data: bytes) -> bytes:
        """Parse more data; returns the bytes of the body in it."""
        if self.switched:
            return data
        assert self._parser is not None  # noqa: S101 - for mypy
        self.heard = True
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            if self.switched:
                self.close()
                return data[upgrade.args[0] :]
            self._spoil("The response switches protocols, which was not requested.")
        except HttpParserError as error:
            # The exception of a callback is in the error's context.
            self._spoil(str(error.__context__ or error))
        body = b"".join(self._pieces)
        self._pieces.clear()
        if self._asked_for_head and self._has_head:
            self.done = True
            self.keep_alive = self.keep_alive and not body
            body = b""
        if self._left is not None and self._has_head:
            body = body[: self._left]
            self._left -= len(body)
            self.done = self.done or not self._left
        self._overhead = 0 if body else self._overhead + len(data)
        if self._overhead > _OVERHEAD_LIMIT:
            self._spoil("The headers are too large.")
        if self.done or self.error is not None:
            self.close()
        return body

    def take_head(self) -> Head:
        """Return the head and release it."""
        head, self.head = self.head, None
        assert head is not None  # noqa: S101 - for mypy
        return head

    def close(self) -> None:
        """Process the end of the connection."""
        # Break the reference cycle.
        self._parser = None

    def _spoil(self, error: str) -> None:
        if self.done:
            # The response is complete; the invalid data follows it.
            self.keep_alive = False
        elif self.error is None:
            self.error = error

    # Called by llhttp:

    def on_message_begin(self) -> None:
        if self.done:
            raise ValueError("More than one response was received.")
        self._headers.clear()
        self._phrase = b""

    def on_status(self, phrase: bytes) -> None:
        self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None  # noqa: S101 - for mypy
        code = self._parser.get_status_code()
        self.switched = self._may_switch and code == 101 and self._parser.should_upgrade()
        if code < 200 and not self.switched:
            return
        chunked, identity, length = False, False, None
        passed = []
        named = options_of(self._headers)
        for header in self._headers:
            name = header[0].lower()
            if name not in HOP_BY_HOP:
                if name not in named:
                    passed.append(header)
            elif name == b"transfer-encoding":
                codings = {coding.strip() for coding in header[1].lower().split(b",")}
                # RFC 2616 section 3.6: identity is no coding at all.
                if not codings <= {b"chunked", b"identity", b""}:
                    raise ValueError("The transfer encoding is not supported.")
                chunked = chunked or b"chunked" in codings
                identity = True
            elif name == b"content-length":
                length = int(header[1])
                if self._asked_for_head:
                    # In the response to HEAD, the length is a header to pass on.
                    passed.append(header)
        ambiguous = (chunked or identity) and length is not None
        self.keep_alive = self._parser.should_keep_alive() and not ambiguous
        if code in _BODILESS or self._asked_for_head:
            length = 0
        elif chunked:
            length = None
        self.head = Head(self._parser.get_http_version(), code, self._phrase, tuple(passed), length)
        self.until_closed = length is None and not chunked
        if identity and not chunked:
            # llhttp waits for the end of the connection then.
            self._left = length
        self._has_head = True
        self._headers.clear()

    def on_message_complete(self) -> None:
        self.done = self._has_head and not self.switched
