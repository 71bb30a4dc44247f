"""Who used how much of what: prices, rows, sums, reports, and the file that they are kept in."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from gemproxy.chat.chunks import Usage
from gemproxy.command import EXAMPLE, main
from gemproxy.config import read_config
from gemproxy.config_file import (
    BadFile,
    FileConfig,
    PriceConfig,
    PriceListConfig,
    parse_config_file,
)
from gemproxy.database import Database
from gemproxy.exchange import Exchange
from gemproxy.gemini.translate.models import BUILT_IN_MODELS
from gemproxy.usage import recorder, report, tables
from gemproxy.usage.meter import Meter
from gemproxy.usage.prices import Prices
from gemproxy.usage.recorder import FILE, WRITE_DELAY, NoUsage, Recorder, read_usage, report_from
from gemproxy.usage.report import BadQuestion, Report, question_of
from gemproxy.usage.row import BUCKETS, Names, Row, bucket_of, percentile, shown
from gemproxy.usage.scan import UsageScanner
from gemproxy.util.threads import Threads
from testing.fake_newapi import FakeNewApi, document, hang, stream
from testing.processes import Running, free_port
from tests.support import Client, Reply, gpt, running_relay, until

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
DAY = 86400.0

PRICES = Prices(
    PriceListConfig(
        date(2026, 11, 28),
        "EUR",
        (
            PriceConfig(("pro",), 4, 18, cached=0.4, prompts_over=200_000),
            PriceConfig(("pro",), 2, 12, cached=0.2),
            PriceConfig(("thinker-*",), 1, 2, reasoning=5),
            PriceConfig(("other/gpt-*",), 7, 7),
            PriceConfig(("gpt-*",), 1, 1),
            PriceConfig(("promoted",), 0.75, 3.75, until=date(2026, 11, 28)),
            PriceConfig(("promoted",), 1.5, 7.5),
        ),
    )
)


def row(**fields: Any) -> Row:
    plain = Row(
        NOON,
        "anna",
        "gpt-x",
        "newapi",
        200,
        "stop",
        10,
        4,
        5,
        1,
        0.5,
        bucket_of(0.5),
        2.0,
        0,
        0.1,
        "i",
    )
    return plain._replace(**fields)


# --- What tokens cost.


@pytest.mark.parametrize(
    ("model", "usage", "upstream", "cost"),
    [
        ("pro", Usage(1_000_000 - 900_000, 10), "", 0.20012),
        ("pro", Usage(200_001, 0), "", 0.800004),
        ("pro", Usage(100, 0, cached=50), "", 0.00011),
        ("pro", Usage(100, 0, cached=1000), "", 0.00002),
        ("thinker-7", Usage(0, 100, reasoning=60), "", 0.00038),
        ("gpt-x", Usage(1_000_000, 0), "newapi", 1.0),
        ("gpt-x", Usage(1_000_000, 0), "other", 7.0),
        ("unknown", Usage(1, 1), "", None),
        ("pro-2", Usage(1, 1), "", None),
    ],
)
def test_the_first_price_that_fits_counts(
    model: str, usage: Usage, upstream: str, cost: float | None
) -> None:
    assert PRICES.cost(model, usage, NOON, upstream) == pytest.approx(cost)


def test_a_price_ends_with_its_last_day() -> None:
    million = Usage(1_000_000, 0)
    midnight = NOON + DAY / 2
    assert PRICES.cost("promoted", million, midnight - 1) == 0.75
    assert PRICES.cost("promoted", million, midnight) == 1.5


def test_prices_are_in_the_configuration_file() -> None:
    text = """
    [prices]
    as_of = 2026-11-28
    per_million = [
      { models = ["a*", "c"], input = 1, output = 2.5, cached = 0.1, reasoning = 3 },
      { models = ["b"], input = 0, output = 0, prompts_over = 200_000, until = 2026-12-31 },
    ]
    """
    assert parse_config_file(text, (), str).prices == PriceListConfig(
        date(2026, 11, 28),
        "USD",
        (
            PriceConfig(("a*", "c"), 1, 2.5, 0.1, 3),
            PriceConfig(("b",), 0, 0, prompts_over=200_000, until=date(2026, 12, 31)),
        ),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prices = 3", "below"),
        ("[prices]\nper_million = [{ models = ['a'], input = 1, output = 1 }]", "'as_of' must be"),
        ("[prices]\nas_of = '2026-11-28'", "without quotes"),
        ("[prices]\nas_of = 2026-11-28T10:00:00Z", "'as_of' must be a day"),
        ("[prices]\ncurrency = 'dollars'", "code such as USD"),
        ("[prices]\nper_million = [{ models = ['a'], input = 1 }]", "'output' must be there"),
        ("[prices]\nper_million = [{ models = ['a'], input = -1, output = 1 }]", "prices of 'a'"),
        ("[prices]\nper_million = [{ models = ['a'], input = nan, output = 1 }]", "a number"),
        ("[prices]\nper_million = [{ input = 1, output = 1 }]", "line 1 of 'per_million'"),
        (
            "[prices]\nper_million = [{ models = ['a'], input = 1, output = 1, cahced = 1 }]",
            "cached",
        ),
        ("[prices]\nper_million = { models = ['a'] }", "a list of tables"),
        ("[pricse]\n", "did you mean 'prices'"),
    ],
)
def test_a_bad_price_is_named(text: str, complaint: str) -> None:
    with pytest.raises(BadFile, match=complaint):
        parse_config_file(text, (), str)


# --- Rows.


def test_an_exchange_becomes_a_row_and_learns_its_cost() -> None:
    rows: list[Row] = []
    meter = Meter(PRICES, rows.append)
    exchange = Exchange("id", NOON, 0.0, "stream/x", "gpt-x", True, b"{}", account="anna")
    exchange.upstream, exchange.duration, exchange.first_token = "newapi", 3.0, 0.5
    exchange.finish_reason, exchange.retries = "stop", 2
    exchange.usage = Usage(10, 5, reasoning=1, cached=4).as_json()
    meter.ended(exchange)
    assert rows == [row(duration=3.0, retries=2, cost=15e-6, id="id")]
    assert exchange.cost == pytest.approx(15e-6)
    assert meter.tokens()["anna", "gpt-x", "reasoning"] == 1
    assert meter.costs() == {("anna", "gpt-x", "EUR"): pytest.approx(15e-6)}


def counted(meter: Meter, **fields: Any) -> float | None:
    facts: dict[str, Any] = {
        "id": "x",
        "time": NOON,
        "account": None,
        "model": "m",
        "upstream": "",
        "status": 200,
        "finish": None,
        "usage": None,
        "first_token": None,
        "duration": 0.0,
    }
    return meter.count(**(facts | fields))


STRANGE = ["", "\ud800", "a\0b", "\x1b[2J", "=1+1", "m" * 100_000, "\u202eevil", "модель", "<b>"]


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_and_numbers_are_kept_as_far_as_they_can_be(name: str) -> None:
    rows: list[Row] = []
    meter = Meter(PRICES, rows.append)
    counted(meter, model=name, finish=name, usage=Usage(10**30, -5, reasoning=2**70, cached=-1))
    counted(meter, model=name, usage=Usage(2**70, 2**70))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(tables.MIGRATIONS[0])
        tables.write(connection, rows)
        ((kept, finish),) = connection.execute("SELECT model, finish FROM request LIMIT 1")
        for report in (report_on(connection, by="model"), report_on(connection, by="hour,model")):
            assert [line.key[-1] for line in report.lines] == [kept]
            assert report.lines[0]["input"] == 2 * 10**9
    assert kept.isprintable() and len(kept) <= 200 and kept == shown(name, 200)
    assert len(finish) <= 40


def test_clients_cannot_fill_the_file_with_names_of_models() -> None:
    names = Names(2)
    assert [names.known(name) for name in "abcab"] == ["a", "b", "(other)", "a", "b"]


@given(st.floats(0.001, 800))
def test_a_percentile_is_right_to_within_an_eighth(seconds: float) -> None:
    counts = [0] * BUCKETS
    counts[bucket_of(seconds) or 0] += 1
    assert percentile(counts, 0.95) == pytest.approx(seconds, rel=0.125)


def test_percentiles_go_by_rank() -> None:
    counts = [0] * BUCKETS
    for seconds, number in ((0.1, 90), (1.0, 9), (1e9, 1)):
        counts[bucket_of(seconds) or 0] += number
    found = [percentile(counts, share) for share in (0.5, 0.95, 1.0)]
    assert found == [
        pytest.approx(0.1, rel=0.125),
        pytest.approx(1.0, rel=0.125),
        pytest.approx(741, rel=0.01),
    ]
    assert percentile([0] * BUCKETS, 0.5) is None
    assert bucket_of(0.0) == 0


# --- Sums and reports.


def report_on(connection: sqlite3.Connection, **parameters: str) -> Report:
    query = {name.strip("_"): value for name, value in parameters.items()}
    return report_from(connection, question_of(query, NOON), PRICES)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(tables.MIGRATIONS[0])
        yield connection


def test_days_and_requests_add_up_to_the_same(connection: sqlite3.Connection) -> None:
    tables.write(
        connection,
        [
            row(),
            row(
                status=500,
                input=None,
                cached=None,
                output=None,
                reasoning=None,
                cost=None,
                bucket=None,
            ),
        ],
    )
    tables.write(connection, [row(account="", cost=None), row(status=499, time=NOON - 2 * DAY)])
    days = report_on(connection, by="account,model,upstream")
    requests = report_on(connection, by="account,model,upstream", from_="2026-11-25T00:00:01Z")
    assert days.question.is_of_days and not requests.question.is_of_days
    assert days.lines == requests.lines
    assert days.as_json()["rows"] == [
        {
            "account": account,
            "model": "gpt-x",
            "upstream": "newapi",
            "requests": number,
            "errors": errors,
            "retries": 0,
            "input_tokens": 10 * priced,
            "cached_tokens": 4 * priced,
            "output_tokens": 5 * priced,
            "reasoning_tokens": priced,
            "cost": cost,
            "unpriced_requests": unpriced,
            "first_token_p50": pytest.approx(0.5, rel=0.125),
            "first_token_p95": pytest.approx(0.5, rel=0.125),
            "mean_duration": 2.0,
        }
        for account, number, errors, priced, cost, unpriced in (
            (None, 1, 0, 1, None, 1),
            ("anna", 3, 1, 2, 0.2, 0),
        )
    ]


def test_times_are_utc_and_begin_with_their_unit(connection: sqlite3.Connection) -> None:
    times = [NOON, NOON + 59.9, NOON + 60, NOON + 3600, NOON + DAY / 2, NOON - 28 * DAY]
    tables.write(connection, [row(time=time) for time in times])

    def lines(by: str, **parameters: str) -> dict[str, int]:
        found = report_on(connection, by=by, **parameters).as_json()["rows"]
        return {line[by]: line["requests"] for line in found}

    assert lines("minute", from_="3h") == {
        "2026-11-28T12:00:00Z": 2,
        "2026-11-28T12:01:00Z": 1,
        "2026-11-28T13:00:00Z": 1,
        "2026-11-29T00:00:00Z": 1,
    }
    assert lines("hour", to="2026-11-28T14:00:00+01:00") == {
        "2026-10-31T12:00:00Z": 1,
        "2026-11-28T12:00:00Z": 3,
    }
    assert lines("day", from_="2026-11-28T23:00Z") == {"2026-11-28": 4, "2026-11-29": 1}
    assert lines("month", from_="2026-11-15") == {"2026-11": 5}
    assert report_on(connection).total()["requests"] == 6
    assert report_on(connection, from_="1d", to="2026-11-29").total()["requests"] == 4


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"by": "day,hour"}, "by"),
        ({"by": "model,model"}, "by"),
        ({"by": "time); DROP TABLE day"}, "by"),
        ({"from": "yesterday"}, "from"),
        ({"from": "99999999999d"}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"from": "2026-11-28", "to": "2026-11-28"}, "to"),
    ],
)
def test_a_question_that_cannot_be_understood(parameters: dict[str, str], name: str) -> None:
    with pytest.raises(BadQuestion) as caught:
        question_of(parameters, NOON)
    assert caught.value.name == name


def test_an_answer_has_an_end(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.write(connection, [row(model=str(number), time=NOON) for number in range(12)])
    for module in (report, recorder):
        monkeypatch.setattr(module, "MOST_LINES", 10)
    for by in ("model", "hour,model"):
        with pytest.raises(BadQuestion, match="more than 10 lines"):
            report_on(connection, by=by)


def test_a_spreadsheet_sees_no_formulas(connection: sqlite3.Connection) -> None:
    names = ["=1+1", "+1", "-1", "@x", 'a","b', "plain"]
    tables.write(connection, [row(model=name, account=name) for name in names])
    lines = [*csv.DictReader(io.StringIO(report_on(connection, by="account,model").as_csv()))]
    shown = {line["model"] for line in lines} | {line["account"] for line in lines}
    assert shown == {"'=1+1", "'+1", "'-1", "'@x", 'a","b', "plain"}
    assert lines[0]["cost"] == "0.1" and lines[0]["prices_as_of"] == "2026-11-28"


TABLE = """\
account  model  requests  errors  tokens in  cached  tokens out  thoughts    cost  first token, p50     p95
-        m             1       0  1,000,000       4           5         1       -            0.46 s  0.46 s
anna     gpt-x         1       0         10       4           5         1  0.1000            0.46 s  0.46 s
total                  2       0  1,000,010       8          10         2  0.1000            0.46 s  0.46 s

