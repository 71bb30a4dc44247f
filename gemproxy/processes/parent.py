"""Starts processes that serve side by side, watches them, replaces them and ends them."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall

from gemproxy.http.listening import HeldPort
from gemproxy.processes.balance import FILE, Counts
from gemproxy.processes.place import Place
from gemproxy.processes.process import Process, Program, State
from gemproxy.util.log import make_logger
from gemproxy.util.rundir import RunDirectory

# Seconds that a process has to start: until then it gives no sign of life.
_START_PATIENCE = 120.0
# How often it is looked in the time in which a process must give one.
_LOOKS = 4
# A process that has lived for so many seconds is replaced at once; one that has not waits as many
# seconds as this makes of how often that has happened in a row.
_LONG = 60.0
_MOST_DELAY = 60.0


def restart_delay(short_lives: int) -> float:
    """
    Seconds until a process is started again.

    @param short_lives: how many have ended soon after their start, one after the other.
    """
    # No power of it that would be too large for a float.
    return min(2.0 ** min(short_lives - 1, 10), _MOST_DELAY) if short_lives else 0.0


@define(eq=False)
class _Seat:
    """
    What processes of one number take, one after the other.

    @ivar process: the one that serves, or is about to; None while there is none.
    @ivar is_left: whether somebody else sees to it that there is another process.
    """

    number: int
    process: Process | None = None
    started: float = 0.0
    short_lives: int = 0
    restart: IDelayedCall | None = None
    is_left: bool = False

    @property
    def serves(self) -> bool:
        return self.process is not None and self.process.state is State.READY

    def stop_waiting(self) -> None:
        if self.restart is not None and self.restart.active():
            self.restart.cancel()
        self.restart = None


class Processes(Service):
    """
    The parent of processes that serve side by side.

    It says nothing to clients: it holds the ports at which the processes do.
    """

    log = make_logger()
    # Made when the folder is there.
    _counts: Counts

    def __init__(
        self,
        reactor: Any,
        count: int,
        program: Program,
        ports: Mapping[str, HeldPort],
        folder: RunDirectory,
        watchdog: float,
        fail: Callable[[str], None],
    ) -> None:
        """
        @param ports: by the names that the processes have for them.
        @param watchdog: seconds after which a process that gives no sign of life is replaced.
        @param fail: called with the reason if no process can be started.
        """
        self._reactor = reactor
        self._count = count
        self._program = program
        self._ports = ports
        self._folder = folder
        self._watchdog = watchdog
        self._fail = fail
        self._secret = secrets.token_hex(32)
        self._seats = [_Seat(number) for number in range(1, count + 1)]
        # All that have not ended, also those that were replaced.
        self._alive: list[Process] = []
        self._started = 0
        self._has_served = False
        self._fails = False
        self._is_rolling = self._is_to_roll = False
        self._ready: Deferred[None] = Deferred()
        self._looks = LoopingCall(self._look)
        self._looks.clock = reactor

    def when_ready(self) -> Deferred[None]:
        """Fires once, when all serve for the first time."""
        return self._ready

    def startService(self) -> None:
        """@raise OSError: there is no folder for temporary files."""
        super().startService()
        self._counts = Counts.made(self._folder.acquire() / FILE, self._count)
        # Not before: the reactor must hear of their ends.
        self._reactor.callWhenRunning(self._start_all)

    def _start_all(self) -> None:
        if not self.running:
            return
        self._looks.start(self._watchdog / _LOOKS, now=False)
        for seat in self._seats:
            self._fill(seat)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for seat in self._seats:
            seat.stop_waiting()
        for process in self._alive:
            process.stop()
        await self._all_gone()
        if self._looks.running:
            self._looks.stop()
        self._folder.release()

    async def _all_gone(self) -> None:
        while self._alive:
            await DeferredList([process.gone for process in self._alive])

    def hurry(self) -> None:
        """Have all end without finishing what is under way."""
        for process in self._alive:
            process.hurry()

    def _fill(self, seat: _Seat) -> None:
        seat.restart = None
        try:
            seat.process = self._start(seat)
        except OSError as error:
            self._not_started(seat, str(error))

    def _start(self, seat: _Seat) -> Process:
        """@raise OSError: it cannot be started."""
        self._started += 1
        place = Place(
            seat.number,
            self._count,
            self._folder.path,
            f"{seat.number}-{self._started}",
            secret=self._secret,
            watchdog=self._watchdog,
        )
        ports = {name: port.descriptor for name, port in self._ports.items()}
        process = Process.start(self._reactor, self._program, place, ports, self._ended)
        seat.started = self._reactor.seconds()
        self._alive.append(process)
        process.ready.addCallback(self._has_started, process)
        return process

    def _has_started(self, _: None, process: Process) -> None:
        if process.failure is not None:
            return
        self._has_served = True
        self.log.info("process {number} serves (pid {pid})", number=process.number, pid=process.pid)
        if not self._ready.called and all(seat.serves for seat in self._seats):
            self._ready.callback(None)

    def _ended(self, process: Process) -> None:
        self._alive.remove(process)
        if process.place.folder is not None:
            (process.place.folder / f"{process.place.name}.sock").unlink(missing_ok=True)
        if process.is_asked:
            self.log.info("process {number} {end}", number=process.number, end=process.end)
        seat = self._seats[process.number - 1]
        if seat.process is not process:
            # Another one has taken its place, or it has never had one.
            return
        seat.process = None
        self._counts.forget(seat.number)
        if not process.is_asked:
            self._not_started(seat, process.failure or f"process {seat.number} {process.end}")

    def _not_started(self, seat: _Seat, reason: str) -> None:
        """@param reason: why there is no process any more, or not yet."""
        if not self.running or self._fails:
            return
        if not self._has_served:
            # None can be started: so it is with a setting that is wrong.
            self._fails = True
            self._fail(reason)
            return
        if seat.is_left:
            return
        lived = self._reactor.seconds() - seat.started
        seat.short_lives = 0 if lived >= _LONG else seat.short_lives + 1
        delay = restart_delay(seat.short_lives)
        self.log.error(
            "{reason}; another one is started in {delay:g} s", reason=reason, delay=delay
        )
        seat.restart = self._reactor.callLater(delay, self._fill, seat)

    def _look(self) -> None:
        """
        How often it was looked is what counts, and not the time: if this process was stopped for a
        while, nobody could be heard.
        """
        for process in list(self._alive):
            patience = _START_PATIENCE if process.state is State.STARTING else self._watchdog
            if process.look() > math.ceil(patience / self._watchdog * _LOOKS):
                self.log.error(
                    "process {number} gives no sign of life: it is killed", number=process.number
                )
                process.kill()

    async def roll(self) -> None:
        """
        Replace one process after the other by a new one, which has the code and the settings of
        now. If one does not start, those that there are stay. Asked for meanwhile, it is done once
        more.
        """
        self._is_to_roll = True
        if self._is_rolling:
            return
        self._is_rolling = True
        while self._is_to_roll and self.running:
            self._is_to_roll = False
            await self._roll_all()
        self._is_rolling = False

    async def _roll_all(self) -> None:
        for seat in self._seats:
            reason = await self._replace(seat)
            if not self.running:
                return
            if reason is not None:
                self.log.error(
                    "process {number} is not replaced, nor any after it: {reason}",
                    number=seat.number,
                    reason=reason,
                )
                return
        self.log.info("all processes were replaced")

    async def _replace(self, seat: _Seat) -> str | None:
        """
        Have a new process serve, and then the old one end.

        @return: why there is no new one; None if there is.
        """
        seat.stop_waiting()
        seat.is_left = True
        try:
            process = self._start(seat)
        except OSError as error:
            reason: str | None = str(error)
        else:
            await process.ready
            reason = process.failure
        seat.is_left = False
        old = seat.process
        if reason is None:
            seat.process = process
            if old is not None:
                old.leave()
                await old.gone
        elif old is None and self.running:
            self._not_started(seat, reason)
        return reason
