"""Budgets: what an account may spend in a day or a month. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from attrs import frozen

TOKENS = "tokens"
PERIODS = ("day", "month")
_DAY = 86400

_WRITTEN = re.compile(
    r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([kM]?)\s*(tokens?|[A-Z]{3})\s*/\s*(day|month)\s*"
)
# Larger ones are the same as none.
_MOST = 1e11
_FACTORS = {"": 1, "k": 1_000, "M": 1_000_000}


@frozen
class Spent:
    """
    What was spent.

    @ivar cost: in the currency of the prices, as far as they are known.
    """

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests, self.tokens + other.tokens, self.cost + other.cost
        )

    def __neg__(self) -> Spent:
        return Spent(-self.requests, -self.tokens, -self.cost)

    def at_least(self, other: Spent) -> Spent:
        """The larger of each."""
        return Spent(
            max(self.requests, other.requests),
            max(self.tokens, other.tokens),
            max(self.cost, other.cost),
        )


NOTHING = Spent()


@frozen
class Budget:
    """
    @ivar amount: of the unit, in each period.
    @ivar unit: L{TOKENS}, or a currency such as C{USD}.
    @ivar period: C{day} or C{month}, in UTC.
    """

    amount: float
    unit: str
    period: str

    def __str__(self) -> str:
        return f"{_shown(self.amount)}{'' if self.is_money else ' '}{self.unit}/{self.period}"

    @property
    def is_money(self) -> bool:
        return self.unit != TOKENS

    def of(self, spent: Spent) -> float:
        """What counts of what was spent."""
        return spent.cost if self.is_money else spent.tokens


def budget_of(text: str) -> Budget:
    """
    A budget as people write it: C{5USD/month}, C{200k tokens/day}.

    @raise ValueError: it is none.
    """
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise ValueError(
            f"'{text[:100]}' is no budget: an amount with tokens or a currency, a day or a month,"
            " such as 5USD/month or 200k tokens/day."
        )
    amount, factor, unit, period = match.groups()
    unit = TOKENS if unit.startswith("token") else unit
    return Budget(min(float(amount) * _FACTORS[factor], _MOST), unit, period)


def checked_budgets(budgets: list[Budget]) -> tuple[Budget, ...]:
    """@raise ValueError: there are two of a kind."""
    kinds = [(budget.unit, budget.period) for budget in budgets]
    if len(set(kinds)) < len(kinds):
        raise ValueError("There may be one budget for each unit and period.")
    return tuple(budgets)


def period_at(period: str, now: float) -> str:
    """
    The name of a day or month, such as C{2026-11-28} or C{2026-11}.

    @param now: in seconds since the epoch.
    """
    return _names_of(int(now // _DAY))[period]


@lru_cache(4)
def _names_of(number: int) -> dict[str, str]:
    """
    The names of the periods of a day, which each request asks for.

    @param number: of the day since the epoch.
    """
    day = datetime.fromtimestamp(number * _DAY, UTC)
    return {"day": f"{day:%Y-%m-%d}", "month": f"{day:%Y-%m}"}


def next_period(period: str, now: float) -> datetime:
    """When the next one begins."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return today + timedelta(days=1)
    return (today.replace(day=1) + timedelta(days=32)).replace(day=1)


def _shown(amount: float) -> str:
    return f"{amount:.6f}".rstrip("0").rstrip(".")
