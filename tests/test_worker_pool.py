"""What the pool decides: how many workers run, which of them serve, and what their ends mean."""

from __future__ import annotations

from typing import Any, cast

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gemproxy.chat.errors import ChatError
from gemproxy.gemini.cli.allowance import Allowance
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.silence import Judgement, Silence
from gemproxy.gemini.cli.worker import Worker, WorkerDeath, WorkerDied
from gemproxy.gemini.cli.worker_pool import Lease, MemberState, PoolLimits, WorkerPool


@define
class Home:
    is_whole: bool = True


class Process:
    """A worker as its pool sees it, which does what the test says."""

    def __init__(self, pool: WorkerPool, pid: int) -> None:
        self.pid = pid
        self.opened = 0
        self.usable = False
        self.is_running = True
        self.died_of_memory = False
        self.size = 0
        self.home = Home()
        self.limits = CliLimits()
        self.looks = 0
        self.is_stopping = False
        self._pool = pool
        self._starting: Deferred[None] = Deferred()

    def start(self) -> Deferred[None]:
        return self._starting

    def memory(self) -> int:
        return self.size

    def look(self) -> None:
        self.looks += 1

    def stop(self) -> Deferred[None]:
        self.usable = False
        self.is_stopping = True
        return succeed(None)

    def give_up(self, reason: str) -> None:
        self.usable = False

    def death(self) -> WorkerDeath | None:
        if self.died_of_memory:
            return WorkerDeath.MEMORY
        return None if self.is_stopping else WorkerDeath.UNEXPECTED

    def call(self, method: str, params: Any) -> Deferred[Any]:
        return Deferred()

    # What the test says:

    def get_ready(self) -> None:
        self.usable = True
        self._starting.callback(None)

    def end(self, died_of_memory: bool = False) -> None:
        self.usable = self.is_running = False
        self.died_of_memory = died_of_memory
        if not self._starting.called:
            self._starting.errback(WorkerDied("It ended."))
        self._pool.worker_ended(cast("Worker", self))


class Ready:
    """The sessions of a worker, one of which is opened at once."""

    def __init__(self, *_: Any) -> None:
        self.count = 1

    async def open(self) -> None: ...


class Pool:
    """@ivar processes: all that were started."""

    def __init__(self, workers: int, sessions: int = 2, queue: int = 100) -> None:
        self.clock = Clock()
        self.processes: list[Process] = []
        self.limits = CliLimits(sessions_per_worker=10, memory_per_worker=100)
        limits = PoolLimits(workers, sessions, queue)
        self.pool = WorkerPool(self.clock, limits, self.limits, self._make)
        self.failing: OSError | None = None
        self.pool.startService()

    def _make(self, pool: WorkerPool) -> Worker:
        if self.failing is not None:
            raise self.failing
        self.processes.append(Process(pool, len(self.processes) + 1))
        return cast("Worker", self.processes[-1])

    @property
    def running(self) -> list[Process]:
        return [process for process in self.processes if process.is_running]

    def ask(self) -> Request:
        return Request(self.pool.acquire())

    def grow(self) -> Process:
        """The worker that is started for those who have waited for a while."""
        self.clock.advance(self.limits.growth_delay)
        return self.processes[-1]

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.5] * int(seconds * 2))


class Request:
    """A request for a lease, and what became of it."""

    def __init__(self, asked: Deferred[Lease]) -> None:
        self.lease: Lease | None = None
        self.error: Exception | None = None
        asked.addCallbacks(self._got, self._failed)

    def _got(self, lease: Lease) -> None:
        self.lease = lease

    def _failed(self, failure: Failure) -> None:
        self.error = cast("Exception", failure.value)

    @property
    def waits(self) -> bool:
        return self.lease is None and self.error is None

    @property
    def pid(self) -> int | None:
        return None if self.lease is None else self.lease.worker.pid

    def end(self) -> None:
        assert self.lease is not None
        self.lease.release()


@pytest.fixture(autouse=True)
def _no_real_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemproxy.gemini.cli.worker_pool.Sessions", Ready)


def warm(workers: int, **limits: int) -> tuple[Pool, Process]:
    pool = Pool(workers, **limits)
    pool.processes[0].get_ready()
    return pool, pool.processes[0]


def test_those_that_retire_count():
    pool, first = warm(2)
    stays = pool.ask()
    pool.ask().end()
    first.opened = 10
    pool.ask().end()
    second = pool.processes[1]
    assert pool.pool.count(MemberState.RETIRING) == 0
    second.get_ready()
    assert pool.pool.count(MemberState.RETIRING) == 1
    requests = [pool.ask() for _ in range(10)]
    assert len(pool.running) == 2
    assert [request.pid for request in requests[:3]] == [2, 2, None]
    # Its last request ends, it ends, and there is room for another.
    stays.end()
    assert first.is_stopping
    assert len(pool.processes) == 2
    first.end()
    pool.grow().get_ready()
    assert len(pool.running) == 2
    assert requests[2].pid == 3


