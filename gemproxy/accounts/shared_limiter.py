"""Keeps accounts within the limits that they have at several daemons together."""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from gemproxy.accounts.account import Account, AccountLimits
from gemproxy.accounts.budget import NOTHING, PERIODS, Spent, period_at
from gemproxy.accounts.ledger import Ledger
from gemproxy.accounts.limit_scripts import (
    BEGIN,
    BUDGETS,
    CHARGE,
    GRANTED,
    RELEASE,
    RENEW,
    REQUESTS,
    TOKENS,
    TOO_MANY_AT_ONCE,
)
from gemproxy.accounts.limiter import Headers, LocalLimiter, Permit, used_up
from gemproxy.accounts.refusals import rate_exceeded, too_many_at_once
from gemproxy.chat.errors import ChatError
from gemproxy.state.shared import SharedState, StateAway

_MICRO = 1_000_000
# Seconds for which a request counts of a daemon that is gone, and between two signs of life.
_LEASE = 60.0
_RENEWAL = 15.0
# Names in one command.
_MOST_NAMES = 500
# Requests that have ended while the server was away, of which it is told; others end by themselves.
_MOST_ENDED = 10_000

_Days = tuple[str, str]
"""The names of a day and of a month."""


@frozen
class _Taken:
    """
    What an account took of its limits.

    @ivar tokens: of the rate.
    """

    days: _Days
    requests: int = 0
    tokens: int = 0
    spent: Spent = NOTHING

    def __add__(self, other: _Taken) -> _Taken:
        return _Taken(
            self.days,
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.spent + other.spent,
        )

    def __neg__(self) -> _Taken:
        return _Taken(self.days, -self.requests, -self.tokens, -self.spent)


class SharedLimiter:
    """
    The limits of all daemons that ask the same server. Each request is one question. What the
    server says is what the local limiter goes by from then on; so that while it is away, that one
    carries on from there, for this daemon alone.
    """

    def __init__(
        self,
        local: LocalLimiter,
        ledger: Ledger,
        state: SharedState,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
    ) -> None:
        """@param wall_clock: in seconds since the epoch."""
        self._local = local
        self._ledger = ledger
        self._state = state
        self._wall_clock = wall_clock
        # By the names of accounts.
        self._leases: dict[str, set[str]] = {}
        # What the server was not told while it was away.
        self._owed: dict[tuple[str, _Days], _Taken] = {}
        # Names of accounts and leases that have ended, of which it was not told either.
        self._ended: deque[tuple[str, str]] = deque(maxlen=_MOST_ENDED)
        self._me, self._numbers = secrets.token_hex(8), count()
        self._renewing = LoopingCall(self._renew)
        self._renewing.clock = clock
        state.on_return.append(self._settle)

    def begin(self, account: Account) -> Deferred[Permit]:
        if self._state.is_away:
            return self._begin_here(account)
        name, limits = account.name, account.limits
        now = self._wall_clock()
        lease = self._new_lease()
        requests, tokens = self._local.resets(account)
        asked = self._state.run(
            BEGIN,
            [*_rates(account), _leases(name), *_sums(name, _days(now))],
            limits.requests_per_minute or 0,
            _micro(requests),
            limits.tokens_per_minute or 0,
            _micro(tokens),
            limits.concurrent or 0,
            lease,
            _micro(_LEASE),
            *self._known(name, now),
            *_budgets(limits),
            late=partial(self._was_late, account, lease),
        )
        return asked.addCallbacks(
            partial(self._begun, account, lease, now), partial(self._unanswered, account, lease)
        )

    def charge(self, name: str, spent: Spent) -> None:
        self._local.charge(name, spent)
        account = self._local.find(name)
        if account is not None and (
            account.limits.budgets or account.limits.tokens_per_minute is not None
        ):
            days = _days(self._wall_clock())
            self._tell(account, _Taken(days, 0, spent.tokens, spent))

    def headers(self, account: Account) -> Headers:
        return self._local.headers(account)

    def keep_only(self, names: set[str]) -> None:
        self._local.keep_only(names)
        self._owed = {key: one for key, one in self._owed.items() if key[0] in names}

    # A request begins

    def _begun(self, account: Account, lease: str, now: float, answer: Sequence[int]) -> Permit:
        verdict, wait, *known = answer
        if verdict != GRANTED:
            self._follow(account, now, known)
            raise _refusal(account, verdict, wait / _MICRO, now)
        permit = self._local.count(account)
        self._follow(account, now, known)
        return self._leased(account, permit, lease)

    def _unanswered(self, account: Account, lease: str, failure: Failure) -> Deferred[Permit]:
        failure.trap(StateAway)
        # It may be counted all the same.
        if account.limits.concurrent is not None:
            self._ended.append((account.name, lease))
        return self._begin_here(account)

    def _begin_here(self, account: Account) -> Deferred[Permit]:
        def begun(permit: Permit) -> Permit:
            if account.limits.requests_per_minute is not None:
                self._owe(account.name, _Taken(_days(self._wall_clock()), 1))
            return self._leased(account, permit, self._new_lease())

        return self._local.begin(account).addCallback(begun)

    def _was_late(self, account: Account, lease: str, answer: Sequence[int]) -> None:
        """It has been counted after all, and here as well by the name of another lease."""
        if answer[0] == GRANTED:
            self._owe(account.name, _Taken(_days(self._wall_clock()), -1))
            if account.limits.concurrent is not None:
                self._release(account.name, lease)

    # Requests at once

    def _new_lease(self) -> str:
        return f"{self._me}-{next(self._numbers)}"

    def _leased(self, account: Account, permit: Permit, lease: str) -> Permit:
        name = account.name
        if account.limits.concurrent is None:
            return permit
        self._leases.setdefault(name, set()).add(lease)
        if not self._renewing.running:
            self._renewing.start(_RENEWAL, now=False)

        def release() -> None:
            permit.release()
            self._leases[name].remove(lease)
            if not self._leases[name]:
                del self._leases[name]
            if not self._leases:
                self._renewing.stop()
            self._release(name, lease)

        return Permit(release)

    def _release(self, name: str, *leases: str) -> None:
        def untold(failure: Failure) -> None:
            failure.trap(StateAway)
            self._ended.extend((name, lease) for lease in leases)

        self._state.run(RELEASE, [_leases(name)], *leases).addErrback(untold)

    def _release_ended(self) -> None:
        ended: dict[str, list[str]] = {}
        for name, lease in self._ended:
            ended.setdefault(name, []).append(lease)
        self._ended.clear()
        for name, leases in ended.items():
            for some in _parts(leases):
                self._release(name, *some)

    def _renew(self) -> None:
        """Say that the requests under way still are."""
        for name, leases in self._leases.items():
            for some in _parts(leases):
                renewed = self._state.run(RENEW, [_leases(name)], _micro(_LEASE), *some)
                renewed.addErrback(StateAway.ignored)

    # What was taken

    def _tell(self, account: Account, taken: _Taken) -> None:
        name, limits = account.name, account.limits
        now = self._wall_clock()
        requests, tokens = self._local.resets(account)
        # What is known of other days is not of these.
        known = self._known(name, now) if taken.days == _days(now) else (0, 0, 0, 0)
        self._state.run(
            CHARGE,
            [*_rates(account), *_sums(name, taken.days)],
            limits.requests_per_minute or 0,
            _micro(requests),
            taken.requests,
            limits.tokens_per_minute or 0,
            _micro(tokens),
            taken.tokens,
            int(bool(limits.budgets)),
            *known,
            taken.spent.tokens,
            _micro(taken.spent.cost),
            late=lambda _: self._owe(name, -taken),
        ).addCallbacks(partial(self._told, account, taken), partial(self._untold, name, taken))

    def _told(self, account: Account, taken: _Taken, answer: Sequence[int]) -> None:
        now = self._wall_clock()
        if taken.days == _days(now):
            self._follow(account, now, answer)

    def _untold(self, name: str, taken: _Taken, failure: Failure) -> None:
        failure.trap(StateAway)
        self._owe(name, taken)

    def _owe(self, name: str, taken: _Taken) -> None:
        key = (name, taken.days)
        owed = self._owed.get(key)
        self._owed[key] = taken if owed is None else owed + taken

    def _settle(self) -> None:
        """The server is there: tell it what it has missed."""
        owed, self._owed = self._owed, {}
        for (name, _), taken in owed.items():
            account = self._local.find(name)
            if account is not None:
                self._tell(account, taken)
        self._release_ended()
        self._renew()

    # What is known here

    def _known(self, name: str, now: float) -> tuple[int, ...]:
        """Tokens and money of the day and of the month."""
        sums = (self._ledger.spent(name, period, now) for period in PERIODS)
        return tuple(number for one in sums for number in (one.tokens, _micro(one.cost)))

    def _follow(self, account: Account, now: float, answer: Sequence[int]) -> None:
        """@param answer: microseconds until all is there, and what L{_known} has."""
        requests, tokens, *sums = answer
        self._local.follow(account, requests / _MICRO, tokens / _MICRO)
        if account.limits.budgets:
            for index, period in enumerate(PERIODS):
                number, money = sums[2 * index : 2 * index + 2]
                self._ledger.learn(account.name, period, now, Spent(0, number, money / _MICRO))


