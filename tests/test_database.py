"""The SQLite file: its migrations, and what becomes of a bad one."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet import reactor

from gemproxy.database import Database

FIRST = "CREATE TABLE word (text TEXT)"
SECOND = "ALTER TABLE word ADD COLUMN length INTEGER; INSERT INTO word VALUES ('new', 3)"

Open = Callable[..., Database]


@async_yield_fixture
async def open_database(tmp_path: Path) -> AsyncIterator[Open]:
    opened: list[Database] = []

    def open_it(*migrations: str) -> Database:
        database = Database(reactor, tmp_path / "deep" / "db.sqlite3", migrations)
        database.startService()
        opened.append(database)
        return database

    yield open_it
    for database in opened:
        if database.running:
            await database.stopService()


def add(connection: sqlite3.Connection, text: str) -> None:
    connection.execute("INSERT INTO word (text) VALUES (?)", (text,))


def words(connection: sqlite3.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM word ORDER BY rowid")]


def add_and_fail(connection: sqlite3.Connection) -> None:
    add(connection, "lost")
    raise KeyError("on purpose")


@ensureDeferred
async def test_what_was_written_is_there_after_a_restart(open_database: Open):
    database = open_database(FIRST)
    await database.run(add, "a")
    await database.stopService()
    assert await open_database(FIRST, SECOND).run(words) == ["a", "new"]


@ensureDeferred
async def test_work_that_fails_has_done_nothing(open_database: Open):
    database = open_database(FIRST)
    with pytest.raises(KeyError):
        await database.run(add_and_fail)
    assert await database.run(words) == []


@ensureDeferred
async def test_a_migration_happens_as_a_whole(open_database: Open):
    database = open_database(FIRST, "INSERT INTO word VALUES ('half'); SELECT nonsense")
    with pytest.raises(sqlite3.OperationalError):
        await database.run(words)
    await database.stopService()
    assert await open_database(FIRST).run(words) == []


@ensureDeferred
async def test_a_damaged_file_is_set_aside(open_database: Open, tmp_path: Path):
    path = tmp_path / "deep" / "db.sqlite3"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    database = open_database(FIRST)
    await database.run(add, "a")
    assert await database.run(words) == ["a"]
    (aside,) = path.parent.glob("db.sqlite3.damaged-*")
    assert aside.read_bytes().startswith(b"no database")


@ensureDeferred
async def test_of_several_processes_one_sets_it_aside(open_database: Open, tmp_path: Path):
    path = tmp_path / "deep" / "db.sqlite3"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    one, other = open_database(FIRST), open_database(FIRST)
    set_aside = other._set_aside

    def later(error: sqlite3.DatabaseError) -> None:
        one._transaction(add, ["a"])
        set_aside(error)

    other._set_aside = later
    await other.run(add, "b")
    assert await other.run(words) == ["a", "b"]
    assert len(list(path.parent.glob("db.sqlite3.damaged-*"))) == 1


@ensureDeferred
async def test_a_file_of_a_newer_version_is_left_alone(open_database: Open):
    database = open_database(FIRST, SECOND)
    await database.run(words)
    await database.stopService()
    with pytest.raises(sqlite3.NotSupportedError, match="newer version"):
        await open_database(FIRST).run(words)
    assert await open_database(FIRST, SECOND).run(words) == ["new"]


def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper", Path("/proc/none")):
        database = Database(reactor, folder / "db", (FIRST,))
        with pytest.raises(OSError, match=rf"^Nothing can be kept in {folder} \(DATA_DIR\): "):
            database.startService()
