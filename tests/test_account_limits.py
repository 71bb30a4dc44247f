"""What accounts may do: the pure parts, and the file in which they are kept."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from gemproxy.accounts.account import Account, AccountLimits
from gemproxy.accounts.budget import Budget, Spent, budget_of, next_period, period_at
from gemproxy.accounts.file import KEY_PREFIX, AccountExists, AccountsFile, NoSuchAccount
from gemproxy.accounts.known_keys import key_digest
from gemproxy.accounts.ledger import Ledger
from gemproxy.accounts.limiter import LocalLimiter, Permit, shown_time
from gemproxy.accounts.rate import Rate
from gemproxy.accounts.records import limits_as_json, limits_of_json, notes_on
from gemproxy.chat.errors import ChatError

DAY = datetime(2026, 11, 30, 23, 59, tzinfo=UTC).timestamp()


# Rates


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 3000)), max_size=30),
)
def test_there_are_never_more_than_the_limit_and_what_a_minute_brings(
    limit: int, steps: list[tuple[float, int]]
) -> None:
    rate, now, admitted, debt = Rate(limit), 1000.0, 0, 0
    for seconds, number in steps:
        now += seconds
        if rate.wait(now):
            # What is said of the wait is true.
            assert rate.wait(now + rate.wait(now) + 1e-6) == 0
            assert rate.left(now) == 0
            continue
        rate.take(now, number)
        admitted, debt = admitted + number, number - 1
        assert admitted - debt <= limit * (1 + (now - 1000) / 60) + 1
    assert rate.left(now + rate.reset(now)) == limit


def test_a_rate_gives_all_at_once_and_then_one_after_the_other() -> None:
    rate = Rate(3)
    for left in (3, 2, 1):
        assert (rate.wait(50), rate.left(50)) == (0, left)
        rate.take(50)
    assert rate.wait(50) == pytest.approx(20, abs=0.01)
    assert (rate.wait(70), rate.left(70), rate.reset(70)) == (0, 1, 40)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (0.0001, "1ms"), (0.12, "120ms"), (1, "1s"), (59.99, "1m0s"), (61.5, "1m1.5s")],
)
def test_times_are_written_as_openai_does(seconds: float, shown: str) -> None:
    assert shown_time(seconds) == shown


# Budgets


@given(
    st.floats(0, 1e11, allow_subnormal=False),
    st.sampled_from(["USD", "EUR", "tokens"]),
    st.sampled_from(["day", "month"]),
)
def test_a_budget_is_read_as_it_is_written(amount: float, unit: str, period: str) -> None:
    budget = Budget(round(amount, 6), unit, period)
    assert budget_of(str(budget)) == budget_of(str(budget_of(str(budget))))
    assert budget_of(str(budget)).amount == pytest.approx(budget.amount, abs=1e-5)


def test_periods_are_those_of_utc() -> None:
    assert (period_at("day", DAY), period_at("month", DAY)) == ("2026-11-30", "2026-11")
    assert next_period("day", DAY) == next_period("month", DAY) == datetime(2026, 12, 1, tzinfo=UTC)


def test_what_could_not_be_written_is_not_lost_and_does_not_count_twice() -> None:
    ledger = Ledger()
    ledger.charge("a", Spent(1, 10, 0.5), DAY)
    taken = dict(ledger.take())
    ledger.charge("a", Spent(1, 5, 0.25), DAY)
    assert ledger.spent("a", "month", DAY) == Spent(2, 15, 0.75)
    ledger.put_back()
    assert ledger.spent("a", "month", DAY) == Spent(2, 15, 0.75)
    assert taken == {("a", "2026-11-30"): Spent(1, 10, 0.5), ("a", "2026-11"): Spent(1, 10, 0.5)}
    sums = dict(ledger.take())
    ledger.written(sums)
    assert ledger.spent("a", "day", DAY) == Spent(2, 15, 0.75)
    # Others may have spent more.
    ledger.written({("a", "2026-11-30"): Spent(9, 9, 9.0)})
    assert ledger.spent("a", "day", DAY) == Spent(9, 9, 9.0)
    assert ledger.spent("a", "day", DAY + 60) == Spent()


# JSON


LIMITS = {
    "models": ["gpt-*"],
    "requests_per_minute": 5,
    "tokens_per_minute": None,
    "concurrent": 2,
    "budgets": ["5USD/month", "200000 tokens/day"],
    "expires": 1800000000.0,
    "on": False,
}


def test_limits_survive_json_and_keep_what_is_not_changed() -> None:
    limits = limits_of_json(LIMITS)
    assert limits_as_json(limits) == LIMITS
    changed = limits_of_json({"on": True, "budgets": None, "expires": "2027-01-31"}, limits)
    assert limits_as_json(changed) == LIMITS | {
        "on": True,
        "budgets": [],
        "expires": datetime(2027, 1, 31, tzinfo=UTC).timestamp(),
    }
    assert limits_of_json({"models": ["a", "*"]}).models == ()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"rpm": 5}, "'rpm' is no limit of an account; there are models, "),
        ({"concurrent": 0}, "'concurrent' must be a whole number from 1"),
        ({"concurrent": True}, "'concurrent' must be"),
        ({"models": "gpt-*"}, "'models' must be a list"),
        ({"models": ["a b"]}, "'a b' is no name of a model"),
        ({"budgets": ["5 USD"]}, "'5 USD' is no budget"),
        ({"budgets": ["-5USD/day"]}, "is no budget"),
        ({"budgets": ["1USD/day", "2USD/day"]}, "one budget for each unit and period"),
        ({"expires": "tomorrow"}, "'expires' must be a date"),
        ({"expires": 10**11 * 9}, "'expires' must be a date"),
        ({"expires": "9999-12-31T23:59-01:00"}, "'expires' must be a date"),
        ({"on": 1}, "'on' must be true or false"),
    ],
)
def test_wrong_limits_are_told(document: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        limits_of_json(document)


def test_a_budget_that_cannot_be_measured_is_told_of() -> None:
    limits = limits_of_json({"budgets": ["5EUR/day", "5 tokens/day"]})
    assert notes_on(limits, "EUR") == []
    assert "no prices" in notes_on(limits, None)[0]
    assert "in USD: a budget of EUR" in notes_on(limits, "USD")[0]
    assert notes_on(limits_of_json({"budgets": ["5 tokens/day"]}), None) == []


def test_patterns_are_for_whole_names() -> None:
    account = Account("a", AccountLimits(models=("gpt-4*", "gemini-2.5-flash")))
    for name, may in (
        ("gpt-4o", True),
        ("gpt-4", True),
        ("xgpt-4", False),
        ("gemini-2x5-flash", False),
        ("gemini-2.5-flash\n", False),
        ("", False),
    ):
        assert account.may_ask(name) == may, name
    assert account.may_ask("models/gemini-2.5-flash", "gemini-2.5-flash")
    assert Account("a").may_ask("")


# The limiter


class Limited:
    """An account with limits, and a clock that goes by hand."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.ledger = Ledger()
        self.limiter = LocalLimiter(self.ledger, self.clock.seconds, lambda: DAY + self.later())
        self.account = Account("a", limits_of_json(limits))

    def later(self) -> float:
        return self.clock.seconds()

    def begin(self) -> Permit | ChatError:
        results: list[Any] = []
        self.limiter.begin(self.account).addBoth(results.append)
        (result,) = results
        return result if isinstance(result, Permit) else result.value

    def refusal(self) -> tuple[int, str | None, float | None]:
        error = self.begin()
        assert isinstance(error, ChatError)
        return error.status, error.code, error.retry_after