Costs in EUR, by the prices of 2026-11-28; requests without a price: 1. Days are UTC's.
"""  # noqa: E501


def test_people_see_a_table(connection: sqlite3.Connection) -> None:
    tables.write(connection, [row(), row(account="", model="m", cost=None, input=1_000_000)])
    assert report_on(connection, by="account,model").as_text() == TABLE
    assert report_on(connection, to="2026-11-28").as_text().splitlines()[1].split()[:2] == [
        "0",
        "0",
    ]


def test_rows_are_forgotten_a_day_at_a_time_and_sums_never(connection: sqlite3.Connection) -> None:
    tables.write(connection, [row(time=NOON - days * DAY) for days in (100, 99, 99, 2, 0)])
    left = []
    for _ in range(3):
        # The clock stands a thousand years ahead.
        tables.forget(connection, NOON + 1000 * 365 * DAY)
        left += connection.execute("SELECT count(*) FROM request").fetchone()
    assert left == [4, 2, 1]
    tables.forget(connection, NOON)
    assert connection.execute("SELECT count(*) FROM request").fetchone() == (1,)
    assert report_on(connection, from_="200d").total()["requests"] == 5


# --- The file.


# What each version of the tables was made of, and a request in its words.
VERSIONS = (
    (
        "32fc65251971324813775f3a8b263695d56d09024dc3b10498c3e8fc810a577a",
        f"""
        INSERT INTO request VALUES
        ({NOON}, '', 'old', '', 200, 'stop', 1, 0, 1, 0, 0.5, 27, 1, 0, NULL, 'i');
        INSERT INTO day VALUES
        ({NOON // DAY}, '', 'old', '', 1, 0, 1, 0, 1, 0, 0, 1, 0, 1,
        {", ".join("1" if number == 27 else "0" for number in range(60))})
        """,  # noqa: S608
    ),
)


@pytest.mark.parametrize("version", range(1, len(tables.MIGRATIONS) + 1))
def test_a_file_of_any_version_is_read_and_written(tmp_path: Path, version: int) -> None:
    digest, written = VERSIONS[version - 1]
    migration = tables.MIGRATIONS[version - 1].encode()
    assert hashlib.sha256(migration).hexdigest() == digest, "there are files of this version"
    path = tmp_path / FILE
    database = Database(reactor, path, tables.MIGRATIONS[:version])
    database._connected().executescript(written)
    database._close()
    database = Database(reactor, path, tables.MIGRATIONS)
    database._transaction(tables.write, [[row(time=NOON)]])
    database._close()
    for parameters in ({"by": "model"}, {"by": "hour,model"}):
        report = read_usage(path, question_of(parameters, NOON), PRICES)
        assert [(line.key[-1], line["requests"]) for line in report.lines] == [
            ("gpt-x", 1),
            ("old", 1),
        ]
        assert report.lines[1].facts()["first_token_p50"] == pytest.approx(0.5, rel=0.125)


@async_yield_fixture
async def made(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Recorder]]]:
    """Makes recorders for the same file, whose clock the test moves."""
    recorders: list[Recorder] = []

    async def make(clock: Clock, **options: Any) -> Recorder:
        database = Database(reactor, tmp_path / FILE, tables.MIGRATIONS, patience=0.05)
        in_thread = Threads(reactor, 1, "test").call
        recorder = Recorder(clock, database, in_thread, 90, wall_clock=lambda: NOON, **options)
        recorders.append(recorder)
        recorder.startService()
        await until(lambda: not recorder._batches.is_writing, "the file is made")
        return recorder

    yield make
    for one in recorders:
        await maybeDeferred(one.stopService)


@ensureDeferred
async def test_a_file_of_a_newer_version_is_told_of_at_the_start(
    tmp_path: Path, made: Callable[..., Awaitable[Recorder]]
):
    with closing(sqlite3.connect(tmp_path / FILE)) as newer:
        newer.execute("PRAGMA user_version = 1000")
    with warnings() as warned:
        recorder = await made(Clock())
        with pytest.raises(NoUsage, match="another version"):
            await recorder.report(question_of({}, NOON), PRICES, "json")
    assert len(warned) == 1 and "newer version" in warned[0]


def ids_of(connection: sqlite3.Connection) -> list[str]:
    return [id for (id,) in connection.execute("SELECT id FROM request ORDER BY rowid")]


def ids_in(folder: Path) -> list[str]:
    path = folder / FILE
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return ids_of(connection)
        except sqlite3.DatabaseError:
            return []


@contextmanager
def warnings() -> Iterator[list[str]]:
    said: list[str] = []

    def observe(event: Any) -> None:
        if event["log_level"] >= LogLevel.warn:
            said.append(formatEvent(event) or "")

    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


@ensureDeferred
async def test_rows_are_written_once_a_second(
    tmp_path: Path, made: Callable[..., Awaitable[Recorder]]
):
    clock = Clock()
    recorder = await made(clock)
    for id in ("a", "b"):
        recorder.add(row(id=id))
    clock.advance(0.99)
    assert not recorder._batches.is_writing and ids_in(tmp_path) == []
    clock.advance(0.01)
    recorder.add(row(id="c"))
    await until(lambda: ids_in(tmp_path) == ["a", "b"], "the first two are written")
    await until(clock.getDelayedCalls, "it waits for the next second")
    recorder.add(row(id="d"))
    await recorder.stopService()
    assert ids_in(tmp_path) == ["a", "b", "c", "d"]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Nothing that is written becomes longer: the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("trouble", "said"), [(locked, "database is locked"), (full, "disk")])
@ensureDeferred
async def test_what_cannot_be_written_waits_as_far_as_there_is_room(
    trouble: Callable[[Path], AbstractContextManager[None]],
    said: str,
    tmp_path: Path,
    made: Callable[..., Awaitable[Recorder]],
):
    clock, dropped = Clock(), []
    recorder = await made(clock, most_rows=3, count_dropped=dropped.append)
    recorder.add(row(id="0"))
    clock.advance(1)
    await until(lambda: ids_in(tmp_path) == ["0"], "the file is there")
    await until(lambda: not recorder._batches.is_writing, "it is idle")
    with warnings() as warned, trouble(tmp_path / FILE):
        recorder.add(row(id="1"))
        for _ in range(2):
            clock.advance(5)
            await until(lambda: not recorder._batches.is_writing, "it has failed")
        for id in ("2", "3", "4"):
            recorder.add(row(id=id))
    assert len(warned) == 1 and said in warned[0]
    assert sum(dropped) == 1
    clock.advance(5)
    await until(lambda: ids_in(tmp_path) == ["0", "2", "3", "4"], "all others are written")


@ensureDeferred
async def test_a_row_that_cannot_be_written_keeps_no_other(
    tmp_path: Path, made: Callable[..., Awaitable[Recorder]]
):
    clock, dropped = Clock(), []
    recorder = await made(clock, count_dropped=dropped.append)
    for bad in (row(status=2**64), row(model=None), row(finish=object()), row(id="\ud800")):
        recorder.add(bad)
        clock.advance(1)
        await until(lambda: not recorder._batches.is_writing, "it is given up")
    recorder.add(row(id="good"))
    clock.advance(1)
    await until(lambda: ids_in(tmp_path) == ["good"], "the next one is written")
    assert dropped == [1] * 4
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def overwrite(path: Path, start: int) -> None:
    """Garbage takes the place of what is in a file, or of its second half."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"garbage!" * ((size - start) // 8))


@pytest.mark.parametrize("damage", ["beginning", "middle", "removed"])
@ensureDeferred
async def test_a_file_that_is_damaged_at_work_makes_room_for_another(
    damage: str, tmp_path: Path, made: Callable[..., Awaitable[Recorder]]
):
    clock, path, question = Clock(), tmp_path / FILE, question_of({}, NOON)
    recorder = await made(clock)
    for number in range(200):
        recorder.add(row(id=f"lost-{number}"))
    clock.advance(1)
    await until(lambda: len(ids_in(tmp_path)) == 200, "the file is there")
    await until(lambda: not recorder._batches.is_writing, "it is idle")
    with warnings() as warned:
        if damage == "removed":
            path.unlink()
        elif damage == "beginning":
            for name in (FILE, f"{FILE}-wal"):
                overwrite(tmp_path / name, 0)
        else:
            with closing(sqlite3.connect(path)) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            overwrite(path, 4096)
        if damage == "middle":
            # Only whoever reads all of it can know.
            with pytest.raises(NoUsage, match="malformed"):
                await recorder.report(question, PRICES, "json")
            assert [*tmp_path.glob(f"{FILE}.damaged-*")]
        recorder.add(row(id="kept"))
        clock.advance(1)
        await until(lambda: ids_in(tmp_path) == ["kept"], "another file is written")
    if damage != "removed":
        assert "is damaged" in warned[0]
        assert len([*tmp_path.glob(f"{FILE}.damaged-*")]) == 1
    report = json.loads(await recorder.report(question, PRICES, "json"))
    assert report["total"]["requests"] == 1


@ensureDeferred
async def test_without_a_folder_there_is_a_warning_and_no_usage(tmp_path: Path):
    (tmp_path / "file").write_text("")
    async with running_relay(USAGE_DAYS=90, DATA_DIR=tmp_path / "file") as relay:
        relay.upstream.play(stream("Hi"))
        assert (await relay.ask(gpt("Hello"))).content == "Hi"
        assert (await relay.get("/admin/usage")).status == 404
        (said,) = [text for text in relay.warnings if "usage" in text]
        assert "not recorded" in said and "(DATA_DIR)" in said


# --- The command.


def run(capsys: pytest.CaptureFixture[str], *arguments: str, **environ: str) -> tuple[int, str]:
    status = main(arguments, environ)
    said = capsys.readouterr()
    return status, said.err if status else said.out


def test_the_command_shows_usage_with_and_without_a_daemon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"DATA_DIR": str(tmp_path), "GEMPROXY_CONFIG": str(EXAMPLE)}
    assert run(capsys, "usage", **environ) == (
        1,
        f"gemproxy: No usage has been recorded in {tmp_path} yet (DATA_DIR).\n",
    )
    database = Database(reactor, tmp_path / FILE, tables.MIGRATIONS)
    database._transaction(tables.write, [[row(time=time.time(), account="\u202e", cost=None)]])
    for is_running in (True, False):
        status, text = run(capsys, "usage", "--by", "account,hour", "--from", "24h", **environ)
        assert status == 0 and "by the prices of 2026-11-28; requests without a price: 1" in text
        status, text = run(capsys, "usage", "--format", "json", **environ)
        assert json.loads(text)["total"]["requests"] == 1
        status, text = run(capsys, "usage", "--by", "model", "--format", "csv", **environ)
        assert text.splitlines()[1].startswith("gpt-x,1,0,0,10,4,5,1,,1,")
        if is_running:
            database._close()
    assert run(capsys, "usage", "--by", "x", **environ)[1].startswith("gemproxy: 'by' may have")
    overwrite(tmp_path / FILE, 0)
    assert run(capsys, "usage", **environ) == (1, "gemproxy: file is not a database\n")


