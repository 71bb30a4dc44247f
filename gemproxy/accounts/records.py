"""Accounts as they are kept and shown: as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import evolve, frozen

from gemproxy.accounts.account import (
    NO_LIMITS,
    Account,
    AccountLimits,
    checked_patterns,
)
from gemproxy.accounts.budget import budget_of, checked_budgets

# Larger ones are the same as none.
_MOST = 10**12
_AMOUNTS = ("requests_per_minute", "tokens_per_minute", "concurrent")
_FIELDS = ("models", *_AMOUNTS, "budgets", "expires", "on")

Json = dict[str, Any]


@frozen
class Record:
    """
    An account with what is known of its key.

    @ivar digest: of its key, see L{key_digest}; None if it was revoked.
    @ivar hint: the last characters of its key, by which people know which it is.
    @ivar created: in seconds since the epoch; likewise C{revoked}, which is None if it was not.
    """

    account: Account
    digest: bytes | None
    hint: str
    created: float
    revoked: float | None = None

    def as_json(self) -> Json:
        """What those see who run the daemon."""
        return {
            "name": self.account.name,
            "key": f"...{self.hint}",
            "created": self.created,
            "revoked": self.revoked,
            **limits_as_json(self.account.limits),
        }


def limits_as_json(limits: AccountLimits) -> Json:
    return {
        "models": list(limits.models),
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "concurrent": limits.concurrent,
        "budgets": [str(budget) for budget in limits.budgets],
        "expires": limits.expires,
        "on": limits.is_on,
    }


def limits_of_json(document: Mapping[str, Any], before: AccountLimits = NO_LIMITS) -> AccountLimits:
    """
    Limits as L{limits_as_json} makes them, and people.

    @param document: what is not in it stays as it was.
    @raise ValueError: something in it is wrong; the message says what.
    """
    unknown = document.keys() - _FIELDS
    if unknown:
        raise ValueError(
            f"'{min(unknown)[:100]}' is no limit of an account; there are {', '.join(_FIELDS)}."
        )
    changed: Json = {name: _amount(name, document[name]) for name in _AMOUNTS if name in document}
    if "models" in document:
        changed["models"] = checked_patterns(_texts("models", document["models"]))
    if "budgets" in document:
        changed["budgets"] = checked_budgets(
            [budget_of(text) for text in _texts("budgets", document["budgets"])]
        )
    if "expires" in document:
        changed["expires"] = _time(document["expires"])
    if "on" in document:
        if not isinstance(document["on"], bool):
            raise ValueError("'on' must be true or false.")
        changed["is_on"] = document["on"]
    return evolve(before, **changed)


def notes_on(limits: AccountLimits, currency: str | None) -> list[str]:
    """
    What is to be known of limits that do not limit, in a sentence each.

    @param currency: that of the prices; None if there are none.
    """
    units = {budget.unit for budget in limits.budgets if budget.is_money}
    if units and currency is None:
        return [
            "The configuration file has no prices, so that a budget of money is never used up:"
            " 'gemproxy example' shows some."
        ]
    return [
        f"The prices are in {currency}: a budget of {unit} is compared with them as it is."
        for unit in sorted(units - {currency})
    ]


def _amount(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= _MOST:
        raise ValueError(f"'{name}' must be a whole number from 1, or null for no limit.")
    return value


def _texts(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"'{name}' must be a list of texts.")
    return value


def _time(value: Any) -> float | None:
    if value is None:
        return None
    time = None
    try:
        if isinstance(value, str):
            date = datetime.fromisoformat(value)
            time = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            time = float(value)
        if time is not None:
            # It is shown as a date, of which there are none beyond the year 9999.
            datetime.fromtimestamp(time, UTC)
            return time
    except (ValueError, OverflowError, OSError):
        pass
    raise ValueError(
        "'expires' must be a date such as 2027-01-31 (UTC), seconds since the epoch, or null."
    )
