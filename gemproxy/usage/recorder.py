"""Writes the rows of usage to a SQLite file, and reads what was written."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from time import time
from urllib.parse import quote

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gemproxy.database import Database, is_damage
from gemproxy.usage import tables
from gemproxy.usage.prices import Prices
from gemproxy.usage.report import MOST_LINES, Question, Report, report_of
from gemproxy.usage.row import Row
from gemproxy.util.batches import Batches
from gemproxy.util.log import make_logger

FILE = "usage.sqlite3"

# Seconds from a row to its being written, with all that came in between.
WRITE_DELAY = 1.0
# Seconds after which a file that could not be written is tried again.
RETRY_DELAY = 5.0
# Seconds that the disk has when the daemon stops.
STOP_PATIENCE = 10.0
# Rows that wait: some 10 MB.
MOST_ROWS = 20_000
# What is wrong with rows, and not with the file, would be an error in gemproxy.
_UNWRITABLE = (
    ArithmeticError,
    TypeError,
    ValueError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
# Seconds after which it is looked again for rows that are too old.
_FORGET_EVERY = 3600.0


class Recorder(Service):
    """
    Has rows written by a thread, in batches. What cannot be written waits until it can be, as far
    as memory allows; no request waits for it.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        database: Database,
        in_thread: Callable[..., Awaitable[bytes]],
        days: int,
        count_dropped: Callable[[float], object] = lambda number: None,
        wall_clock: Callable[[], float] = time,
        most_rows: int = MOST_ROWS,
    ) -> None:
        """
        @param database: with the tables of L{tables.MIGRATIONS}.
        @param in_thread: calls a function in a thread, to read.
        @param days: for which rows are kept; their sums are kept for good.
        @param count_dropped: called with the number of rows that are lost.
        @param wall_clock: in seconds since the epoch.
        @param most_rows: that wait.
        """
        self._clock = clock
        self._database = database
        self._in_thread = in_thread
        self._days = days
        self._count_dropped = count_dropped
        self._wall_clock = wall_clock
        self._pending: deque[Row] = deque()
        self._most_rows = most_rows
        self._batches = Batches(
            clock,
            self._write_pending,
            lambda: bool(self._pending and self.running),
            WRITE_DELAY,
            RETRY_DELAY,
        )
        self._forgotten = -_FORGET_EVERY
        self._is_bad = False

    def startService(self) -> None:
        """A folder that cannot be written costs the usage alone."""
        try:
            self._database.startService()
        except OSError as error:
            self.log.warn("The usage of this daemon is not recorded. {error}", error=error)
        else:
            super().startService()
            # What is wrong with the file is told now, and its tables are of this version.
            self._batches.write()

    def add(self, row: Row) -> None:
        if not self.running:
            return
        self._pending.append(row)
        if len(self._pending) > self._most_rows:
            self._pending.popleft()
            self._count_dropped(1)
        self._batches.added()

    def stopService(self) -> Deferred[None] | None:
        if not self.running:
            return None
        super().stopService()
        self._batches.stop()
        finishing = Deferred.fromCoroutine(self._finish())
        return finishing.addTimeout(STOP_PATIENCE, self._clock).addErrback(self._give_up)

    async def _finish(self) -> None:
        await self._batches.until_idle()
        if self._pending:
            await self._write_pending()
        if self._pending:
            self._count_dropped(len(self._pending))
        await self._database.stopService()

    def _give_up(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self.log.warn("the disk of the usage does not answer: the last rows are lost")

    async def _write_pending(self) -> bool:
        """Returns whether there is no need to try again."""
        batch, self._pending = self._pending, deque()
        try:
            await self._database.run(_write, batch, self._too_old())
        except CancelledError:
            raise
        except _UNWRITABLE:
            # Never again: the next ones shall not wait for them.
            self.log.failure("rows of the usage cannot be written")
            self._count_dropped(len(batch))
        except Exception as error:
            # The file is locked, the disk is full, there is no thread, and so on.
            self._keep_for_later(batch)
            if not self._is_bad:
                self.log.warn("the usage cannot be written: {error}", error=error)
            self._is_bad = True
            return False
        else:
            self._is_bad = False
        return True

    async def report(self, question: Question, prices: Prices, form: str) -> bytes:
        """
        Answer a question. Neither requests nor what is being written wait for it.

        @param form: one of L{gemproxy.usage.report.FORMS}.
        @raise NoUsage: there is nothing that can be read.
        @raise BadQuestion: see L{report_of}.
        """
        if not self.running:
            raise NoUsage("The usage of this daemon is not recorded. Its log says why.")
        try:
            return await self._in_thread(_rendered, self._database.path, question, prices, form)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                await self._database.check()
            raise NoUsage(f"The usage cannot be read: {error}.") from None

    def _keep_for_later(self, batch: deque[Row]) -> None:
        batch.extend(self._pending)
        self._pending = batch
        excess = len(batch) - self._most_rows
        if excess > 0:
            for _ in range(excess):
                batch.popleft()
            self._count_dropped(excess)

    def _too_old(self) -> float | None:
        """Before when rows are to be removed; None if it is not time for that."""
        now = self._clock.seconds()
        if now - self._forgotten < _FORGET_EVERY:
            return None
        self._forgotten = now
        return self._wall_clock() - self._days * tables.DAY


def _write(connection: sqlite3.Connection, rows: Sequence[Row], too_old: float | None) -> None:
    tables.write(connection, rows)
    if too_old is not None:
        tables.forget(connection, too_old)


class NoUsage(Exception):
    """There is no usage to be read; the message says why."""


def read_usage(path: Path, question: Question, prices: Prices) -> Report:
    """
    Answer a question. It blocks, and does not keep a daemon from writing.

    @param path: the file.
    @raise NoUsage: there is no such file, or it is of another version.
    @raise sqlite3.Error: it cannot be read.
    @raise BadQuestion: see L{report_of}.
    """
    if not path.exists():
        raise NoUsage(f"No usage has been recorded in {path.parent} yet (DATA_DIR).")
    address = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=5.0)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != len(tables.MIGRATIONS):
            raise NoUsage(f"{path} was written by another version of gemproxy.")
        return report_from(connection, question, prices)


def _rendered(path: Path, question: Question, prices: Prices, form: str) -> bytes:
    """See L{read_usage}."""
    return read_usage(path, question, prices).rendered(form)


def report_from(connection: sqlite3.Connection, question: Question, prices: Prices) -> Report:
    """@raise BadQuestion: see L{report_of}."""
    read = tables.sums_of_days if question.is_of_days else tables.sums_of_requests
    found = read(connection, question.by, question.start, question.end, MOST_LINES + 1)
    return report_of(question, found, prices.currency, prices.as_of)
