"""The CLI workers: how many run, and which request gets which."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall

from gemproxy.chat.errors import overloaded
from gemproxy.gemini.cli.allowance import Allowance
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.sessions import Sessions
from gemproxy.gemini.cli.worker import CallFailed, Worker, WorkerDeath, WorkerDied
from gemproxy.util.log import make_logger

_QUEUE_RETRY_AFTER = 5.0
_NOT_STARTED = "no CLI worker can be started: {reason}"
# Seconds until the next start of a worker for which requests wait if there is none.
_PATIENCE = 5.0
# How far beyond its mark a worker may be used that nobody can take the place of.
_WORN_OUT = 1.25


@frozen
class PoolLimits:
    """
    @ivar workers: processes at most, in whatever state.
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

    @ivar created: when, in seconds.
    @ivar leases: how many requests it is serving.
    @ivar was_used: whether it has served any.
    @ivar ready_since: when it became ready, in seconds.
    @ivar memory: that of the process at the last look, in bytes.
    """

    worker: Worker
    sessions: Sessions
    created: float
    state: MemberState = MemberState.STARTING
    leases: int = 0
    was_used: bool = False
    idle_since: float = 0.0
    ready_since: float = 0.0
    memory: int = 0

    @property
    def ready(self) -> bool:
        return self.state is MemberState.READY

    @property
    def is_starting(self) -> bool:
        return self.state is MemberState.STARTING

    @property
    def is_ending(self) -> bool:
        return self.state is MemberState.RETIRING and not self.leases

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
    Keeps one worker warm and as many more as the requests need, which are started one at a time.

    A worker that is worn hands over to another, and ends when its requests do. Where the limit
    leaves no room for another, it is used until nobody needs it for a moment.

    @ivar warm: whether a worker can serve a request now.
    @ivar was_warm: whether that has ever been so.
    @ivar deaths: how many workers have ended without being asked to, by L{WorkerDeath}.
    """

    log = make_logger()

    def __init__(
        self,
        reactor: Any,
        limits: PoolLimits,
        cli_limits: CliLimits,
        make_worker: Callable[[WorkerPool], Worker],
    ) -> None:
        """@param make_worker: raises OSError if there is no place for its files."""
        self._cli_limits = cli_limits
        self._reactor = reactor
        self._limits = limits
        self._make_worker = make_worker
        self._members: list[_Member] = []
        self._waiting: deque[Deferred[Lease]] = deque()
        self._allowance = Allowance(limits.workers)
        self.was_warm = False
        self.deaths: Counter[str] = Counter({reason.value: 0 for reason in WorkerDeath})
        self._lacking_since: float | None = None
        self._failures = 0
        self._restart: IDelayedCall | None = None
        self._growth: IDelayedCall | None = None
        self._stopping = True
        self._reviews = LoopingCall(self._review)
        self._looks = LoopingCall(self._look)
        self._reviews.clock = self._looks.clock = reactor

    def startService(self) -> None:
        super().startService()
        self.log.info("up to {workers} CLI workers", workers=self._limits.workers)
        self._stopping = False
        self._lacking_since = self._reactor.seconds()
        self._start_worker()
        self._reviews.start(self._cli_limits.review_interval, now=False)
        self._looks.start(self._cli_limits.look_interval, now=False)

    async def _stop(self) -> None:
        for planned in (self._restart, self._growth):
            if planned is not None:
                planned.cancel()
        self._restart = self._growth = None
        self._reviews.stop()
        self._looks.stop()
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

    def lacking(self) -> float:
        """
        For how many seconds there has been no worker that stays: one that serves for a moment and
        dies does not count.
        """
        since = self._lacking_since
        return 0.0 if since is None else self._reactor.seconds() - since

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

    def report(self, time: float) -> list[dict[str, Any]]:
        """
        What is known of each worker, for JSON.

        @param time: now, in seconds since the epoch.
        """
        now = self._reactor.seconds()
        return [
            {
                "pid": member.worker.pid,
                "state": member.state.value,
                "since": round(time - (now - member.created)),
                "requests": member.leases,
                "sessions": member.sessions.count,
                "opened": member.worker.opened,
                "memory": member.worker.memory(),
            }
            for member in self._members
        ]

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
        if self._is_far_off():
            self._disappoint()
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
        """Serve waiting requests, and have a worker started for those that find none."""
        while self._waiting and (member := self._least_busy()) is not None:
            self._waiting.popleft().callback(self._lease(member))
        if not self._needs_another():
            return
        if not self.warm:
            self._start_worker()
        elif self._growth is None:
            self._growth = self._reactor.callLater(self._cli_limits.growth_delay, self._grow)

    def _needs_another(self) -> bool:
        """
        Whether one more worker is to be started. They are started one after the other: side by side
        they hold each other up, and the first one that is ready may be enough for all who wait.
        """
        return bool(self._waiting) and not self.count(MemberState.STARTING)

    def _grow(self) -> None:
        self._growth = None
        if self._needs_another():
            self._start_worker()

    def _room(self) -> int:
        """How many more processes may run now."""
        return self._allowance.at(self._reactor.seconds()) - len(self._members)

    def _least_busy(self) -> _Member | None:
        free = [m for m in self._members if m.can_serve and m.leases < self._limits.sessions]
        return min(free, key=lambda member: member.leases, default=None)

    def _lease(self, member: _Member) -> Lease:
        member.leases += 1
        member.was_used = True
        return Lease(member.worker, member.sessions, lambda: self._returned(member))

    def _returned(self, member: _Member) -> None:
        member.leases -= 1
        member.idle_since = self._reactor.seconds()
        if member.can_serve:
            self._failures = 0
            self._renew(member)
        elif member.is_ending:
            member.worker.stop()
        self._serve()

    def _is_worn(self, member: _Member, share: float = 1.0) -> bool:
        limits = self._cli_limits
        return (
            member.worker.opened >= share * limits.sessions_per_worker
            or member.memory > share * limits.memory_per_worker
        )

    def _renew(self, member: _Member) -> None:
        """Have a worker succeeded if it is worn; by which, depends on the room for another."""
        # One that is worn from the beginning is as good as it gets.
        if not member.was_used or not self._is_worn(member):
            return
        others = [other for other in self._members if other is not member]
        if any(other.can_serve for other in others):
            self._retire(member)
        elif any(other.is_starting or other.is_ending for other in others):
            return  # This is looked at again when that is over.
        elif self._room() > 0:
            self._start_worker()
        elif not member.leases or self._is_worn(member, _WORN_OUT):
            self._retire(member)

    def _renew_all(self) -> None:
        for member in list(self._members):
            if member.can_serve:
                self._renew(member)

    def _retire(self, member: _Member) -> None:
        self.log.debug("CLI worker {pid} retires", pid=member.worker.pid)
        member.state = MemberState.RETIRING
        if not member.leases:
            member.worker.stop()

    def _keep_one(self) -> None:
        """Start a worker if there is none but those that retire."""
        if all(member.state is MemberState.RETIRING for member in self._members):
            self._start_worker()

    def _start_worker(self) -> None:
        if self._stopping or self._restart is not None or self._room() <= 0:
            return
        try:
            worker = self._make_worker(self)
        except OSError as error:
            self.log.error(_NOT_STARTED, reason=error)
            self._failed(at_least=2)
            self._disappoint()
            return
        sessions = Sessions(self._reactor, worker)
        now = self._reactor.seconds()
        member = _Member(worker, sessions, now, idle_since=now)
        self._members.append(member)
        Deferred.fromCoroutine(self._warm_up(member)).addCallbacks(
            lambda _: self._started(member), lambda failure: self._not_started(member, failure)
        ).addErrback(lambda failure: self.log.failure("worker pool failed", failure))

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
        member.ready_since = self._reactor.seconds()
        self.was_warm = True
        self._renew_all()
        self._serve()

    def _not_started(self, member: _Member, failure: Any) -> None:
        if member not in self._members:
            return
        if not self._stopping:
            self.log.error(_NOT_STARTED, reason=failure.getErrorMessage())
        if member.worker.is_running:
            member.worker.give_up("it cannot be used")
        else:
            # There was no process, so its end will not be reported.
            self.worker_ended(member.worker)

    def worker_ended(self, worker: Worker) -> None:
        """A process has ended: replace it if that is needed."""
        member = next((m for m in self._members if m.worker is worker), None)
        if member is None:
            return
        self._members.remove(member)
        if self._stopping:
            return
        if (death := worker.death()) is not None:
            self.deaths[death.value] += 1
        if self._lacking_since is None and not self.warm:
            self._lacking_since = self._reactor.seconds()
        if worker.died_of_memory:
            self._allowance.died_of_memory(self._reactor.seconds(), len(self._members))
        if member.state is not MemberState.RETIRING:
            # At once, it would die of the same again.
            self._failed(self._allowance.deaths + 1 if worker.died_of_memory else 1)
            if member.is_starting or self._is_far_off():
                self._disappoint()
        self._keep_one()
        self._renew_all()
        self._serve()

    def _failed(self, at_least: int) -> None:
        """
        Count a failure. The next worker is started at once after the first, and ever later after
        more in a row.

        @param at_least: how many in a row it counts as.
        """
        self._failures = max(self._failures + 1, at_least)
        if self._restart is None and self._failures > 1:
            delay = min(
                self._cli_limits.first_restart_delay * 2.0 ** (self._failures - 2),
                self._cli_limits.last_restart_delay,
            )
            self._restart = self._reactor.callLater(delay, self._restart_now)

    def _is_far_off(self) -> bool:
        """Whether the next worker is started only after a long while."""
        restart = self._restart
        return restart is not None and restart.getTime() - self._reactor.seconds() > _PATIENCE

    def _disappoint(self) -> None:
        """Fail the requests that wait, unless a worker can serve them or is being started."""
        if any(member.can_serve or member.is_starting for member in self._members):
            return
        # They have a retry policy; following it is better than hanging.
        while self._waiting:
            self._waiting.popleft().errback(WorkerDied("No Gemini CLI process can be started."))

    def _restart_now(self) -> None:
        self._restart = None
        self._keep_one()
        self._serve()

    def _look(self) -> None:
        for member in list(self._members):
            member.worker.look()
            member.memory = member.worker.memory()
            if member.can_serve and not member.worker.home.is_whole:
                self.log.warn("the home of CLI worker {pid} was removed", pid=member.worker.pid)
                self._retire(member)
        self._renew_all()
        now = self._reactor.seconds()
        settling = self._cli_limits.settling
        if any(
            member.can_serve and now - member.ready_since >= settling for member in self._members
        ):
            self._lacking_since = None

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