def test_one_that_is_worn_and_alone_is_used_until_nobody_needs_it():
    pool, first = warm(1)
    requests = [pool.ask() for _ in range(2)]
    first.opened = 10
    requests[0].end()
    assert pool.ask().pid == 1
    assert len(pool.running) == 1


def test_one_that_is_worn_and_alone_ends_as_soon_as_nobody_needs_it():
    pool, first = warm(1)
    request = pool.ask()
    first.opened = 10
    request.end()
    assert first.is_stopping
    waiting = pool.ask()
    assert len(pool.processes) == 1
    first.end()
    pool.processes[1].get_ready()
    assert waiting.pid == 2


def test_one_that_is_worn_out_takes_no_more_requests():
    pool, first = warm(1)
    requests = [pool.ask() for _ in range(2)]
    first.size = 126
    pool.pass_time(1)
    requests[0].end()
    waiting = pool.ask()
    assert waiting.waits
    assert not first.is_stopping
    requests[1].end()
    assert first.is_stopping
    first.end()
    pool.processes[1].get_ready()
    assert waiting.pid == 2


def test_one_that_is_worn_from_the_beginning_is_not_replaced_over_and_over():
    pool, first = warm(1)
    pool.ask().end()
    first.size = 101
    pool.pass_time(1)
    assert first.is_stopping
    first.end()
    second = pool.processes[1]
    second.size = 101
    second.get_ready()
    pool.pass_time(100)
    assert not second.is_stopping


def test_of_several_worn_ones_one_is_always_there():
    pool, first = warm(2)
    requests = [pool.ask() for _ in range(3)]
    second = pool.grow()
    second.get_ready()
    first.opened = second.opened = 10
    for request in requests:
        request.end()
    assert [process.is_stopping for process in (first, second)].count(True) == 1
    assert pool.pool.warm


def test_requests_that_a_living_worker_can_serve_wait_for_it():
    pool, first = warm(2, sessions=1)
    requests = [pool.ask() for _ in range(3)]
    second = pool.grow()
    first.end()
    assert requests[1].waits
    assert requests[2].waits
    second.get_ready()
    assert requests[1].pid == 2
    requests[1].end()
    assert requests[2].pid == 2


def test_requests_wait_for_the_successor_of_one_that_died():
    pool, first = warm(1, sessions=1)
    pool.ask()
    waiting = pool.ask()
    first.end()
    assert waiting.waits
    pool.processes[1].get_ready()
    assert waiting.pid == 2


def test_requests_fail_if_no_worker_can_be_started():
    pool = Pool(1)
    waiting = pool.ask()
    pool.processes[0].end()
    assert isinstance(waiting.error, WorkerDied)
    assert len(pool.processes) == 2


def test_requests_do_not_wait_for_a_start_that_is_far_off():
    pool, _ = warm(1, sessions=1)
    pool.ask()
    for _ in range(5):
        waiting = pool.ask()
        pool.processes[-1].end()
        assert waiting.waits
        pool.pass_time(4)
        pool.processes[-1].get_ready()
        assert waiting.pid == pool.processes[-1].pid
    waiting = pool.ask()
    pool.processes[-1].end()
    assert isinstance(waiting.error, WorkerDied)
    assert isinstance(pool.ask().error, WorkerDied)
    pool.pass_time(8)
    assert pool.ask().waits


def test_a_failure_to_make_a_home_is_one_to_start():
    pool = Pool(1)
    waiting = pool.ask()
    pool.failing = OSError("No space left on device")
    pool.processes[0].end()
    assert isinstance(waiting.error, WorkerDied)
    pool.failing = None
    pool.pass_time(1)
    assert len(pool.processes) == 2


def test_a_full_queue_refuses():
    pool, _ = warm(1, sessions=1, queue=1)
    pool.ask()
    waiting, refused = pool.ask(), pool.ask()
    assert waiting.waits
    assert isinstance(refused.error, ChatError)


def test_after_a_death_of_memory_there_are_fewer_and_not_at_once():
    pool, first = warm(3, sessions=1)
    requests = [pool.ask() for _ in range(9)]
    second = pool.grow()
    second.get_ready()
    third = pool.grow()
    third.get_ready()
    assert len(pool.running) == 3
    third.end(died_of_memory=True)
    pool.pass_time(100)
    assert len(pool.running) == 2
    second.end(died_of_memory=True)
    first.end(died_of_memory=True)
    assert len(pool.running) == 0
    assert requests[3].waits
    pool.pass_time(0.5)
    assert len(pool.running) == 0
    pool.pass_time(10)
    assert len(pool.running) == 1


def test_a_death_of_another_kind_costs_no_place():
    pool, _ = warm(2, sessions=1)
    for _ in range(9):
        pool.ask()
    second = pool.grow()
    second.get_ready()
    second.end()
    pool.grow()
    assert len(pool.running) == 2


