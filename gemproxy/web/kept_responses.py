"""The responses that clients refer to later, by their ids."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.database import Database
from gemproxy.util.log import make_logger

MIGRATIONS = (
    """
    CREATE TABLE response (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        number INTEGER NOT NULL,
        record BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX response_number ON response (number)
    """,
)

# Bytes of a record at most. It is rendered and read where others wait, for some 50 ms at this size.
_LARGEST = 8_000_000

Json = dict[str, Any]


@frozen(eq=False)
class KeptResponses:
    """
    Keeps the last responses, each with the items that it answers.

    @ivar most: how many are kept; the oldest goes first.
    """

    log = make_logger()

    database: Database
    most: int

    def put(self, id: str, owner: str, record: Json, least: int) -> Deferred[None]:
        """
        Keep a response. What goes wrong is logged: the client has its answer.

        @param owner: who asked for it, and may see it, see L{Credentials.owner}.
        @param least: the bytes that the record has at least.
        """
        data = b"" if least > _LARGEST else dumps(record)
        if not data or len(data) > _LARGEST:
            self.log.warn("the response {id} is too large to be kept", id=id)
            return succeed(None)
        return self.database.run(_put, id, owner, data, self.most).addErrback(self._complain)

    def _complain(self, failure: Failure) -> None:
        failure.trap(sqlite3.Error, OSError)
        self.log.warn("a response cannot be kept: {error}", error=failure.getErrorMessage())

    def get(self, ids: Iterable[str], owner: str) -> Deferred[dict[str, Json]]:
        """Those of the records that are there and the client's own."""
        return self.database.run(_get, list(ids), owner)

    def delete(self, id: str, owner: str) -> Deferred[bool]:
        """Forget a response; returns whether it was there."""
        return self.database.run(_delete, id, owner)


def _put(connection: sqlite3.Connection, id: str, owner: str, data: bytes, most: int) -> None:
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM response").fetchone()
    connection.execute(
        "INSERT OR REPLACE INTO response VALUES (?, ?, ?, ?)", (id, owner, last + 1, data)
    )
    connection.execute("DELETE FROM response WHERE number <= ?", (last + 1 - most,))


def _get(connection: sqlite3.Connection, ids: list[str], owner: str) -> dict[str, Json]:
    found = {}
    for id in ids:
        row = connection.execute(
            "SELECT record FROM response WHERE id = ? AND owner = ?", (id, owner)
        ).fetchone()
        if row is not None:
            found[id] = loads(row[0])
    return found


def _delete(connection: sqlite3.Connection, id: str, owner: str) -> bool:
    deleted = connection.execute("DELETE FROM response WHERE id = ? AND owner = ?", (id, owner))
    return deleted.rowcount > 0
