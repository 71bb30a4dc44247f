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
from gemproxy.web.responses_elsewhere import NOWHERE, Elsewhere, Named

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
    @ivar elsewhere: where other daemons find them, and this one finds theirs.
    """

    log = make_logger()

    database: Database
    most: int
    elsewhere: Elsewhere = NOWHERE

    def __attrs_post_init__(self) -> None:
        self.elsewhere.follow(lambda id, owner: self._delete(id, owner).addErrback(self._complain))

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
        # A client that is quick may ask another daemon about it next.
        self.elsewhere.put((id, owner), data)
        putting = self.database.run(_put, id, owner, data, self.most)
        return putting.addCallbacks(self.elsewhere.forget, self._complain)

    def _complain(self, failure: Failure) -> None:
        failure.trap(sqlite3.Error, OSError)
        error = failure.getErrorMessage()
        self.log.warn("a response cannot be kept, or not be deleted: {error}", error=error)

    def get(self, ids: Iterable[str], owner: str) -> Deferred[dict[str, Json]]:
        """
        Those of the records that are there and the client's own.

        @return: fails with a L{ChatError} if whether others have one cannot be known now.
        """
        return Deferred.fromCoroutine(self._get(list(ids), owner))

    async def _get(self, ids: list[str], owner: str) -> dict[str, Json]:
        found = await self.database.run(_get, ids, owner)
        if others := [id for id in ids if id not in found]:
            elsewhere = await self.elsewhere.get(others, owner)
            found |= {id: loads(data) for id, data in elsewhere.items()}
        return found

    def delete(self, id: str, owner: str) -> Deferred[None]:
        """Forget a response, wherever it is."""
        self.elsewhere.delete((id, owner))
        return self._delete(id, owner)

    def _delete(self, id: str, owner: str) -> Deferred[None]:
        return self.database.run(_delete, id, owner)


def _put(
    connection: sqlite3.Connection, id: str, owner: str, data: bytes, most: int
) -> list[Named]:
    """Returns those that are not kept any longer."""
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM response").fetchone()
    connection.execute(
        "INSERT OR REPLACE INTO response VALUES (?, ?, ?, ?)", (id, owner, last + 1, data)
    )
    old = (last + 1 - most,)
    named = connection.execute("SELECT id, owner FROM response WHERE number <= ?", old).fetchall()
    connection.execute("DELETE FROM response WHERE number <= ?", old)
    return named


def _get(connection: sqlite3.Connection, ids: list[str], owner: str) -> dict[str, Json]:
    found = {}
    for id in ids:
        row = connection.execute(
            "SELECT record FROM response WHERE id = ? AND owner = ?", (id, owner)
        ).fetchone()
        if row is not None:
            found[id] = loads(row[0])
    return found


def _delete(connection: sqlite3.Connection, id: str, owner: str) -> None:
    connection.execute("DELETE FROM response WHERE id = ? AND owner = ?", (id, owner))
