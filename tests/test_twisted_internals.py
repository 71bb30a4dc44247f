"""
What gemproxy uses of Twisted beyond its public API. If a test here fails, a new Twisted has changed
it: the module that is named must be read again before that version is allowed in setup.cfg.
"""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest
from hyperlink import EncodedURL
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor, tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.pollreactor import PollReactor
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import HTTPChannel, Request
from twisted.web.http_headers import Headers, InvalidHeaderName
from twisted.web.resource import Resource

from gemproxy.http.header_map import HeaderMap
from gemproxy.http.request_writer import send_at_once
from gemproxy.http.server_request import ServerRequest
from tests.support import ROOT

PRIVATE = re.compile(
    # Twisted's private names, and the public ones that are not meant to be set.
    r"\bfrom (?:twisted|treq|klein)[\w.]* import [^\n]*\b_\w+"
    r"|channel\._\w+|\bself\._(?:command|disconnected|dataBuffer)\b"
    r"|\b_(?:networkProducer|waitingForTransport|handlingRequest|optimisticEagerReadSize)\b"
    r"|\.doWrite\(|\b_(?:rawHeaders|tempDataBuffer)\b"
    r"|\.chunked = |\.persistent = |_raiseSynchronously|\b_poller\b"
)


def test_they_are_used_in_one_folder_alone():
    package = ROOT / "gemproxy"
    found = {
        str(path.relative_to(package)): PRIVATE.findall(path.read_text())
        for path in package.rglob("*.py")
        if path.parent != package / "http"
    }
    assert {name: uses for name, uses in found.items() if uses} == {}


@pytest.mark.parametrize("kind", [EPollReactor, PollReactor])
def test_a_reactor_waits_by_its_poller_alone(kind: type[ReactorBase]):
    """gemproxy/http/reactor_turns.py: TurnService"""
    reactor = kind()
    happened: list[str] = []
    read_or_write, selectables = reactor._doReadOrWrite, reactor._selectables

    class Poller:
        def __init__(self, poller: Any) -> None:
            self.register, self.modify = poller.register, poller.modify
            self.unregister = poller.unregister
            self._poll = poller.poll

        def poll(self, *args: Any) -> Any:
            happened.append("poll")
            for fd, event in self._poll(*args):
                read_or_write(selectables[fd], fd, event)
            return ()

    reactor._poller = Poller(reactor._poller)
    client, server = socket.socketpair()
    with client, server:
        reader = FileDescriptor(reactor)
        reader.fileno = server.fileno
        reader.doRead = lambda: happened.append("read")
        reader.startReading()
        client.send(b"x")
        reactor.callLater(0, happened.append, "call")
        reactor.iterate()
        reactor.removeAll()
    assert happened == ["call", "poll", "read"]


def request_line_of(channel: HTTPChannel) -> tuple[bytes, bytes, bytes]:
    return channel._command, channel._path, channel._version


def test_a_channel_knows_the_request_line_when_the_headers_have_come():
    """gemproxy/http/client_connections.py: ClientChannel.request_line"""
    seen: list[tuple[bytes, bytes, bytes]] = []

    class Early(Request):
        def gotLength(self, length: int | None) -> None:
            seen.append(request_line_of(self.channel))
            super().gotLength(length)

    channel = HTTPChannel()
    channel.requestFactory = Early
    channel.makeConnection(StringTransport())
    channel.dataReceived(b"POST /a?b HTTP/1.1\r\nHost: c\r\nContent-Length: 5\r\n\r\n")
    assert seen == [(b"POST", b"/a?b", b"HTTP/1.1")]


def test_a_response_can_be_written_before_the_request_is_there():
    """gemproxy/http/server_request.py: begin_early, end_body, leave_unfinished"""
    channel = HTTPChannel()
    transport = StringTransport()
    requests: list[Request] = []

    class Early(Request):
        def gotLength(self, length: int | None) -> None:
            super().gotLength(length)
            requests.append(self)
            self.method, self.clientproto = b"POST", b"HTTP/1.1"
            self.channel.persistent = False
            self.write(b"early")

    channel.requestFactory = Early
    channel.makeConnection(transport)
    channel.dataReceived(b"POST / HTTP/1.1\r\nHost: c\r\nContent-Length: 5\r\n\r\n")
    assert transport.value().endswith(b"\r\n\r\n5\r\nearly\r\n")
    [request] = requests
    assert request.chunked == 1
    request.chunked = 0
    request.finish()
    assert not transport.value().endswith(b"0\r\n\r\n"), "the end of the body must be left out"
    assert transport.disconnecting


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_the_pieces_of_a_body_are_written_as_twisted_writes_them(version: bytes):
    """gemproxy/http/server_request.py: write"""
    written: list[tuple[bytes, int]] = []
    for kind in (server.Request, ServerRequest):
        requests: list[server.Request] = []

        class Streaming(kind):  # type: ignore[misc, valid-type]
            def process(self) -> None:
                requests.append(self)  # noqa: B023 - it is called before the next turn

        channel, transport = HTTPChannel(), StringTransport()
        channel.requestFactory, channel.site = Streaming, server.Site(Resource())
        channel.makeConnection(transport)
        channel.dataReceived(b"GET / %b\r\nHost: c\r\n\r\n" % version)
        [request] = requests
        for piece in (b"first", b"", b"x" * 20, b"last"):
            request.write(piece)
        request.finish()
        with pytest.raises(RuntimeError, match=r"after Request\.finish was called"):
            request.write(b"more")
        lost = kind(channel)
        lost.chunked = lost.startedWriting = 1
        lost.connectionLost(Failure(ConnectionDone()))
        lost.write(b"nobody takes it")
        written.append((transport.value(), request.sentLength))
    assert written[0] == written[1]


