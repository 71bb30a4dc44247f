"""
Work on what is large, in processes of its own.

A thread would not do: the C code that parses, renders or decodes 50 MB keeps Python's global lock
for up to half a second, and a thread that works all the time delays the reactor at each of its
system calls. A process also gives back all of its memory when it ends.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from attrs import define, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IPullProducer
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from gemproxy.chat.errors import INVALID_REQUEST, SERVER_ERROR, ChatError
from gemproxy.offload.frames import FrameReader, decode, encode
from gemproxy.util.heap import give_back
from gemproxy.util.log import make_logger

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PIECE = 256 * 1024
_STDERR_TAIL = 2000


@frozen
class OffloadLimits:
    """
    @ivar processes: at a time.
    @ivar time: seconds for one call.
    @ivar idle_life: seconds for which an idle process is kept.
    """

    processes: int = 2
    time: float = 60.0
    idle_life: float = 5.0


class Offload(Service):
    """Calls functions in child processes, which it starts as needed."""

    log = make_logger()

    def __init__(self, reactor: Any, limits: OffloadLimits = OffloadLimits()) -> None:
        self._reactor = reactor
        self._limits = limits
        self._children: list[_Child] = []
        self._waiting: deque[_Call] = deque()
        self._is_stopping = False

    async def when(
        self, is_large: bool, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """L{run} if the work is large; else call the function here and now."""
        if is_large:
            return await self.run(function, *args, **kwargs)
        return function(*args, **kwargs)

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        """
        Call a function of a module in a child process. Arguments, result and exception are pickled.

        @return: fires with what it returns or raises; fails with L{ChatError} 400 if it takes too
            long, and 503 if its process dies: it is not called once more. Cancelling ends the
            process.
        """
        assert not kwargs  # noqa: S101 - for mypy
        call = _Call(encode((function, *args)), Deferred(self._cancelled))
        self._waiting.append(call)
        self._serve()
        return call.done

    def stopService(self) -> Deferred[Any]:
        """Calls under way are finished, since the journal may still need them."""
        super().stopService()
        self._is_stopping = True
        gone = DeferredList([child.gone for child in self._children])
        self._end_idle()
        return gone

    def _end_idle(self) -> None:
        for child in self._children:
            if child.is_idle:
                child.end()

    def _is_free(self) -> None:
        self._serve()
        if self._is_stopping:
            self._end_idle()

    def _serve(self) -> None:
        while self._waiting:
            idle = next((child for child in self._children if child.is_idle), None)
            if idle is None:
                if len(self._children) >= self._limits.processes:
                    return
                try:
                    idle = _Child(self._reactor, self._limits, self._is_free, self._ended)
                except OSError as error:
                    self.log.warn("no process can be started: {error}", error=error)
                    self._waiting.popleft().done.errback(Failure(_died()))
                    continue
                self._children.append(idle)
            idle.serve(self._waiting.popleft())

    def _cancelled(self, done: Deferred[Any]) -> None:
        for call in self._waiting:
            if call.done is done:
                self._waiting.remove(call)
                return
        for child in self._children:
            if child.call is not None and child.call.done is done:
                child.kill()

    def _ended(self, child: _Child) -> None:
        self._children.remove(child)
        self._serve()
        if not self._children:
            # What was large is gone for now.
            give_back()


@define(eq=False)
class _Call:
    """A call that waits or is under way."""

    frame: list[bytes]
    done: Deferred[Any]


class _Child(ProcessProtocol):
    """
    A child process.

    @ivar call: what it is doing; None for nothing.
    @ivar gone: fires when it has ended.
    """

    log = make_logger()
    transport: Any

    def __init__(
        self,
        reactor: Any,
        limits: OffloadLimits,
        is_free: Callable[[], None],
        ended: Callable[[_Child], None],
    ) -> None:
        self.call: _Call | None = None
        self._reactor = reactor
        self._limits = limits
        self._is_free = is_free
        self._has_ended = ended
        self._is_ending = False
        self._reader = FrameReader()
        self._timer: IDelayedCall | None = None
        self._stderr = b""
        self.gone: Deferred[None] = Deferred()
        command = [sys.executable, "-P", "-m", "gemproxy.offload.child"]
        reactor.spawnProcess(self, command[0], command, env=_environment())

    @property
    def is_idle(self) -> bool:
        return self.call is None and not self._is_ending

    def serve(self, call: _Call) -> None:
        self._stop_timer()
        self.call = call
        self._reader = FrameReader()
        self._timer = self._reactor.callLater(self._limits.time, self._is_late)
        frame, call.frame = call.frame, []
        self.transport.registerProducer(_Feed(self.transport, frame), False)

    def end(self) -> None:
        """End it when it does nothing."""
        self._stop_timer()
        self._is_ending = True
        self.transport.closeStdin()

    def kill(self) -> None:
        self._is_ending = True
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(signal.SIGKILL)

    def _is_late(self) -> None:
        self.kill()
        self._finish(Failure(_too_slow()))

    def outReceived(self, data: bytes) -> None:
        if self._is_ending or self.call is None:
            return
        self._reader.feed(data)
        if self._reader.missing:
            return
        pieces, self._reader = self._reader.pieces, FrameReader()
        has_returned, result = decode(pieces)
        del pieces
        if isinstance(result, MemoryError):
            result = _died()
        self._stop_timer()
        self._timer = self._reactor.callLater(self._limits.idle_life, self.end)
        self._finish(result if has_returned else Failure(result))
        self._is_free()

    def errReceived(self, data: bytes) -> None:
        self._stderr = (self._stderr + data)[-_STDERR_TAIL:]

    def processEnded(self, reason: Failure) -> None:
        if not self._is_ending:
            self.log.warn(
                "a process for large requests ended: {reason}; last stderr output: {tail}",
                reason=reason.getErrorMessage(),
                tail=self._stderr.decode("utf-8", "replace").strip(),
            )
        self._is_ending = True
        self._stop_timer()
        self._finish(Failure(_died()))
        self.gone.callback(None)
        self._has_ended(self)

    def _finish(self, outcome: Any) -> None:
        call, self.call = self.call, None
        if call is not None and not call.done.called:
            call.done.callback(outcome)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


@implementer(IPullProducer)
class _Feed:
    """Writes a frame as fast as a process takes it: all at once would be copied as a whole."""

    def __init__(self, transport: Any, frame: Iterable[bytes]) -> None:
        self._transport = transport
        self._pieces = _pieces(frame)

    def resumeProducing(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            self._transport.unregisterProducer()
        else:
            self._transport.write(piece)

    def stopProducing(self) -> None:
        self._pieces = iter(())


def _pieces(frame: Iterable[bytes]) -> Iterator[bytes]:
    for whole in frame:
        for start in range(0, len(whole), _PIECE):
            yield whole[start : start + _PIECE]


def _environment() -> dict[str, str]:
    """No more than it takes to find the modules: there are keys in the daemon's own."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# Made anew each time: an error that is raised keeps what its callers had in hand.


def _too_slow() -> ChatError:
    return ChatError(
        400, INVALID_REQUEST, "The request is too complex: it takes too long to read.", final=True
    )


def _died() -> ChatError:
    return ChatError(
        503,
        SERVER_ERROR,
        "The process that reads large requests ended: there may be too little memory for this one.",
        final=True,
    )
