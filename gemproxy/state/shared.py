"""
What several daemons share, in a server that is asked in passing: it may be away, slow, full or
empty at any time, and no request fails or waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha1
from typing import TYPE_CHECKING, Any, cast

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gemproxy.util.log import make_logger

if TYPE_CHECKING:
    from gemproxy.state.server import Server, ServerProtocol

_PREFIX = "gemproxy:"

PROBES = (("SET", f"{_PREFIX}probe", b"", "PX", 1000), ("EVAL", "return 1", 0))
"""Commands that show whether the server can be written to, and runs scripts for this user."""

# Seconds: a timer that comes later than that was kept waiting by this process itself.
_LAG = 0.005
# Seconds for what was sent last to be read when the daemon stops.
_STOP_PATIENCE = 1.0
# A server that can only be read may have been the right one: another is, by the same address.
_DEMOTED = ("READONLY", "MASTERDOWN")
_LOST = "it has closed the connection"
# Late answers with none in time between them, after which a server is slow, and not just busy.
_STRIKES = 3


@frozen
class StatePatience:
    """
    Times in seconds.

    @ivar answer: that a request waits for the server at most.
    @ivar interval: between two looks whether a server that is away is back.
    @ivar silence: without an answer, after which a connection is of no use any more.
    @ivar delay: before another attempt to connect; it doubles, up to C{longest_delay}.
    """

    answer: float = 0.020
    interval: float = 1.0
    silence: float = 5.0
    delay: float = 0.5
    longest_delay: float = 5.0


class StateAway(Exception):
    """The server cannot be asked now, or has not answered in time; the message says why."""

    @classmethod
    def ignored(cls, failure: Failure) -> None:
        """An errback for what may as well not be told to others."""
        failure.trap(cls)


@frozen(eq=False)
class Script:
    """
    A script in Lua, which the server runs as one step, and keeps.

    @ivar name: its digest, by which the server knows it.
    """

    text: str
    name: str = field(init=False)

    @name.default
    def _name(self) -> str:
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@define(eq=False)
class _Call:
    """
    A command that was sent.

    @ivar done: fires with its answer. It may have been cancelled, or have failed meanwhile.
    @ivar late: called with an answer that nobody waits for any more.
    @ivar otherwise: the command to send if the server does not know the script.
    """

    since: float
    late: Callable[[Any], object] | None = None
    otherwise: Sequence[object] | None = None
    done: Deferred[Any] = field(factory=Deferred)
    has_grace: bool = False


class SharedState(Service):
    """
    Asks the server. Whatever is asked fails with L{StateAway} alone: at once if the server is known
    to be away, and after a moment at most (L{StatePatience}). What has failed may have had its
    effect.

    One that is late is away until the answer comes. If it is late again and again, or refuses
    something, it is away until it has answered a probe in time.

    @ivar on_return: what is called when the server is there, or there again; it may be empty.
    """

    log = make_logger()

    def __init__(
        self, reactor: Any, server: Server, patience: StatePatience = StatePatience()
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._patience = patience
        self._connection: ServerProtocol | None = None
        self._connecting: Deferred[None] | None = None
        # Why it is away; None if it is not.
        self._away: str | None = "it is not connected yet"
        self._is_told = self._was_there = False
        self._strikes = 0
        # The one whose answer, though it is late, shows that it is there.
        self._late: _Call | None = None
        # What was sent and is not late yet, the oldest first.
        self._waiting: deque[_Call] = deque()
        self._timer: IDelayedCall | None = None
        self._probing: IDelayedCall | None = None
        self._silence: IDelayedCall | None = None
        # The scripts that were sent by this connection.
        self._sent: set[Script] = set()
        self.on_return: list[Callable[[], object]] = []

    @property
    def is_away(self) -> bool:
        return self._away is not None

    @property
    def problem(self) -> str | None:
        """Why it is away, as a sentence about "it" without a full stop; None if it is not."""
        return self._away

    def run(
        self,
        script: Script,
        keys: Sequence[str],
        *args: object,
        late: Callable[[Any], object] | None = None,
    ) -> Deferred[Any]:
        """
        Have a script run.

        @param keys: of the state; those of others are out of reach.
        @param args: bytes, texts and integers.
        @param late: called with an answer that comes when nobody waits for it any more.
        """
        words = (len(keys), *(_PREFIX + key for key in keys), *args)
        whole = ("EVAL", script.text, *words)
        if script in self._sent:
            return self._send(("EVALSHA", script.name, *words), late, whole)
        done = self._send(whole, late)
        if not self.is_away:
            self._sent.add(script)
        return done

    def get(self, key: str) -> Deferred[bytes | None]:
        return self._send(("GET", _PREFIX + key))

    def put(self, key: str, value: bytes, seconds: float, if_new: bool = False) -> Deferred[bool]:
        """
        Keep something for some time.

        @param if_new: whether what is there already stays.
        @return: whether it is kept.
        """
        words = ("SET", _PREFIX + key, value, "PX", max(1, round(seconds * 1000)))
        return self._send((*words, "NX") if if_new else words).addCallback(
            lambda answer: answer is not None
        )

    def delete(self, *keys: str) -> Deferred[int]:
        """Returns how many of them there were."""
        return self._send(("DEL", *(_PREFIX + key for key in keys)))

    # The connection

    def startService(self) -> None:
        super().startService()
        self._connecting = Deferred.fromCoroutine(self._stay_connected())
        self._connecting.addErrback(self._given_up)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._leave("the daemon stops", tells=False)
        connection = self._connection
        if self._connecting is not None:
            self._connecting.cancel()
        closed: Deferred[None] = Deferred()
        if connection is None:
            closed.callback(None)
        else:
            connection.when_lost = partial(closed.callback, None)
            closed.addTimeout(_STOP_PATIENCE, self._reactor, lambda *_: connection.end())
            connection.transport.loseConnection()
        return closed

    def _given_up(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("the shared state is not asked any more", failure)

    async def _stay_connected(self) -> None:
        delay = self._patience.delay
        while True:
            try:
                connection = await self._server.connect()
            except CancelledError:
                raise
            except Exception as error:
                self._leave(self._server.describe(error))
                await deferLater(self._reactor, delay)
                delay = min(2 * delay, self._patience.longest_delay)
            else:
                delay = self._patience.delay
                await self._use(connection)
                self._leave(_LOST)
                await deferLater(self._reactor, delay)

    async def _use(self, connection: ServerProtocol) -> None:
        """Ask by a connection until it is lost."""
        lost: Deferred[None] = Deferred()
        connection.when_lost = partial(lost.callback, None)
        self._connection = connection
        self._sent.clear()
        self._probe(connection)
        try:
            await lost
        finally:
            self._connection = None
            self._cancel_timers()

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._probing, self._silence):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._probing = self._silence = None

    # Whether it is away

    def _leave(self, reason: str, tells: bool = True) -> None:
        """
        It is away, and what waits for it has waited for long enough.

        @param tells: whether it is worth a warning.
        """
        self._away, self._late = reason, None
        if tells:
            self._tell()
        connection = self._connection
        if connection is not None and self.running:
            if self._silence is None:
                self._silence = self._reactor.callLater(self._patience.silence, connection.end)
            if self._probing is None:
                self._probing = self._reactor.callLater(
                    self._patience.interval, self._probe, connection
                )
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            if not call.done.called:
                call.done.errback(StateAway(reason))

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            self.log.warn(
                "the shared state is away ({url}: {reason}): this daemon goes by what it knows",
                url=str(self._server.url),
                reason=self._away,
            )

    def _probe(self, connection: ServerProtocol) -> None:
        """See whether it can be used, in time."""
        self._probing = None
        if connection is not self._connection:
            return
        if self._was_there:
            self._tell()
        calls = [_Call(self._reactor.seconds()) for _ in PROBES]
        # If one fails, so do those after it.
        calls[-1].done.addCallback(self._return)
        for call, words in zip(calls, PROBES, strict=True):
            call.done.addErrback(StateAway.ignored)
            self._ask(call, words)

    def _return(self, _: object = None) -> None:
        if self._is_told or not self._was_there:
            self.log.info(
                "the shared state is there{again}: {url}",
                again=" again" if self._is_told else "",
                url=str(self._server.url),
            )
        self._away, self._is_told, self._was_there = None, False, True
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
        for call in self.on_return:
            call()

    def _look(self) -> None:
        """See whether the oldest of what was sent is late."""
        self._timer = None
        if not self._waiting:
            return
        oldest = self._waiting[0]
        over = self._reactor.seconds() - oldest.since - self._patience.answer
        if over < 0:
            self._timer = self._reactor.callLater(-over, self._look)
        elif over > _LAG and not oldest.has_grace:
            # This process was busy: perhaps it has not even been sent.
            oldest.has_grace = True
            self._timer = self._reactor.callLater(self._patience.answer, self._look)
        else:
            # The reactor makes its calls first, and then reads what may have come meanwhile.
            self._timer = self._reactor.callLater(0, self._look_again, oldest)

    def _look_again(self, oldest: _Call) -> None:
        self._timer = None
        if self._waiting and self._waiting[0] is oldest:
            self._strikes += 1
            newest, is_slow = self._waiting[-1], self._strikes >= _STRIKES
            self._leave(f"it did not answer within {self._patience.answer * 1000:g} ms", is_slow)
            self._late = None if is_slow else newest
        else:
            self._look()

    # What is asked

    def _send(
        self,
        words: Sequence[object],
        late: Callable[[Any], object] | None = None,
        otherwise: Sequence[object] | None = None,
    ) -> Deferred[Any]:
        if self._away is not None:
            return fail(StateAway(self._away))
        call = _Call(self._reactor.seconds(), late, otherwise)
        self._ask(call, words)
        return call.done

    def _ask(self, call: _Call, words: Sequence[object]) -> None:
        assert self._connection is not None  # noqa: S101 - for mypy
        try:
            asking = self._connection.ask(*words)
        except Exception as error:
            call.done.errback(StateAway(self._server.describe(error)))
            return
        self._waiting.append(call)
        if self._timer is None:
            self._timer = self._reactor.callLater(self._patience.answer, self._look)
        asking.addCallbacks(partial(self._answered, call), partial(self._failed, call))

    def _answered(self, call: _Call, answer: Any) -> None:
        self._hear(call)
        if not call.done.called:
            call.done.callback(answer)
        elif call.late is not None:
            call.late(answer)
        if call is self._late:
            self._late = None
            self._return()

    def _failed(self, call: _Call, failure: Failure) -> None:
        error, connection = cast("Exception", failure.value), self._connection
        if not self._server.is_refusal(error):
            self._leave(_LOST)
            return
        self._hear(call)
        word = str(error).partition(" ")[0]
        if word == "NOSCRIPT" and call.otherwise is not None:
            words, call.otherwise = call.otherwise, None
            if not call.done.called:
                self._ask(call, words)
            return
        reason = self._server.describe(error)
        if not call.done.called:
            call.done.errback(StateAway(reason))
        self._leave(reason)
        if word in _DEMOTED and connection is not None:
            connection.end()

    def _hear(self, call: _Call) -> None:
        """It gives a sign of life: the answer to a call."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        # Answers come in the order of what was asked. What was given up waits no more.
        if self._waiting and self._waiting[0] is call:
            self._waiting.popleft()
            self._strikes = 0