def test_a_response_can_be_left_to_another_protocol():
    """gemproxy/http/server_request.py: switch_protocols; ClientChannel.take_over"""
    channel = HTTPChannel()
    transport = StringTransport()
    requests: list[Request] = []

    class Switching(Request):
        def process(self) -> None:
            requests.append(self)

    channel.requestFactory = Switching
    channel.makeConnection(transport)
    channel.dataReceived(b"GET / HTTP/1.1\r\nHost: c\r\n\r\nearly")
    assert b"".join(channel._dataBuffer) == b"early", "what came early is kept elsewhere"
    [request] = requests
    request.channel.persistent = False
    request.startedWriting = 1
    channel.writeHeaders(b"HTTP/1.1", b"101", b"Fine", request.responseHeaders)
    request.write(b"raw")
    request.finish()
    assert transport.value() == b"HTTP/1.1 101 Fine\r\n\r\nraw"
    assert transport.disconnecting


def test_a_channel_parses_nothing_while_it_is_paused():
    """gemproxy/http/client_connections.py: ClientChannel.requestDone, _go_on, _is_within_head"""
    seen: list[bytes] = []

    class Answered(Request):
        def process(self) -> None:
            seen.append(self.uri)
            assert self.channel._handlingRequest
            assert not self.channel.line_mode
            self.finish()

    class Pausing(HTTPChannel):
        def requestDone(self, request: Request) -> None:
            self.paused = True
            super().requestDone(request)

    channel, transport = Pausing(), StringTransport()
    channel.requestFactory = Answered
    channel.makeConnection(transport)
    assert channel._networkProducer is transport
    second = b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
    channel.dataReceived(second.replace(b"2", b"1") + second)
    assert (seen, channel._buffer) == ([b"/1"], second)
    channel.paused = False
    channel.dataReceived(b"")
    assert (seen, channel._buffer, channel.line_mode) == ([b"/1", b"/2"], b"", 1)
    channel.paused = False
    channel.dataReceived(b"GET /3 HTTP/1.1\r\n")
    assert channel.requests, "a head that has begun has a request"


def test_a_channel_knows_whether_its_transport_is_full():
    """gemproxy/http/client_connections.py: ClientChannel.rawDataReceived, resumeProducing"""
    channel, transport = HTTPChannel(), StringTransport()
    channel.requestFactory = type("Slow", (Request,), {"process": lambda self: None})
    channel.makeConnection(transport)
    assert not channel._waitingForTransport
    channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    channel.pauseProducing()
    assert channel._waitingForTransport
    assert transport.producerState == "producing"
    channel.dataReceived(b"x" * (channel._optimisticEagerReadSize + 1))
    assert sum(map(len, channel._dataBuffer)) == channel._optimisticEagerReadSize + 1
    channel.resumeProducing()
    assert not channel._waitingForTransport


def test_a_server_transport_has_the_hooks_of_immediate_writes():
    """gemproxy/http/transport.py: PromptServer"""
    for name in ("startWriting", "stopWriting", "write", "writeSequence"):
        assert callable(getattr(tcp.Server, name)), f"tcp.Server.{name} is gone"
    for name in ("connected", "disconnecting", "TLS"):
        assert hasattr(tcp.Server, name), f"tcp.Server.{name} is gone"
    assert tcp.Port.transport is tcp.Server, "tcp.Port does not take its transport from a class"


def test_a_connection_sends_what_it_is_given_unless_something_waits():
    """gemproxy/http/request_writer.py: send_at_once"""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = tcp.Connection(ours, None, reactor)
        connection.connected = True
        send_at_once(connection, b"now")
        assert connection not in reactor.getWriters()
        assert theirs.recv(20, socket.MSG_DONTWAIT) == b"now"
        connection.write(b"first ")
        send_at_once(connection, b"second")
        connection.doWrite()
        assert theirs.recv(20, socket.MSG_DONTWAIT) == b"first second"
        connection.stopWriting()


def test_treq_asks_a_url_for_its_encoded_form():
    """gemproxy/http/treq_client.py: _WireURL"""
    from gemproxy.http.treq_client import _wire_url

    url = _wire_url("http://up.example/v1/chat/completions")
    assert isinstance(url, EncodedURL)
    assert url.to_uri() is url
    text = "http://[::1]:8000/v1/chat/completions?a=%20b"
    assert _wire_url(text).to_text() == EncodedURL.from_text(text).to_text() == text


names = st.sampled_from(["accept", b"ACCEPT", b"www-authenticate", "X-oddName", b"not a name"])
values = st.sampled_from([b"plain", "caf\u00e9", b"two\r\nlines", b"a\rb\n", "c\nd", b""])
calls = st.one_of(
    st.tuples(st.just("addRawHeader"), names, values),
    st.tuples(st.just("setRawHeaders"), names, st.lists(values, max_size=3)),
    st.tuples(st.sampled_from(["removeHeader", "hasHeader", "getRawHeaders"]), names),
    st.tuples(st.just("getRawHeaders"), names, st.just([])),
)


@given(st.lists(calls, max_size=12))
def test_a_map_of_headers_does_what_twisted_s_own_does(steps: list[tuple[Any, ...]]):
    """gemproxy/http/header_map.py"""

    def outcome(headers: Headers, method: str, *args: Any) -> Any:
        try:
            return getattr(headers, method)(*args)
        except InvalidHeaderName as error:
            return str(error)

    ours, theirs = HeaderMap(), Headers()
    for step in steps:
        assert outcome(ours, *step) == outcome(theirs, *step)
    copied = ours.copy()
    assert ours == theirs == copied
    copied.addRawHeader("accept", "more")
    assert ours == theirs
    assert list(ours.getAllRawHeaders()) == list(theirs.getAllRawHeaders())