def test_workers_are_started_one_by_one_while_requests_wait():
    pool = Pool(4, sessions=2)
    requests = [pool.ask() for _ in range(9)]
    pool.pass_time(5)
    # Side by side they would all be ready later.
    assert len(pool.processes) == 1
    pool.processes[0].get_ready()
    assert [request.pid for request in requests[:3]] == [1, 1, None]
    assert len(pool.processes) == 1
    second = pool.grow()
    assert (second.pid, len(pool.processes)) == (2, 2)
    pool.pass_time(5)
    assert len(pool.processes) == 2
    second.get_ready()
    # Those that are ready have made place for all before it is time for a third.
    for request in requests:
        request.end()
    pool.pass_time(5)
    assert {request.pid for request in requests} == {1, 2}
    assert len(pool.processes) == 2


def test_no_worker_is_started_for_those_who_have_gone():
    pool, _ = warm(4, sessions=1)
    pool.ask()
    waiting = pool.pool.acquire()
    waiting.addErrback(lambda _: None)
    waiting.cancel()
    pool.grow()
    assert len(pool.processes) == 1
    pool.ask()
    pool.pool.stopService()
    assert not pool.clock.getDelayedCalls()


def test_deaths_under_load_make_the_next_start_later():
    pool, _ = warm(1, sessions=1)
    for wait in (0.0, 0.5, 1.0, 2.0):
        lease = pool.ask()
        died = pool.processes[-1]
        died.end()
        # The request is told, and gives back its place.
        lease.end()
        if wait:
            pool.clock.advance(wait - 0.01)
            assert pool.processes[-1] is died
            pool.clock.advance(0.01)
        assert pool.processes[-1] is not died
        pool.processes[-1].get_ready()


def test_it_looks_at_all_once_a_second():
    pool, first = warm(2)
    for _ in range(3):
        pool.ask()
    pool.clock.pump([1.0] * 5)
    assert [process.looks for process in pool.processes] == [5, 5]
    assert first.usable


def test_one_whose_home_was_removed_ends_with_its_requests():
    pool, first = warm(1)
    request = pool.ask()
    first.home.is_whole = False
    pool.pass_time(1)
    waiting = pool.ask()
    assert waiting.waits
    assert not first.is_stopping
    request.end()
    assert first.is_stopping
    first.end()
    pool.processes[1].get_ready()
    assert waiting.pid == 2


def test_a_worker_that_does_not_stay_is_as_none():
    pool, first = warm(1)
    assert pool.pool.was_warm
    pool.pass_time(20)
    assert pool.pool.lacking() == 0
    first.end()
    for _ in range(30):
        pool.processes[-1].get_ready()
        pool.pass_time(2)
        assert pool.pool.warm
        pool.processes[-1].end()
        pool.pass_time(3)
        while not pool.running:
            pool.pass_time(1)
    assert pool.pool.lacking() > 120
    pool.processes[-1].get_ready()
    pool.pass_time(12)
    assert pool.pool.lacking() == 0


def test_there_is_nothing_lacking_while_one_hands_over_to_the_next():
    pool, first = warm(1)
    pool.pass_time(20)
    first.opened = 10
    pool.ask().end()
    pool.pass_time(50)
    first.end()
    pool.processes[1].get_ready()
    pool.pass_time(8)
    assert pool.pool.lacking() == 8


@given(st.integers(1, 8), st.lists(st.tuples(st.floats(0, 500), st.integers(0, 8))))
def test_the_allowance_is_never_none_and_never_too_much(most: int, deaths: Any):
    allowance = Allowance(most)
    now = 0.0
    for wait, left in deaths:
        now += wait
        before = allowance.at(now)
        allowance.died_of_memory(now, left)
        assert 1 <= allowance.at(now) <= max(1, min(before, left))
        assert allowance.at(now + 1e6) == most


def test_the_allowance_comes_back_one_by_one():
    allowance = Allowance(4)
    allowance.died_of_memory(1000.0, 1)
    seconds = (0, 119, 120, 240, 360, 10_000)
    assert [allowance.at(1000.0 + s) for s in seconds] == [1, 1, 2, 3, 4, 4]


def test_deaths_in_a_row_are_counted():
    allowance = Allowance(4)
    for when, deaths in ((1.0, 1), (50.0, 2), (160.0, 3), (500.0, 1)):
        allowance.died_of_memory(when, 1)
        assert allowance.deaths == deaths


def judgements(*looks: tuple[bool, bool]) -> list[Judgement]:
    silence = Silence()
    return [silence.look(is_awaited, gave_sign) for is_awaited, gave_sign in looks]


ALIVE, ASK, DEAD = Judgement


def test_silence_is_asked_about_and_then_judged():
    assert judgements(*[(True, False)] * 6) == [ALIVE, ASK, ALIVE, ALIVE, ALIVE, DEAD]


@pytest.mark.parametrize("look", [(False, False), (True, True), (False, True)])
def test_a_sign_of_life_or_nothing_to_do_begins_anew(look: tuple[bool, bool]):
    silent = [(True, False)] * 5
    expected = [ALIVE, ASK, ALIVE, ALIVE, ALIVE]
    assert judgements(*silent, look, *silent) == [*expected, ALIVE, *expected]