def test_the_example_is_a_configuration_with_todays_prices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gemproxy.toml"
    path.write_text(run(capsys, "example")[1])
    assert "prices: in USD, of 2026-11-28\n" in run(capsys, "check", "--config", str(path))[1]
    prices = Prices(read_config({}, {}, path, allow_no_key=True).prices)
    assert prices.as_of == "2026-11-28"
    million = Usage(1_000_000, 1_000_000, cached=500_000)
    assert prices.cost("gemini-3.8-flash", million, NOON) == pytest.approx(0.4125 + 3.75)
    assert prices.cost("gemini-3.8-flash", million, NOON + 40 * DAY) == pytest.approx(0.825 + 7.5)
    assert prices.cost("gemini-3.1-pro-preview", million, NOON) == pytest.approx(2.2 + 18)
    assert prices.cost("gemini-9", million, NOON) is None


@pytest.mark.parametrize("model", BUILT_IN_MODELS)
def test_the_example_has_a_price_for_every_model_of_google(model: str) -> None:
    prices = Prices(read_config({}, {}, EXAMPLE, allow_no_key=True).prices)
    assert prices.cost(model, Usage(1, 1), NOON) is not None


# --- Responses that pass as they are.

COUNTS = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
ANTHROPIC = [
    {
        "type": "message_start",
        "message": {
            "usage": {
                "input_tokens": 3,
                "output_tokens": 1,
                "cache_read_input_tokens": 5,
                "cache_creation_input_tokens": 1,
            }
        },
    },
    {"type": "content_block_delta", "delta": {"text": 'I say "usage": {"output_tokens": 77}'}},
    {"type": "message_delta", "usage": {"output_tokens": 20, "input_tokens": None}},
]
RESPONSES = {
    "type": "response.completed",
    "response": {
        "output": ["x" * 60_000],
        "usage": {
            "input_tokens": 9,
            "output_tokens": 5,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        "metadata": {},
    },
}
GOOGLE = {
    "promptTokenCount": 8,
    "toolUsePromptTokenCount": 1,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 2,
    "cachedContentTokenCount": 4,
}


def as_events(*data: Any) -> bytes:
    return b"".join(b"event: x\ndata: " + json.dumps(one).encode() + b"\n\n" for one in data)


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (
            json.dumps({"data": [[0.1] * 9000], "usage": COUNTS}, indent=1).encode(),
            Usage(9, 2, 0, 4),
        ),
        (json.dumps({"usage": COUNTS, "choices": []}).encode(), Usage(9, 2, 0, 4)),
        (as_events({"usage": None}, {"usage": COUNTS}), Usage(9, 2, 0, 4)),
        (as_events(*ANTHROPIC), Usage(9, 20, 0, 5)),
        (as_events({"type": "response.created"}, RESPONSES), Usage(9, 5, 2, 4)),
        (
            as_events({"usageMetadata": {"promptTokenCount": 9}}, {"usageMetadata": GOOGLE}),
            Usage(9, 5, 2, 4),
        ),
        (as_events({"text": '"usage": {"prompt_tokens": 1}'}), None),
        (b'{"usage": {"prompt_tokens": 1', None),
        (b'{"usage": {"size": 3}}', None),
        (b'"usage":' + b'{"a":' * 5000, None),
        (b"\xff\x00", None),
    ],
)
def test_token_counts_are_found_wherever_the_response_is_cut(
    body: bytes, usage: Usage | None
) -> None:
    for size in (1, 1000, 10**9):
        scanner = UsageScanner()
        for start in range(0, len(body), size):
            scanner.feed(body[start : start + size])
        assert scanner.usage() == usage


