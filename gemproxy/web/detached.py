"""Responses that take long, with less memory than Klein needs to wait for them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from gemproxy.chat.errors import ChatError
from gemproxy.web.admission import ProxyRequest


class Detached(Resource):
    """
    Returned by a route that does not wait for its work, because Klein keeps about twenty objects
    per request while it waits.

    When the work is done, the response is finished; a L{ChatError} that it fails with is sent. When
    the client disconnects, the work is cancelled.
    """

    isLeaf = True

    def __init__(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        super().__init__()
        self._work = work

    def render(self, request: Request) -> int:
        work = Deferred.fromCoroutine(self._work)
        request.notifyFinish().addErrback(_cancel, work)
        work.addCallback(_finish, request).addErrback(_fail, request)
        return NOT_DONE_YET


def _cancel(_: Failure, work: Deferred[None]) -> None:
    work.cancel()


def _finish(_: None, request: Request) -> None:
    if request.channel is not None:
        request.finish()


def _fail(failure: Failure, request: Request) -> None:
    if failure.check(CancelledError):
        return
    if failure.check(ChatError):
        cast("ProxyRequest", request).send_failure(failure)
        _finish(None, request)
    else:
        request.processingFailed(failure)