def test_requests_at_once_are_counted_until_they_end() -> None:
    limited = Limited(concurrent=1)
    first = limited.begin()
    assert limited.refusal() == (429, "rate_limit_exceeded", 1)
    assert isinstance(first, Permit)
    first.release()
    assert isinstance(limited.begin(), Permit)
    assert limited.limiter.headers(limited.account) == []


def test_tokens_count_when_they_are_known() -> None:
    limited = Limited(tokens_per_minute=100, requests_per_minute=60)
    # Both run at once: nothing is known of either.
    assert isinstance(limited.begin(), Permit)
    assert isinstance(limited.begin(), Permit)
    limited.limiter.charge("a", Spent(1, 250))
    assert dict(limited.limiter.headers(limited.account)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "58",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "2m30s",
    }
    status, code, wait = limited.refusal()
    assert (status, code) == (429, "rate_limit_exceeded")
    assert wait == pytest.approx(90.6, abs=0.1)
    # What is refused counts no more.
    limited.clock.advance(91)
    assert isinstance(limited.begin(), Permit)


def test_a_budget_lasts_until_the_next_day() -> None:
    limited = Limited(budgets=["100 tokens/day", "5USD/month"])
    assert isinstance(limited.begin(), Permit)
    limited.limiter.charge("a", Spent(1, 99, 4.99))
    assert isinstance(limited.begin(), Permit)
    limited.limiter.charge("a", Spent(1, 500, 0.0))
    error = limited.begin()
    assert isinstance(error, ChatError)
    assert (error.status, error.type, error.code) == (429, *["insufficient_quota"] * 2)
    assert error.headers() == {"Retry-After": "60", "x-should-retry": "false"}
    assert "100 tokens/day" in error.message
    assert "2026-12-01" in error.message
    limited.clock.advance(60)
    assert isinstance(limited.begin(), Permit)
    limited.limiter.charge("a", Spent(1, 0, 5.0))
    assert limited.refusal()[1] == "insufficient_quota"


def test_a_changed_limit_begins_anew_and_what_is_under_way_still_counts() -> None:
    limited = Limited(requests_per_minute=1, concurrent=2)
    assert isinstance(limited.begin(), Permit)
    assert limited.refusal()[0] == 429
    limited.account = Account("a", limits_of_json({"requests_per_minute": 9, "concurrent": 1}))
    error = limited.begin()
    assert isinstance(error, ChatError)
    assert "under way" in error.message


