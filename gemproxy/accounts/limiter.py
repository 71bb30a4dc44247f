"""Whether an account may ask now, by its limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from attrs import define, frozen
from twisted.internet.defer import Deferred, fail, succeed

from gemproxy.accounts.account import Account
from gemproxy.accounts.budget import Budget, Spent, next_period
from gemproxy.accounts.ledger import Ledger
from gemproxy.accounts.rate import Rate
from gemproxy.accounts.refusals import budget_used_up, rate_exceeded, too_many_at_once
from gemproxy.chat.errors import ChatError

Headers = list[tuple[str, str]]


@frozen(eq=False)
class Permit:
    """The right to be answered; one of so many at once. It ends with the request."""

    release: Callable[[], None]


class Limiter(Protocol):
    """
    Keeps accounts within their limits. Several daemons may share one: so it answers when it can.
    """

    def begin(self, account: Account) -> Deferred[Permit]:
        """
        A request of an account begins, and counts.

        @return: fails with a L{ChatError}: 429, a limit is reached.
        """

    def charge(self, name: str, spent: Spent) -> None:
        """The tokens and the cost of an account's request are known."""

    def headers(self, account: Account) -> Headers:
        """What an answer says of the limits, as OpenAI's do; as far as it is known at once."""

    def keep_only(self, names: set[str]) -> None:
        """Forget all accounts but these."""


@define
class _State:
    """What is under way, and was of late, by the limits of now."""

    account: Account
    requests: Rate | None
    tokens: Rate | None
    under_way: int = 0


class LocalLimiter:
    """The limits of this daemon's requests alone. What was spent is everybody's."""

    def __init__(
        self, ledger: Ledger, now: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        """
        @param now: the time on a monotonic clock, in seconds.
        @param wall_clock: in seconds since the epoch.
        """
        self._ledger = ledger
        self._now = now
        self._wall_clock = wall_clock
        self._states: dict[str, _State] = {}

    def begin(self, account: Account) -> Deferred[Permit]:
        state = self._state_of(account)
        error = self._refusal(account, state)
        return succeed(self.count(account)) if error is None else fail(error)

    def count(self, account: Account) -> Permit:
        """A request begins, whether its limits allow it or not."""
        state = self._state_of(account)
        if state.requests is not None:
            state.requests.take(self._now())
        state.under_way += 1

        def release() -> None:
            state.under_way -= 1

        return Permit(release)

    def charge(self, name: str, spent: Spent) -> None:
        self._ledger.charge(name, spent, self._wall_clock())
        state = self._states.get(name)
        if state is not None and state.tokens is not None:
            state.tokens.take(self._now(), spent.tokens)

    def headers(self, account: Account) -> Headers:
        state, now = self._state_of(account), self._now()
        headers: Headers = []
        for what, rate in (("requests", state.requests), ("tokens", state.tokens)):
            if rate is not None:
                headers += [
                    (f"x-ratelimit-limit-{what}", str(rate.limit)),
                    (f"x-ratelimit-remaining-{what}", str(rate.left(now))),
                    (f"x-ratelimit-reset-{what}", shown_time(rate.reset(now))),
                ]
        return headers

    def find(self, name: str) -> Account | None:
        """An account that has asked; None if it has not."""
        state = self._states.get(name)
        return None if state is None else state.account

    def resets(self, account: Account) -> tuple[float, float]:
        """Seconds until all requests and all tokens of a minute are there."""
        state, now = self._state_of(account), self._now()
        requests, tokens = state.requests, state.tokens
        return (
            0.0 if requests is None else requests.reset(now),
            0.0 if tokens is None else tokens.reset(now),
        )

    def follow(self, account: Account, requests: float, tokens: float) -> None:
        """Somebody else knows how many seconds that is."""
        state, now = self._state_of(account), self._now()
        for rate, reset in ((state.requests, requests), (state.tokens, tokens)):
            if rate is not None:
                rate.full_at = now + reset

    def keep_only(self, names: set[str]) -> None:
        """Forget all accounts but these."""
        self._states = {name: one for name, one in self._states.items() if name in names}

    def _state_of(self, account: Account) -> _State:
        state = self._states.get(account.name)
        if state is None:
            state = self._states[account.name] = _State(account, None, None)
            _follow(state, account)
        elif state.account is not account:
            _follow(state, account)
        return state

    def _refusal(self, account: Account, state: _State) -> ChatError | None:
        limits, now = account.limits, self._now()
        if limits.concurrent is not None and state.under_way >= limits.concurrent:
            return too_many_at_once(account.name, limits.concurrent)
        for what, rate in (("requests", state.requests), ("tokens", state.tokens)):
            if rate is not None and (wait := rate.wait(now)) > 0:
                return rate_exceeded(account.name, what, rate.limit, wait)
        today = self._wall_clock()
        for budget in limits.budgets:
            if budget.of(self._ledger.spent(account.name, budget.period, today)) >= budget.amount:
                return used_up(account.name, budget, today)
        return None


def _follow(state: _State, account: Account) -> None:
    """Have other limits; a changed one begins with a full minute."""
    state.account = account
    state.requests = _rate(state.requests, account.limits.requests_per_minute)
    state.tokens = _rate(state.tokens, account.limits.tokens_per_minute)


def _rate(rate: Rate | None, limit: int | None) -> Rate | None:
    if limit is None:
        return None
    return rate if rate is not None and rate.limit == limit else Rate(limit)


def used_up(name: str, budget: Budget, now: float) -> ChatError:
    """@param now: in seconds since the epoch."""
    ends = next_period(budget.period, now)
    return budget_used_up(name, str(budget), ends, ends.timestamp() - now)


def shown_time(seconds: float) -> str:
    """A time as OpenAI's headers have it, and Go: C{120ms}, C{1.5s}, C{6m0s}."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms" if seconds > 0 else "0s"
    tenths = math.ceil(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    shown = f"{tenths / 10:g}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{shown}" if hours else f"{minutes}m{shown}" if minutes else shown
