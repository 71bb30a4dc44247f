"""Answers that take long, for less than it costs to have Klein wait for them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request


class Detached(Resource):
    """
    What a route returns instead of waiting for its work: Klein keeps some twenty objects for as
    long as it waits.

    When the work is done, the response is ended. When the client goes, the work is cancelled.
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
    if not failure.check(CancelledError):
        request.processingFailed(failure)
