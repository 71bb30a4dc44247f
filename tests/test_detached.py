"""A route's work that goes on by itself ends the response, however it ends."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from twisted.web.test.requesthelper import DummyChannel

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