# --- The daemon.


@ensureDeferred
async def test_who_answered_is_told_with_what_it_costs(tmp_path: Path):
    file = FileConfig(
        routes={"best": ("newapi/first", "gemini/gemini-3.8-flash")},
        prices=PriceListConfig(
            date(2026, 11, 28), "USD", (PriceConfig(("gemini/gemini-*",), 1000, 2000),)
        ),
    )
    settings = {"USAGE_DAYS": 90, "DATA_DIR": tmp_path, "PROXY_API_KEYS": "key-of-anna"}
    async with running_relay(file=file, **settings, ADMIN_KEY="key-of-the-admin") as relay:
        headers = {"authorization": "Bearer key-of-anna"}
        refusal = document({"error": {"message": "No.", "code": "c"}}, 500)
        relay.upstream.play(refusal, stream("Hi", usage=True), refusal)
        assert (await relay.ask(gpt("Hello", model="best"), **headers)).content == "Hi"
        assert (await relay.ask(gpt("Hello", stream=False), **headers)).status == 500

        async def usage(query: str, status: int = 200, **more: str) -> Reply:
            connection = await relay.connect()
            admin = {"authorization": "Bearer key-of-the-admin"} | more
            connection.send("GET", f"/admin/usage?{query}", **admin)
            reply = await connection.reply()
            assert reply.status == status
            return reply

        await until(lambda: len(ids_in(tmp_path)) == 2, "the rows are written")
        by_model = (await usage("by=upstream,model,account&from=24h")).json
        facts = ("upstream", "model", "account", "requests", "errors", "input_tokens", "cost")
        assert [tuple(line[name] for name in facts) for line in by_model["rows"]] == [
            ("gemini", "gemini-3.8-flash", "key-1", 1, 0, 9, 0.013),
            ("newapi", "gpt-x", "key-1", 1, 1, 0, 0),
        ]
        assert by_model["rows"][0]["retries"] == 1
        assert (by_model["currency"], by_model["prices_as_of"]) == ("USD", "2026-11-28")
        assert by_model["total"]["requests"] == 2
        for query, more in (("by=day&format=csv", {}), ("by=day", {"accept": "text/csv"})):
            reply = await usage(query, **more)
            assert reply.headers["content-type"].startswith("text/csv")
            assert reply.body.decode().splitlines()[1].split(",")[1:3] == ["2", "1"]
        assert (await usage("by=nobody", 400)).error["param"] == "by"
        assert (await usage("", 401, authorization="Bearer key-of-anna")).error
        metrics = await (await relay.send("GET", "/metrics", **headers)).reply()
        labels = b'{account="key-1",currency="USD",model="gemini-3.8-flash"}'
        assert b"gemproxy_cost_total" + labels + b" 0.013" in metrics.body
        assert b"gemproxy_prices_as_of_seconds 1.795824e+09" in metrics.body


