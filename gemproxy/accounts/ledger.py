"""What accounts have spent in the day and in the month. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gemproxy.accounts.budget import NOTHING, PERIODS, Spent, period_at

Key = tuple[str, str]
"""The name of an account, and a period such as C{2026-11-28} or C{2026-11}."""

# Of those that cannot be written; further ones are only known until the daemon ends.
_MOST_PENDING = 10_000


class Ledger:
    """
    Adds up what is spent, and has it written down by somebody else. What is written is the sum of
    all daemons that share the file, as of a moment ago. Somebody else may know more.
    """

    def __init__(self) -> None:
        self._written: dict[Key, Spent] = {}
        self._pending: dict[Key, Spent] = {}
        self._in_hand: dict[Key, Spent] = {}
        # By the names of accounts and the kinds of periods: which one, and what others say of it.
        self._told: dict[Key, tuple[str, Spent]] = {}

    def charge(self, name: str, spent: Spent, now: float) -> None:
        """@param now: in seconds since the epoch."""
        for period in PERIODS:
            key = (name, period_at(period, now))
            told = self._told.get((name, period))
            if told is not None and told[0] == key[1]:
                self._told[name, period] = (key[1], told[1] + spent)
            if key in self._pending or len(self._pending) < _MOST_PENDING:
                self._pending[key] = self._pending.get(key, NOTHING) + spent

    def spent(self, name: str, period: str, now: float) -> Spent:
        """@param period: C{day} or C{month}."""
        key = (name, period_at(period, now))
        spent = self._written.get(key, NOTHING)
        for more in (self._pending.get(key), self._in_hand.get(key)):
            if more is not None:
                spent += more
        told = self._told.get((name, period))
        return spent if told is None or told[0] != key[1] else spent.at_least(told[1])

    def learn(self, name: str, period: str, now: float, spent: Spent) -> None:
        """
        What all have spent, also those who share no file.

        @param period: C{day} or C{month}.
        """
        self._told[name, period] = (period_at(period, now), spent)

    def take(self) -> Mapping[Key, Spent]:
        """What is to be written; L{written} or L{put_back} says what became of it."""
        self._in_hand, self._pending = self._pending, {}
        return self._in_hand

    def put_back(self) -> None:
        """It could not be written."""
        for key, spent in self._in_hand.items():
            self._pending[key] = self._pending.get(key, NOTHING) + spent
        self._in_hand = {}

    def written(self, sums: Mapping[Key, Spent] | None) -> None:
        """@param sums: of the periods of now; None if they are as they were."""
        self._in_hand = {}
        if sums is not None:
            self._written = dict(sums)
