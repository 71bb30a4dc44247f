"""What outlives a restart: a SQLite file, used by one thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from time import time
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from gemproxy.util.log import make_logger

_T = TypeVar("_T")

# Seconds to wait for another process that writes.
_PATIENCE = 5.0
# sqlite.org/rescode.html: what says that the file itself is bad.
_DAMAGES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Database(Service):
    """
    A SQLite file. Its schema is the result of all migrations; the file knows how many it has had. A
    file that is damaged is set aside, and another one is begun.
    """

    log = make_logger()

    def __init__(self, reactor: Any, path: Path, migrations: Sequence[str]) -> None:
        """
        @param migrations: SQL scripts, the oldest first. One that was ever released must not be
            changed.
        """
        self._reactor = reactor
        self._path = path
        self._migrations = migrations
        self._threads = ThreadPool(0, 1, "database")
        self._connection: sqlite3.Connection | None = None

    def startService(self) -> None:
        """@raise OSError: nothing can be written in the folder."""
        super().startService()
        folder = self._path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(
                f"Nothing can be kept in {folder} (DATA_DIR): {error.strerror}."
            ) from None
        self._threads.start()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        closed: Deferred[None] = deferToThreadPool(self._reactor, self._threads, self._close)
        return closed.addBoth(self._end)

    def _end(self, _: Any) -> None:
        self._threads.stop()

    def run(self, work: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """
        Have work done in the thread, as one transaction.

        @param work: gets the connection, and the other arguments.
        @return: fails with sqlite3.Error or OSError, or with what the work raised.
        """
        return deferToThreadPool(self._reactor, self._threads, self._transaction, work, args)

    # In the thread:

    def _transaction(self, work: Callable[..., _T], args: Sequence[Any]) -> _T:
        try:
            with self._connected() as connection:
                return work(connection, *args)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGES:
                raise
            self._set_aside(error)
        with self._connected() as connection:
            return work(connection, *args)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=_PATIENCE)
            try:
                self._migrate(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise sqlite3.NotSupportedError(
                f"{self._path} was written by a newer version of gemproxy"
            )
        for number, script in enumerate(self._migrations[version:], version + 1):
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        self._close()
        aside = self._path.with_name(f"{self._path.name}.damaged-{int(time())}")
        self._path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self.log.error(
            "{path} is damaged ({error}): it is kept as {aside}, and another one is begun",
            path=str(self._path),
            error=error,
            aside=aside.name,
        )

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