@ensureDeferred
async def test_what_passes_and_what_is_refused_has_a_row(tmp_path: Path):
    async with running_relay(USAGE_DAYS=90, DATA_DIR=tmp_path) as relay:
        embeddings = document({"data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}})
        bad = document({"error": {"message": "No."}}, 400)
        relay.upstream.play(embeddings, document({"data": []}), bad, hang())

        async def ask(method: str, path: str, body: Any = None, **headers: str) -> int:
            return (await (await relay.send(method, path, body, **headers)).reply()).status

        asked = {"model": "e", "input": "x"}
        assert await ask("POST", "/v1/embeddings", asked, Accept_Encoding="gzip") == 200
        assert relay.upstream.calls[0].all_headers("accept-encoding") == ["identity"]
        assert await ask("GET", "/v1/files") == 200
        assert await ask("POST", "/v1/embeddings", asked) == 400
        assert await ask("POST", "/v1/chat/completions", b"{") == 400
        # Nobody is told of these.
        assert await ask("POST", "/admin/nothing") == 404
        assert await ask("GET", "/v1") == 404
        gone = await relay.send("POST", "/v1/embeddings", asked)
        await until(lambda: len(relay.upstream.calls) == 4, "the upstream is asked")
        gone.drop()
        await until(lambda: len(ids_in(tmp_path)) == 5, "the rows are written")
        with closing(sqlite3.connect(tmp_path / FILE)) as connection:
            rows = connection.execute(
                "SELECT upstream, model, status, input, first_token IS NULL FROM request"
            ).fetchall()
        assert rows == [
            ("newapi", "e", 200, 7, 0),
            ("newapi", "", 200, None, 0),
            ("newapi", "e", 400, None, 1),
            ("", "", 400, None, 1),
            ("newapi", "e", 499, None, 1),
        ]


@pytest.mark.slow
@ensureDeferred
async def test_a_daemon_that_is_killed_loses_a_second_at_most(tmp_path: Path):
    upstream, client = FakeNewApi(), Client(free_port())
    upstream.always(stream("Hi"))
    environ = {
        "PATH": os.environ["PATH"],
        "GEMINI_PROXY_URL": upstream.url,
        "UPSTREAM_URL": upstream.url,
        "PORT": "off",
        "STREAM_PORT": str(client.port),
        "LOG_DIR": "",
    }
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "gemproxy"]
    running = Running.start(command, tmp_path, environ)
    try:
        await until(lambda: "is running" in running.last_words(), "the daemon runs")
        folder, answered = tmp_path / "data", dict[str, float]()
        while not (kept := ids_in(folder)) or len(answered) < len(kept) + 5:
            reply = await client.ask(gpt("Hello"))
            answered[reply.headers["x-request-id"]] = reactor.seconds()
        os.kill(running.pid, signal.SIGKILL)
        killed = reactor.seconds()
        running.process.wait()
    finally:
        running.stop()
        client.drop_all()
        await upstream.stop()
    kept = ids_in(folder)
    lost = [when for id, when in answered.items() if id not in kept]
    # The last one may be written and not be answered. A busy machine is given more time.
    assert lost and kept[: len(answered)] == [*answered][: len(kept)]
    assert killed - min(lost) < 3 * WRITE_DELAY
