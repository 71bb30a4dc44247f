"""What outlives a restart: a SQLite file, used by one thread."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
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

_PATIENCE = 5.0
# sqlite.org/fileformat2.html: what every file begins with.
_MAGIC = b"SQLite format 3\0"
# sqlite.org/rescode.html: what says that the file itself is bad.
_DAMAGES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def open_database(
    path: Path, migrations: Sequence[str], patience: float = _PATIENCE
) -> sqlite3.Connection:
    """
    Open a SQLite file, and bring its schema up to date. Threads may use it one after the other.

    @param migrations: see L{Database}; likewise C{patience}.
    @raise sqlite3.Error: it cannot be read or written, or a newer version of gemproxy wrote it.
    @raise OSError: it cannot be created.
    """
    if not path.exists():
        # For this user alone, in whatever folder; SQLite makes its other files likewise.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(path, timeout=patience, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        while (version := _version_of(connection)) < len(migrations):
            _migrate(connection, migrations[version], version)
        if version > len(migrations):
            raise sqlite3.NotSupportedError(f"{path} was written by a newer version of gemproxy")
    except BaseException:
        connection.close()
        raise
    return connection


def _version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection, script: str, version: int) -> None:
    """@param version: the one from which the script leads to the next."""
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {version + 1}; COMMIT;"
        )
    except sqlite3.OperationalError:
        connection.rollback()
        # Another process may have done it meanwhile.
        if _version_of(connection) == version:
            raise


class Database(Service):
    """
    A SQLite file. Its schema is the result of all migrations; the file knows how many it has had. A
    file that is damaged is set aside, and another one is begun.

    @ivar path: that of the file.
    """

    log = make_logger()

    def __init__(
        self, reactor: Any, path: Path, migrations: Sequence[str], patience: float = _PATIENCE
    ) -> None:
        """
        @param migrations: SQL scripts, the oldest first. One that was ever released must not be
            changed.
        @param patience: seconds to wait for another process that writes.
        """
        self._reactor = reactor
        self.path = path
        self._migrations = migrations
        self._patience = patience
        self._threads = ThreadPool(0, 1, "database")
        self._connection: sqlite3.Connection | None = None
        # Kept open as long as the connection: to close any descriptor of the file would release the
        # locks of all connections of this process (sqlite.org/howtocorrupt.html).
        self._file: int | None = None
        # Which file was opened last, whatever came of it.
        self._identity: tuple[int, int] | None = None

    def startService(self) -> None:
        """@raise OSError: nothing can be written in the folder."""
        super().startService()
        folder = self.path.parent
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

    def check(self) -> Deferred[None]:
        """Read all of the file, and set it aside if it is damaged: others say that it is."""
        return deferToThreadPool(self._reactor, self._threads, self._check)

    # In the thread:

    def _check(self) -> None:
        # To be read anew.
        self._close()
        self._transaction(_read_all, ())

    def _transaction(self, work: Callable[..., _T], args: Sequence[Any]) -> _T:
        try:
            with self._connected() as connection:
                return work(connection, *args)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._set_aside(error)
        with self._connected() as connection:
            return work(connection, *args)

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and not self._is_intact():
            # SQLite would notice late: it reads little of what it has in memory.
            self._close()
        if self._connection is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._identity = _identity_of(self.path)
            self._connection = open_database(self.path, self._migrations, self._patience)
            self._identity = _identity_of(self.path)
            self._file = os.open(self.path, os.O_RDONLY)
        return self._connection

    def _is_intact(self) -> bool:
        """Whether the file is still the one that was opened, by its name and its first bytes."""
        assert self._file is not None  # noqa: S101 - for mypy
        try:
            is_same = os.path.samestat(os.fstat(self._file), self.path.stat())
            return is_same and os.pread(self._file, len(_MAGIC), 0) == _MAGIC
        except OSError:
            return False

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        self._close()
        if _identity_of(self.path) != self._identity:
            # Another process has done it.
            return
        aside = self.path.with_name(f"{self.path.name}.damaged-{int(time())}")
        self.path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.log.error(
            "{path} is damaged ({error}): it is kept as {aside}, and another one is begun",
            path=str(self.path),
            error=error,
            aside=aside.name,
        )

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _identity_of(path: Path) -> tuple[int, int] | None:
    """None if there is no such file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is bad."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGES


def _read_all(connection: sqlite3.Connection) -> None:
    """@raise sqlite3.DatabaseError: the file is damaged."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
