"""What is asked of the usage, and the answer as JSON, CSV and a table for people. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from gemproxy.chat.jsontext import dumps
from gemproxy.usage.row import BUCKETS, percentile, shown
from gemproxy.usage.tables import DAY, SUMS, Found

UNITS = ("minute", "hour", "day", "month")
NAMES = ("account", "model", "upstream")
FORMS = ("json", "csv", "text")
DEFAULT_DAYS = 30
MOST_LINES = 20_000
"""Lines of an answer; a question that has more is to be narrowed."""

# What people see, and the sums that it is.
_SHOWN = {
    "requests": "requests",
    "errors": "errors",
    "retries": "retries",
    "input_tokens": "input",
    "cached_tokens": "cached",
    "output_tokens": "output",
    "reasoning_tokens": "reasoning",
}
_ROUNDED_TO = 9
# Characters of a name in a terminal.
_WIDEST = 60
_AGO = re.compile(r"([0-9]{1,6})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": DAY}
_LAST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
# What spreadsheets take for the beginning of a formula (OWASP, CSV injection).
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


class BadQuestion(ValueError):
    """A question cannot be understood; the message says why."""

    def __init__(self, message: str, name: str) -> None:
        """@param name: that of the parameter that is wrong."""
        super().__init__(message)
        self.name = name


@frozen
class Question:
    """
    What is to be summed up.

    @ivar by: what each line is for, of UNITS and NAMES, with one of UNITS at most.
    @ivar start: the beginning of the time, in seconds since the epoch.
    @ivar end: its end, which is not in it.
    """

    by: tuple[str, ...]
    start: float
    end: float

    @property
    def is_of_days(self) -> bool:
        """Whether whole days are asked for, whose sums are kept for good."""
        if self.unit is None:
            return self.start % DAY == 0 and (self.end % DAY == 0 or self.end == _LAST)
        return self.unit in ("day", "month")

    @property
    def unit(self) -> str | None:
        """The unit of time of the lines; None if they are not divided by time."""
        return next((name for name in self.by if name in UNITS), None)


def question_of(parameters: Mapping[str, str], now: float) -> Question:
    """
    A question as a query has it.

    @param parameters: C{by}, C{from} and C{to}; each may be missing.
    @param now: in seconds since the epoch.
    @raise BadQuestion: one of them is invalid.
    """
    by = tuple(name.strip() for name in parameters.get("by", "").split(",") if name.strip())
    units = [name for name in by if name in UNITS]
    if len(units) > 1 or len(set(by)) < len(by) or not set(by) <= {*UNITS, *NAMES}:
        raise BadQuestion(
            f"'by' may have {', '.join(NAMES)}, and one of {', '.join(UNITS)}, comma separated.",
            "by",
        )
    start = _time_of(parameters.get("from") or f"{DEFAULT_DAYS}d", now, "from")
    end = _time_of(parameters["to"], now, "to") if parameters.get("to") else _LAST
    if units:
        start = _beginning(start, units[0])
    if end <= start:
        raise BadQuestion("'to' must be later than 'from'.", "to")
    return Question(by, start, end)


def _time_of(text: str, now: float, name: str) -> float:
    """
    A time, in seconds since the epoch: a day, a time of it, or the beginning of the last so many
    minutes, hours or days, of which the current one is the last.
    """
    if match := _AGO.fullmatch(text):
        seconds = _SECONDS[match[2]]
        return max(0.0, (now // seconds + 1 - int(match[1])) * seconds)
    try:
        # A "+" in a query is a space.
        time = datetime.fromisoformat(text.strip().replace(" ", "+"))
        return max(0.0, (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise BadQuestion(
            f"'{name}' must be a day such as 2026-11-28, a time such as 2026-11-28T14:00Z, or so"
            " many minutes, hours or days until now, such as 60m, 24h or 90d.",
            name,
        ) from None


def _beginning(time: float, unit: str) -> float:
    """That of the minute, hour, day or month that a time is in."""
    if unit == "month":
        return datetime.fromtimestamp(time, UTC).replace(day=1).timestamp() // DAY * DAY
    seconds = {"minute": 60, "hour": 3600, "day": DAY}[unit]
    return time // seconds * seconds


@frozen
class Line:
    """
    Sums of requests.

    @ivar key: what they are for, in the order of L{Question.by}; times in seconds since the epoch.
    @ivar sums: see L{SUMS}.
    @ivar buckets: the number of first tokens in each bucket.
    """

    key: Sequence[Any]
    sums: Sequence[float]
    buckets: Sequence[int]

    def __getitem__(self, name: str) -> float:
        return self.sums[SUMS.index(name)]

    @property
    def cost(self) -> float | None:
        """The cost of what has a price; None if nothing has."""
        cost = self["cost"]
        return None if not cost and self["unpriced"] else round(cost, _ROUNDED_TO)

    def facts(self) -> dict[str, Any]:
        requests = self["requests"]
        p50, p95 = (percentile(self.buckets, share) for share in (0.5, 0.95))
        return {
            **{name: int(self[key]) for name, key in _SHOWN.items()},
            "cost": self.cost,
            "unpriced_requests": int(self["unpriced"]),
            "first_token_p50": p50,
            "first_token_p95": p95,
            "mean_duration": round(self["duration"] / requests, 3) if requests else None,
        }


@frozen
class Report:
    """
    An answer.

    @ivar currency: that of the costs.
    @ivar as_of: the day of the prices; None if there are none.
    """

    question: Question
    lines: Sequence[Line]
    currency: str
    as_of: str | None

    def total(self) -> Line:
        """The sums of all lines."""
        sums, buckets = [0.0] * len(SUMS), [0] * BUCKETS
        for line in self.lines:
            sums = [a + b for a, b in zip(sums, line.sums, strict=True)]
            buckets = [a + b for a, b in zip(buckets, line.buckets, strict=True)]
        return Line((), sums, buckets)

    def rendered(self, form: str) -> bytes:
        """@param form: one of FORMS."""
        if form == "json":
            return dumps(self.as_json())
        return (self.as_csv() if form == "csv" else self.as_text()).encode("utf-8", "replace")

    def as_json(self) -> dict[str, Any]:
        question = self.question
        return {
            "from": _shown_time(question.start, "minute"),
            "to": None if question.end == _LAST else _shown_time(question.end, "minute"),
            "by": list(question.by),
            "currency": self.currency,
            "prices_as_of": self.as_of,
            "rows": [self._named(line) | line.facts() for line in self.lines],
            "total": self.total().facts(),
        }

    def as_csv(self) -> str:
        """With a line of names, and without what a spreadsheet would take for formulas."""
        text = io.StringIO()
        writer = csv.writer(text)
        names = [*self.question.by, *self.total().facts(), "currency", "prices_as_of"]
        writer.writerow(names)
        for line in self.lines:
            named = self._named(line) | line.facts()
            named |= {"currency": self.currency, "prices_as_of": self.as_of}
            writer.writerow([_cell(named[name]) for name in names])
        return text.getvalue()

    def as_text(self) -> str:
        """A table for a terminal, and what its costs go by."""
        head = ["requests", "errors", "tokens in", "cached", "tokens out", "thoughts", "cost"]
        rows = [[*self.question.by, *head, "first token, p50", "p95"]]
        rows += [
            [*(_word(value) for value in self._named(line).values()), *_numbers(line)]
            for line in self.lines
        ]
        if self.question.by:
            total = ["total", *[""] * (len(self.question.by) - 1)]
            rows.append([*total, *_numbers(self.total())])
        elif not self.lines:
            rows.append(_numbers(self.total()))
        text = _aligned(rows, len(self.question.by))
        return f"{text}\n{self._about_costs()}\n"

    def _about_costs(self) -> str:
        if self.as_of is None and not self.total().cost:
            return "There are no prices in the configuration file, and no costs without them."
        if self.as_of is None:
            return "Costs are those of the time of each request; there are no prices any more."
        unpriced = int(self.total()["unpriced"])
        missing = f"; requests without a price: {unpriced:,}" if unpriced else ""
        return f"Costs in {self.currency}, by the prices of {self.as_of}{missing}. Days are UTC's."

    def _named(self, line: Line) -> dict[str, Any]:
        """What a line is for, by the names of that."""
        return {
            name: _shown_time(value, name) if name in UNITS else value or None
            for name, value in zip(self.question.by, line.key, strict=True)
        }


def report_of(
    question: Question,
    found: Sequence[Found],
    currency: str,
    as_of: str | None,
) -> Report:
    """
    The answer to a question.

    @param found: what the tables say.
    @raise BadQuestion: these are too many lines.
    """
    if len(found) > MOST_LINES:
        raise BadQuestion(
            f"There are more than {MOST_LINES} lines: ask for less time, or divide it less.", "by"
        )
    return Report(question, [Line(*one) for one in found], currency, as_of)


def _shown_time(time: float, unit: str) -> str:
    moment = datetime.fromtimestamp(time, UTC)
    if unit == "month":
        return f"{moment:%Y-%m}"
    return f"{moment:%Y-%m-%d}" if unit == "day" else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return f"'{value}"
    return value


def _word(value: str | None) -> str:
    return "-" if value is None else shown(value, _WIDEST)


def _numbers(line: Line) -> list[str]:
    facts = line.facts()
    counts = [f"{facts[name]:,}" for name in ("requests", "errors", *list(_SHOWN)[3:])]
    cost = "-" if facts["cost"] is None else f"{facts['cost']:,.4f}"
    times = (facts["first_token_p50"], facts["first_token_p95"])
    return [*counts, cost, *("-" if time is None else f"{time:.2f} s" for time in times)]


def _aligned(rows: Sequence[Sequence[str]], words: int) -> str:
    """@param words: the number of columns, from the left, that are not numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)
