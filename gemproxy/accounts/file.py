"""The accounts on disk: a SQLite file, which the daemon and C{gemproxy keys} both write."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from gemproxy.accounts.account import Account, AccountLimits, checked_name
from gemproxy.accounts.budget import Spent
from gemproxy.accounts.known_keys import key_digest
from gemproxy.accounts.ledger import Key
from gemproxy.accounts.records import Record, limits_as_json, limits_of_json
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.database import open_database

FILE = "accounts.sqlite3"

KEY_PREFIX = "sk-gemproxy-"
"""What all keys that are made here begin with, so that none of them is passed on to an upstream."""

MIGRATIONS = (
    """
    CREATE TABLE account (
        name TEXT PRIMARY KEY,
        digest BLOB UNIQUE,
        hint TEXT NOT NULL,
        created REAL NOT NULL,
        revoked REAL,
        limits TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE spent (
        account TEXT NOT NULL,
        period TEXT NOT NULL,
        requests INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        cost REAL NOT NULL,
        PRIMARY KEY (account, period)
    ) WITHOUT ROWID
    """,
    # What is spent is written all the time; that is no reason to read all accounts again.
    """
    CREATE TABLE changes (number INTEGER NOT NULL);
    INSERT INTO changes VALUES (0);
    CREATE TRIGGER account_added AFTER INSERT ON account
        BEGIN UPDATE changes SET number = number + 1; END;
    CREATE TRIGGER account_changed AFTER UPDATE ON account
        BEGIN UPDATE changes SET number = number + 1; END;
    CREATE TRIGGER account_removed AFTER DELETE ON account
        BEGIN UPDATE changes SET number = number + 1; END
    """,
)

_HINT = 4


class NoSuchAccount(Exception):
    """There is no account of that name, or it was revoked."""


class AccountExists(Exception):
    """There is one of that name already."""


@frozen
class News:
    """
    What has changed in the file.

    @ivar records: all accounts; None if they are as they were.
    @ivar spent: the sums of the periods that were asked for.
    """

    records: Sequence[Record] | None
    spent: Mapping[Key, Spent]


class AccountsFile:
    """
    The file is made with the first account. Its methods block, and are for one thread at a time;
    each raises sqlite3.Error or OSError if the file cannot be used.

    An account that was revoked stays, without its key: a proxy that has had accounts must not be
    open to everybody because the last of them is gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        # What SQLite calls the state of the file as other processes have left it.
        self._version: int | None = None
        # The changes of accounts until they were read.
        self._changes: int | None = None

    @property
    def exists(self) -> bool:
        # Not as pathlib has it: where it may not look, there may be accounts all the same.
        return bool(_inode_of(self._path))

    def add(self, name: str, limits: AccountLimits, now: float) -> tuple[Record, str]:
        """
        Returns the new account, and its key, which is kept nowhere.

        @param now: in seconds since the epoch.
        @raise ValueError: the name is none.
        @raise AccountExists: there is one, which was not revoked.
        """
        key = KEY_PREFIX + secrets.token_urlsafe(32)
        account = Account(checked_name(name), limits)
        record = Record(account, key_digest(key), key[-_HINT:], now)
        with self._writing() as connection:
            found = _found(connection, name)
            if found is not None and found.revoked is None:
                raise AccountExists(f"There is an account '{name}' already.")
            connection.execute(
                "INSERT OR REPLACE INTO account VALUES (?, ?, ?, ?, NULL, ?)",
                (name, record.digest, record.hint, now, dumps(limits_as_json(limits)).decode()),
            )
        return record, key

    def change(self, name: str, changes: Mapping[str, object]) -> Record:
        """
        @param changes: see L{limits_of_json}.
        @raise ValueError: they are wrong.
        @raise NoSuchAccount:
        """
        with self._writing() as connection:
            limits = limits_of_json(changes, self._existing(connection, name).account.limits)
            text = dumps(limits_as_json(limits)).decode()
            connection.execute("UPDATE account SET limits = ? WHERE name = ?", (text, name))
            return self._existing(connection, name)

    def revoke(self, name: str, now: float) -> None:
        """
        @param now: in seconds since the epoch.
        @raise NoSuchAccount:
        """
        with self._writing() as connection:
            self._existing(connection, name)
            connection.execute(
                "UPDATE account SET digest = NULL, revoked = ? WHERE name = ?", (now, name)
            )

    def records(self) -> list[Record]:
        """All accounts, by name; none if there is no file."""
        return [] if not self.exists else _records(self._connected())

    def spent(self, periods: Sequence[str]) -> dict[Key, Spent]:
        """What all accounts have spent in these periods."""
        return {} if not self.exists else _sums(self._connected(), periods)

    def refresh(self, spent: Mapping[Key, Spent], periods: Sequence[str]) -> News | None:
        """
        Add to what was spent, and look what others have changed; returns None if nothing has.

        @param periods: those whose sums matter.
        """
        if not self.exists:
            if spent:
                raise FileNotFoundError(f"{self._path} is not there any more")
            return None
        connection = self._connected()
        version = int(connection.execute("PRAGMA data_version").fetchone()[0])
        if not spent and version == self._version:
            return None
        # What was written stays only if the rest can be read: it would be written again.
        with connection:
            if spent:
                connection.executemany(
                    "INSERT INTO spent VALUES (?, ?, ?, ?, ?)"
                    " ON CONFLICT (account, period) DO UPDATE SET"
                    " requests = requests + excluded.requests, tokens = tokens + excluded.tokens,"
                    " cost = cost + excluded.cost",
                    [(*key, one.requests, one.tokens, one.cost) for key, one in spent.items()],
                )
            changes = int(connection.execute("SELECT number FROM changes").fetchone()[0])
            records = None if changes == self._changes else _records(connection)
            news = News(records, _sums(connection, periods))
        self._version, self._changes = version, changes
        return news

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._version = self._changes = None
        if connection is not None:
            connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = self._connected()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
        # SQLite does not count what is written here.
        self._version = None

    def _existing(self, connection: sqlite3.Connection, name: str) -> Record:
        record = _found(connection, name)
        if record is None or record.revoked is not None:
            raise NoSuchAccount(f"There is no account '{name[:100]}'.")
        return record

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode == _inode_of(self._path):
            return self._connection
        # It may have been removed, and made anew.
        self.close()
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._connection = open_database(self._path, MIGRATIONS)
        self._inode = _inode_of(self._path)
        return self._connection


def _inode_of(path: Path) -> int:
    """0 if there is no such file."""
    try:
        return path.stat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return 0


_COLUMNS = "name, digest, hint, created, revoked, limits"


def _records(connection: sqlite3.Connection) -> list[Record]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM account ORDER BY name")  # noqa: S608
    return [_record(*row) for row in rows]


def _found(connection: sqlite3.Connection, name: str) -> Record | None:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM account WHERE name = ?",  # noqa: S608
        (name,),
    ).fetchone()
    return None if row is None else _record(*row)


def _record(
    name: str, digest: bytes | None, hint: str, created: float, revoked: float | None, limits: str
) -> Record:
    account = Account(name, limits_of_json(loads(limits.encode())))
    return Record(account, digest, hint, created, revoked)


def _sums(connection: sqlite3.Connection, periods: Sequence[str]) -> dict[Key, Spent]:
    marks = ", ".join("?" * len(periods))
    rows = connection.execute(
        f"SELECT * FROM spent WHERE period IN ({marks})",  # noqa: S608
        tuple(periods),
    )
    return {(name, period): Spent(*sums) for name, period, *sums in rows}
