"""A route's work that goes on by itself ends the response, however it ends."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from twisted.web.test.requesthelper import DummyChannel

from gemproxy.web.app import ProxyApp
from gemproxy.web.detached import Detached


class Exchange:
    def __init__(self) -> None:
        channel = DummyChannel()
        self.request = Request(channel, False)
        self.request.site = Site(Resource())
        self.request.site.displayTracebacks = False
        self.request.method, self.request.clientproto = b"POST", b"HTTP/1.1"
        self.step: Deferred[None] = Deferred()
        self.was_cancelled = False
        self.sent = channel.transport.written

    async def work(self) -> None:
        try:
            await self.step
        except CancelledError:
            self.was_cancelled = True
            raise
        self.request.write(b"The answer.")

    def begin(self) -> None:
        assert Detached(self.work()).render(self.request) is NOT_DONE_YET


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.mark.parametrize("at_once", [False, True])
def test_the_response_ends_with_the_work(exchange: Exchange, at_once: bool):
    if at_once:
        exchange.step.callback(None)
    exchange.begin()
    if not at_once:
        assert not exchange.request.finished
        exchange.step.callback(None)
    assert exchange.request.finished
    assert b"The answer." in exchange.sent.getvalue()


def test_work_that_breaks_is_an_error_of_the_server(exchange: Exchange):
    exchange.begin()
    exchange.step.errback(RuntimeError("a bug"))
    assert exchange.request.finished
    assert exchange.sent.getvalue().startswith(b"HTTP/1.1 500 ")
    assert b"a bug" not in exchange.sent.getvalue()


def test_the_work_is_cancelled_when_the_client_goes(exchange: Exchange):
    exchange.begin()
    exchange.request.connectionLost(Failure(ConnectionDone()))
    assert exchange.was_cancelled
    assert exchange.sent.getvalue() == b""


def test_work_that_ignores_the_cancel_is_ignored(exchange: Exchange):
    exchange.step = Deferred(lambda step: step.callback(None))
    exchange.request.write(b"Half")
    exchange.begin()
    exchange.request.connectionLost(Failure(ConnectionDone()))
    assert not exchange.request.finished


class Answering:
    app = ProxyApp()

    @app.detached("/v1/a/<name>")
    @app.detached("/v1/a")
    async def answer(self, request: Request) -> None:
        # Klein has taken the path apart, if it has seen the request.
        request.write(b"by Klein" if request.prepath else b"at once")


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        (b"POST", b"/v1/a", b"at once"),
        (b"POST", b"/v1/%61", b"by Klein"),
        (b"POST", b"/v1/a/b", b"by Klein"),
        (b"GET", b"/v1/a", b"405"),
        (b"POST", b"/v1/ab", b"404"),
    ],
)
def test_a_path_as_it_is_in_a_route_is_answered_without_klein(
    exchange: Exchange, method: bytes, path: bytes, answer: bytes
):
    request, answering = exchange.request, Answering()
    request.channel.site = Site(answering.app.resource())
    request.method, request.path = method, path
    request.process()
    assert request.finished
    assert answer in exchange.sent.getvalue()
