"""How long the turns of an event loop take, and what ran in those that took too long."""

from __future__ import annotations

import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from itertools import islice, takewhile
from traceback import walk_stack
from types import FrameType

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the histogram's buckets, in seconds."""

SLOW = 0.25
"""Seconds after which a turn is one that is told of."""

_MOST_FRAMES = 12
# They call others, and say nothing of what is going on.
_PLUMBING = ("twisted.internet.", "twisted.python.", "gemproxy.http.reactor_turns")

_Clock = Callable[[], float]


class Turns:
    """
    Measures turns. A loop calls L{begin} when its wait for events is over, and L{end} before the
    next. Nothing else may take time here: that is thousands of times a second.

    @ivar began: when the present turn began; None while the loop waits.
    @ivar counts: how many turns there were, by bucket; the last one is for those beyond L{BOUNDS}.
    @ivar total: the seconds of all turns.
    @ivar longest: the seconds of the longest one.
    @ivar place: where a turn was when it was slow, and when that turn began; set by L{Watchdog}.
    """

    def __init__(
        self,
        told: Callable[[float, str], None],
        clock: _Clock = time.perf_counter,
        slow: float = SLOW,
    ) -> None:
        """
        @param told: called with the seconds of each slow turn, and where it was when they were
            L{SLOW}; empty if that is not known.
        @param clock: in seconds.
        @param slow: see L{SLOW}.
        """
        self.clock = clock
        self.slow = slow
        self.began: float | None = None
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.longest = 0.0
        self.place: tuple[float, str] | None = None
        self._told = told

    def begin(self) -> None:
        self.began = self.clock()

    def lasts(self) -> float:
        """The seconds since the present turn began; 0 while the loop waits."""
        return 0.0 if self.began is None else self.clock() - self.began

    def end(self) -> None:
        began, self.began = self.began, None
        if began is None:
            return
        seconds = self.clock() - began
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds
        if seconds >= self.slow:
            place = self.place
            self._told(seconds, place[1] if place is not None and place[0] == began else "")


class Watchdog:
    """
    A thread that looks where a turn is once it is slow. It wakes up as often as a slow turn could
    end, a few times a second.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop = 0

    def start(self) -> None:
        """To be called in the thread of the loop."""
        self._loop = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="gemproxy-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        wait = self._turns.slow
        while not self._stopped.wait(wait):
            wait = self.look(lambda: sys._current_frames().get(self._loop))

    def look(self, frame: Callable[[], FrameType | None]) -> float:
        """
        Note where the present turn is, if it is slow.

        @param frame: where the loop's thread is.
        @return: the seconds until it is worth another look.
        """
        turns = self._turns
        began, seen = turns.began, turns.place
        if began is None or (seen is not None and seen[0] == began):
            return turns.slow
        left = turns.slow - (turns.clock() - began)
        if left > 0:
            # It may be slow by then.
            return left
        running = frame()
        if running is not None:
            turns.place = began, where(running)
        return turns.slow


def where(frame: FrameType) -> str:
    """What runs in a frame, in one line: the functions from the innermost one outwards."""
    within = takewhile(lambda each: each[0].f_code.co_name != "mainLoop", walk_stack(frame))
    names = (
        f"{_module_of(each)}.{each.f_code.co_name}:{line}"
        for each, line in within
        if each is frame or not _module_of(each).startswith(_PLUMBING)
    )
    return " < ".join(islice(names, _MOST_FRAMES))


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))
