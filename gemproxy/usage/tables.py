"""
The tables of usage in SQLite: what is written, and what is asked of them.

C{request} has a row for each request of the last months. C{day} has their sums for each day (UTC),
account, model and upstream, for good. Both are written in one transaction, so that they agree; no
day has to be over for it. Plots of months read C{day} alone. Whatever comes from outside is a
parameter of SQL; the words that SQL is composed of are those of this module.
"""
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from gemproxy.usage.row import BUCKETS, CLIENT_GONE, Row

DAY = 86400

# The number of first tokens in each bucket of L{gemproxy.usage.row}.
_BUCKETS = tuple(f"b{number}" for number in range(BUCKETS))
SUMS = (
    "requests",
    "errors",
    "input",
    "cached",
    "output",
    "reasoning",
    "retries",
    "unpriced",
    "cost",
    "duration",
)
_KEYS = ("day", "account", "model", "upstream")
_VALUES = (*SUMS, *_BUCKETS)

MIGRATIONS = (
    f"""
    CREATE TABLE request (
        time REAL NOT NULL,
        account TEXT NOT NULL,
        model TEXT NOT NULL,
        upstream TEXT NOT NULL,
        status INTEGER NOT NULL,
        finish TEXT,
        input INTEGER,
        cached INTEGER,
        output INTEGER,
        reasoning INTEGER,
        first_token REAL,
        bucket INTEGER,
        duration REAL NOT NULL,
        retries INTEGER NOT NULL,
        cost REAL,
        id TEXT NOT NULL
    );
    CREATE INDEX request_time ON request (time);
    CREATE TABLE day (
        day INTEGER NOT NULL,
        account TEXT NOT NULL,
        model TEXT NOT NULL,
        upstream TEXT NOT NULL,
        {", ".join(f"{name} NUMERIC NOT NULL" for name in _VALUES)},
        PRIMARY KEY (day, account, model, upstream)
    ) WITHOUT ROWID
    """,
)

Found = tuple[Sequence[Any], list[float], list[int]]
"""A line of an answer: what it is for, its sums, and the first tokens in each bucket."""

_INSERT = f"INSERT INTO request VALUES ({', '.join('?' * len(Row._fields))})"
_SET = ", ".join(f"{name} = {name} + excluded.{name}" for name in _VALUES)
_ADD = (
    f"INSERT INTO day VALUES ({', '.join('?' * len(_KEYS + _VALUES))}) "
    f"ON CONFLICT ({', '.join(_KEYS)}) DO UPDATE SET {_SET}"
)


def write(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Add rows, and what they add to their days."""
    connection.executemany(_INSERT, rows)
    connection.executemany(_ADD, [(*key, *sums) for key, sums in _by_day(rows).items()])


def forget(connection: sqlite3.Connection, before: float) -> None:
    """
    Remove the rows of the oldest day, if it is over at a time. It is one day only: where a clock is
    wrong for an hour, all would be gone.

    @param before: in seconds since the epoch.
    """
    (oldest,) = connection.execute("SELECT min(time) FROM request").fetchone()
    if oldest is not None and (end := (oldest // DAY + 1) * DAY) <= before:
        connection.execute("DELETE FROM request WHERE time < ?", (end,))


def _by_day(rows: Iterable[Row]) -> dict[tuple[int, str, str, str], list[float]]:
    days: dict[tuple[int, str, str, str], list[float]] = {}
    for row in rows:
        key = (int(row.time // DAY), row.account, row.model, row.upstream)
        sums = days.get(key)
        if sums is None:
            sums = days[key] = [0] * len(_VALUES)
        for position, value in enumerate(_sums_of(row)):
            sums[position] += value
        if row.bucket is not None:
            sums[len(SUMS) + row.bucket] += 1
    return days


def _sums_of(row: Row) -> tuple[float, ...]:
    """What a row adds to L{SUMS}."""
    return (
        1,
        row.is_error,
        row.input or 0,
        row.cached or 0,
        row.output or 0,
        row.reasoning or 0,
        row.retries,
        row.cost is None and row.input is not None,
        row.cost or 0,
        row.duration,
    )


# The same in SQL, of many rows.
_SUMS_OF_REQUESTS = (
    "count(*)",
    f"total(status >= 400 AND status != {CLIENT_GONE})",
    "total(input)",
    "total(cached)",
    "total(output)",
    "total(reasoning)",
    "total(retries)",
    "total(cost IS NULL AND input IS NOT NULL)",
    "total(cost)",
    "total(duration)",
)
_NAMES = {name: name for name in ("account", "model", "upstream")}
# The beginnings of hours and so on are in seconds since the epoch.
_KEYS_OF_REQUESTS = _NAMES | {
    "minute": "CAST(time / 60 AS INTEGER) * 60",
    "hour": "CAST(time / 3600 AS INTEGER) * 3600",
}
_KEYS_OF_DAYS = _NAMES | {
    "day": f"day * {DAY}",
    "month": f"CAST(strftime('%s', day * {DAY}, 'unixepoch', 'start of month') AS INTEGER)",
}


def sums_of_requests(
    connection: sqlite3.Connection, by: Sequence[str], start: float, end: float, most: int
) -> list[Found]:
    """
    The sums of the requests of a time.

    @param by: what each line is for: of minute, hour, account, model, upstream.
    @param most: the number of lines after which it ends.
    @return: lines in order: what each is for, its sums, and the first tokens in each bucket.
    """
    keys = [_KEYS_OF_REQUESTS[name] for name in by]
    columns = [*keys, "bucket", *_SUMS_OF_REQUESTS]
    lines: list[Found] = []
    for found in connection.execute(
        f"SELECT {', '.join(columns)} FROM request WHERE time >= ? AND time < ? "
        f"{_grouped(len(by) + 1)}",
        (start, end),
    ):
        key, bucket, sums = found[: len(by)], found[len(by)], found[len(by) + 1 :]
        if not lines or lines[-1][0] != key:
            if len(lines) == most:
                break
            lines.append((key, [0] * len(SUMS), [0] * BUCKETS))
        _, total, buckets = lines[-1]
        total[:] = [a + b for a, b in zip(total, sums, strict=True)]
        if bucket is not None:
            buckets[bucket] += int(sums[0])
    return lines


def sums_of_days(
    connection: sqlite3.Connection, by: Sequence[str], start: float, end: float, most: int
) -> list[Found]:
    """The same of whole days, for C{by} of day, month, account, model, upstream."""
    keys = [_KEYS_OF_DAYS[name] for name in by]
    columns = [*keys, *(f"sum({name})" for name in _VALUES)]
    found = connection.execute(
        f"SELECT {', '.join(columns)} FROM day WHERE day >= ? AND day < ? {_grouped(len(by))}"
        f" LIMIT {most}",
        (start // DAY, -(-end // DAY)),
    )
    edge = len(by) + len(SUMS)
    return [
        (one[: len(by)], list(one[len(by) : edge]), list(one[edge:]))
        for one in found
        # Without any keys there is a line even if there is nothing.
        if one[len(by)] is not None
    ]


def _grouped(number: int) -> str:
    positions = ", ".join(str(position) for position in range(1, number + 1))
    return f"GROUP BY {positions} ORDER BY {positions}" if positions else ""