def _refusal(account: Account, verdict: int, wait: float, now: float) -> ChatError:
    """@param wait: seconds until there is room in a rate."""
    name, limits = account.name, account.limits
    if verdict == TOO_MANY_AT_ONCE:
        return too_many_at_once(name, limits.concurrent or 0)
    if verdict == REQUESTS:
        return rate_exceeded(name, "requests", limits.requests_per_minute or 0, wait)
    if verdict == TOKENS:
        return rate_exceeded(name, "tokens", limits.tokens_per_minute or 0, wait)
    return used_up(name, limits.budgets[verdict - BUDGETS], now)


def _rates(account: Account) -> tuple[str, str]:
    # A limit that has changed begins anew, as it does for a single daemon.
    name, limits = account.name, account.limits
    return (
        f"requests:{name}:{limits.requests_per_minute or 0}",
        f"tokens:{name}:{limits.tokens_per_minute or 0}",
    )


def _leases(name: str) -> str:
    return f"leases:{name}"


def _parts(leases: Iterable[str]) -> Iterator[list[str]]:
    names = list(leases)
    return (names[start : start + _MOST_NAMES] for start in range(0, len(names), _MOST_NAMES))


def _sums(name: str, days: _Days) -> list[str]:
    return [f"spent:{name}:{day}" for day in days]


def _days(now: float) -> _Days:
    day, month = (period_at(period, now) for period in PERIODS)
    return day, month


def _budgets(limits: AccountLimits) -> list[int]:
    """For each, the number of its sum, and its amount."""
    return [
        number
        for budget in limits.budgets
        for number in (
            1 + 2 * PERIODS.index(budget.period) + budget.is_money,
            math.ceil(budget.amount * (_MICRO if budget.is_money else 1)),
        )
    ]


def _micro(number: float) -> int:
    return int(number * _MICRO)
