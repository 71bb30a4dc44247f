"""Calls functions that block, in threads of their own."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Threads:
    """
    At most so many threads for one kind of work, so that no other kind waits for it. The reactor
    has one pool for all: names that nobody answers for would keep the journal from its disk.

    A thread ends with its call, and does not keep the process from ending.
    """

    def __init__(self, reactor: IReactorFromThreads, limit: int, name: str) -> None:
        """@param name: of the threads, for debuggers."""
        self._reactor = reactor
        self._places = DeferredSemaphore(limit)
        self._name = name

    async def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """
        Call a function, when there is a thread for it. Cancelling ends the wait. A call that has
        begun goes on, and keeps its thread until it ends.

        @raise BaseException: whatever the function raises.
        """
        await self._places.acquire()
        done: Deferred[_T] = Deferred()

        def run() -> None:
            try:
                result: _T | Failure = function(*args, **kwargs)
            except BaseException:
                result = Failure()
            self._reactor.callFromThread(self._end, done, result)

        try:
            Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError:
            # The system gives no more.
            self._places.release()
            raise
        return await done

    def _end(self, done: Deferred[_T], result: _T | Failure) -> None:
        self._places.release()
        done.callback(result)