# The file


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], AccountsFile]:
    """As different processes have it."""
    return lambda: AccountsFile(tmp_path / "data" / "accounts.sqlite3")


def test_the_file_has_no_keys_and_is_nobody_else_s(
    files: Callable[[], AccountsFile], tmp_path: Path
) -> None:
    file = files()
    assert (file.records(), file.exists) == ([], False)
    record, key = file.add("bob", limits_of_json(LIMITS), 5.0)
    assert key.startswith(KEY_PREFIX)
    assert len(key) > 50
    assert file.records() == [record]
    assert (record.digest, record.hint) == (key_digest(key), key[-4:])
    folder = tmp_path / "data"
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert key.encode() not in path.read_bytes()
    file.close()


def test_what_another_process_does_is_seen(files: Callable[[], AccountsFile]) -> None:
    daemon, command = files(), files()
    periods = ["2026-11", "2026-11-30"]
    assert daemon.refresh({}, periods) is None
    command.add("bob", limits_of_json({}), 5.0)
    news = daemon.refresh({}, periods)
    assert news is not None
    assert news.records is not None
    assert [record.account.name for record in news.records] == ["bob"]
    assert daemon.refresh({}, periods) is None
    # What it writes itself is no news.
    for number in (1, 2):
        news = daemon.refresh({("bob", "2026-11"): Spent(1, 10, 0.5)}, periods)
        assert news is not None
        assert (news.records, news.spent["bob", "2026-11"]) == (
            None,
            Spent(number, 10 * number, 0.5 * number),
        )
    # Another daemon has spent, too.
    command.refresh({("bob", "2026-11"): Spent(1, 1, 0.0)}, periods)
    news = daemon.refresh({}, periods)
    assert news is not None
    assert news.spent["bob", "2026-11"].tokens == 21
    # So the accounts are as they were.
    assert news.records is None
    command.change("bob", {"on": False})
    command.close()
    news = daemon.refresh({}, periods)
    assert news is not None
    assert news.records is not None
    assert not news.records[0].account.limits.is_on
    daemon.close()


def test_what_is_spent_is_not_written_twice_if_the_rest_cannot_be_read(
    files: Callable[[], AccountsFile], tmp_path: Path
) -> None:
    file, period = files(), "2026-11"
    file.add("bob", limits_of_json({}), 5.0)
    with sqlite3.connect(tmp_path / "data" / "accounts.sqlite3") as other:
        other.execute("""UPDATE account SET limits = '{"of a newer version": 1}'""")
    for _ in range(2):
        with pytest.raises(ValueError, match="newer version"):
            file.refresh({("bob", period): Spent(1, 1, 0.0)}, [period])
    assert file.spent([period]) == {}
    other.execute("UPDATE account SET limits = '{}'")
    other.commit()
    other.close()
    file.refresh({("bob", period): Spent(2, 2, 0.0)}, [period])
    assert file.spent([period]) == {("bob", period): Spent(2, 2, 0.0)}
    file.close()


def test_a_revoked_account_stays_without_its_key(files: Callable[[], AccountsFile]) -> None:
    file = files()
    _, first = file.add("bob", limits_of_json({}), 5.0)
    with pytest.raises(AccountExists):
        file.add("bob", limits_of_json({}), 6.0)
    file.revoke("bob", 7.0)
    (record,) = file.records()
    assert (record.digest, record.revoked) == (None, 7.0)
    for work in (lambda: file.revoke("bob", 8.0), lambda: file.change("bob", {})):
        with pytest.raises(NoSuchAccount):
            work()
    _, second = file.add("bob", limits_of_json({}), 9.0)
    assert first != second
    assert file.records()[0].digest == key_digest(second)
    for name in ("key-1", "", "a b", "x" * 65, "<script>", "-a"):
        with pytest.raises(ValueError, match="name"):
            file.add(name, limits_of_json({}), 1.0)
    file.close()


def test_a_file_that_was_removed_may_be_made_anew(
    files: Callable[[], AccountsFile], tmp_path: Path
) -> None:
    file, path = files(), tmp_path / "data" / "accounts.sqlite3"
    file.add("bob", limits_of_json({}), 5.0)
    assert file.refresh({}, ["2026-11"]) is not None
    path.unlink()
    # Nobody is let in because it is gone, see the directory.
    assert file.refresh({}, ["2026-11"]) is None
    with pytest.raises(FileNotFoundError):
        file.refresh({("bob", "2026-11"): Spent(1)}, ["2026-11"])
    command = files()
    command.add("eve", limits_of_json({}), 5.0)
    for one in (file, command, files()):
        assert [record.account.name for record in one.records()] == ["eve"]
        one.close()


def test_a_damaged_file_is_an_error(files: Callable[[], AccountsFile], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "accounts.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        files().refresh({}, ["2026-11"])
