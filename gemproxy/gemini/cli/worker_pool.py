"""The CLI workers: how many run, and which request gets which."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall

from gemproxy.chat.errors import overloaded
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.sessions import Sessions
from gemproxy.gemini.cli.worker import CallFailed, Worker, WorkerDied
from gemproxy.util.log import make_logger

_QUEUE_RETRY_AFTER = 5.0


@frozen
class PoolLimits:
    """
    @ivar workers: processes at most; one more while the only one is being replaced.
    @ivar sessions: requests at a time in one process.
    @ivar queue: requests that may wait.
    """

    workers: int
    sessions: int
    queue: int


class MemberState(Enum):
    """
    A worker starts, is ready, and retires; a process may end in each state.

    @cvar STARTING: it cannot serve yet.
    @cvar READY: it takes requests.
    @cvar RETIRING: it finishes its requests and is stopped then.
    """

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"


@define(eq=False)
class _Member:
    """
    A worker and what the pool keeps of it.

    @ivar leases: how many requests it is serving.
    """

    worker: Worker
    sessions: Sessions
    state: MemberState = MemberState.STARTING
    leases: int = 0
    idle_since: float = 0.0
    successor: _Member | None = None

    @property
    def ready(self) -> bool:
        return self.state is MemberState.READY

    @property
    def can_serve(self) -> bool:
        """Whether it is ready, and was not killed since."""
        return self.ready and self.worker.usable


@define(eq=False)
class Lease:
    """The right to use a worker for one request, until it is released."""

    worker: Worker
    sessions: Sessions
    _on_release: Callable[[], None] = field(repr=False)
    _held: bool = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._on_release()


class WorkerPool(Service):
    """
    Keeps one worker warm and as many more as the requests need.

    @ivar warm: whether a worker can serve a request now.
    @ivar was_warm: whether that has ever been so.
    """

    log = make_logger()

    def __init__(
        self,
        reactor: Any,
        limits: PoolLimits,
        cli_limits: CliLimits,
        make_worker: Callable[[WorkerPool], Worker],
    ) -> None:
        self._cli_limits = cli_limits
        self._reactor = reactor
        self._limits = limits
        self._make_worker = make_worker
        self._members: list[_Member] = []
        self._waiting: deque[Deferred[Lease]] = deque()
        self.was_warm = False
        self._failures = 0
        self._restart: Any = None
        self._stopping = True
        self._reviews = LoopingCall(self._review)
        self._reviews.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._stopping = False
        self._start_worker()
        self._reviews.start(self._cli_limits.review_interval, now=False)

    async def _stop(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        self._reviews.stop()
        while self._waiting:
            self._waiting.popleft().errback(overloaded("The proxy is stopping.", 5))
        await DeferredList([member.worker.stop() for member in self._members])

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._stopping = True
        return Deferred.fromCoroutine(self._stop())

    @property
    def warm(self) -> bool:
        return any(member.can_serve for member in self._members)

    def queued(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def sessions(self) -> int:
        """How many sessions the workers have open, in use or not."""
        return sum(member.sessions.count for member in self._members)

    def leases(self) -> int:
        """How many requests are being served."""
        return sum(member.leases for member in self._members)

    def count(self, state: MemberState) -> int:
        """How many workers are in a state."""
        return sum(1 for member in self._members if member.state is state)

    def acquire(self) -> Deferred[Lease]:
        """
        A lease, first come, first served. Cancelling gives up waiting.

        @raise ChatError: (the Deferred fails with) 503, too many are waiting.
        @raise WorkerDied: no worker can be started.
        """
        lease: Deferred[Lease] = Deferred(self._waiting_cancelled)
        if self._stopping:
            lease.errback(overloaded("The proxy is stopping.", 5))
            return lease
        self._waiting.append(lease)
        self._serve()
        if not lease.called and len(self._waiting) > self._limits.queue:
            self._waiting.remove(lease)
            lease.errback(
                overloaded("Too many requests are waiting for Gemini.", _QUEUE_RETRY_AFTER)
            )
        return lease

    def _waiting_cancelled(self, lease: Deferred[Lease]) -> None:
        if lease in self._waiting:
            self._waiting.remove(lease)

    def _serve(self) -> None:
        """Serve waiting requests, and start workers for those that find none."""
        while self._waiting and (member := self._least_busy()) is not None:
            self._waiting.popleft().callback(self._lease(member))
        starting = self.count(MemberState.STARTING)
        needed = -(-len(self._waiting) // self._limits.sessions)
        for _ in range(min(needed - starting, self._limits.workers - len(self._members))):
            self._start_worker()

    def _least_busy(self) -> _Member | None:
        free = [m for m in self._members if m.can_serve and m.leases < self._limits.sessions]
        return min(free, key=lambda member: member.leases, default=None)

    def _lease(self, member: _Member) -> Lease:
        member.leases += 1
        return Lease(member.worker, member.sessions, lambda: self._returned(member))

    def _returned(self, member: _Member) -> None:
        member.leases -= 1
        member.idle_since = self._reactor.seconds()
        if member.ready:
            self._failures = 0
            if self._worn(member.worker):
                self._succeed(member)
        elif member.state is MemberState.RETIRING and not member.leases:
            member.worker.stop()
        self._serve()

    def _worn(self, worker: Worker) -> bool:
        return (
            worker.opened >= self._cli_limits.sessions_per_worker
            or worker.memory() > self._cli_limits.memory_per_worker
        )

    def _succeed(self, member: _Member) -> None:
        """Retire a worker as soon as another one can take over."""
        if any(other.ready for other in self._members if other is not member):
            self._retire(member)
        elif member.successor is None or member.successor not in self._members:
            starting = (m for m in self._members if m.state is MemberState.STARTING)
            member.successor = next(starting, None) or self._start_worker()

    def _retire(self, member: _Member) -> None:
        self.log.debug("CLI worker {pid} retires", pid=member.worker.pid)
        member.state = MemberState.RETIRING
        if not member.leases:
            member.worker.stop()

    def _start_worker(self) -> _Member | None:
        if self._stopping or self._restart is not None:
            return None
        worker = self._make_worker(self)
        sessions = Sessions(self._reactor, worker)
        member = _Member(worker, sessions, idle_since=self._reactor.seconds())
        self._members.append(member)
        Deferred.fromCoroutine(self._warm_up(member)).addCallbacks(
            lambda _: self._started(member), lambda failure: self._not_started(member, failure)
        ).addErrback(lambda failure: self.log.failure("worker pool failed", failure))
        return member

    async def _warm_up(self, member: _Member) -> None:
        await member.worker.start()
        try:
            await member.sessions.open()
        except CallFailed as error:
            member.worker.give_up(f"it refused to open a session: {error}")
            raise WorkerDied(f"The Gemini CLI refused to open a session: {error}") from None

    def _started(self, member: _Member) -> None:
        if self._stopping or member not in self._members:
            return
        self.log.info("CLI worker {pid} is warm", pid=member.worker.pid)
        member.state = MemberState.READY
        self.was_warm = True
        for other in list(self._members):
            if other.successor is member:
                self._retire(other)
        self._serve()

    def _not_started(self, member: _Member, failure: Any) -> None:
        if member in self._members:
            if not self._stopping:
                self.log.error(
                    "no CLI worker can be started: {reason}", reason=failure.getErrorMessage()
                )
            # If there was no process, its end will not be reported.
            self.worker_ended(member.worker)

    def worker_ended(self, worker: Worker) -> None:
        """A process has ended: replace it if that is needed."""
        member = next((m for m in self._members if m.worker is worker), None)
        if member is None:
            return
        self._members.remove(member)
        was_asked_for = self._stopping or member.state is MemberState.RETIRING
        if was_asked_for:
            self._serve()
            return
        self._failures += 1
        if not self.warm:
            # Waiting requests have a retry policy; following it is better than hanging.
            while self._waiting:
                self._waiting.popleft().errback(WorkerDied("No Gemini CLI process can be started."))
        if self._restart is None:
            delay = min(
                self._cli_limits.first_restart_delay * 2.0 ** (self._failures - 2),
                self._cli_limits.last_restart_delay,
            )
            self._restart = self._reactor.callLater(
                delay if self._failures > 1 else 0.0, self._restart_now
            )

    def _restart_now(self) -> None:
        self._restart = None
        if all(member.state is MemberState.RETIRING for member in self._members):
            self._start_worker()
        self._serve()

    def _review(self) -> None:
        """Stop workers that have been idle for a while, but not the last one."""
        now = self._reactor.seconds()
        for member in list(self._members):
            others = any(other.ready for other in self._members if other is not member)
            idle = (
                member.ready
                and not member.leases
                and now - member.idle_since > self._cli_limits.idle_life
            )
            if idle and others:
                self._retire(member)
