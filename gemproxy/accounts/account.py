"""An account: somebody who may use the proxy, and how much. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from attrs import frozen

from gemproxy.accounts.budget import Budget
from gemproxy.accounts.refusals import key_disabled, key_expired
from gemproxy.chat.errors import ChatError

# In the log a name is one word.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_NUMBERED = re.compile(r"key-[0-9]+")
_PATTERN = re.compile(r"[!-~]{1,200}")
_MOST_PATTERNS = 100


@frozen
class AccountLimits:
    """
    What an account may do; None for as much as it likes.

    @ivar models: patterns of names, with C{*}; empty for all models.
    @ivar concurrent: requests at once.
    @ivar expires: when its key ends, in seconds since the epoch.
    @ivar is_on: whether its key is taken.
    """

    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    budgets: tuple[Budget, ...] = ()
    expires: float | None = None
    is_on: bool = True

    @property
    def are_measured(self) -> bool:
        """Whether what is asked for has to be measured."""
        amounts = (self.requests_per_minute, self.tokens_per_minute, self.concurrent)
        return bool(self.budgets) or any(amount is not None for amount in amounts)


NO_LIMITS = AccountLimits()


@frozen
class Account:
    """@ivar name: by which people know it, and which shows nothing of its key."""

    name: str
    limits: AccountLimits = NO_LIMITS

    def refusal(self, now: float) -> ChatError | None:
        """
        Why its key is not taken; None if it is.

        @param now: in seconds since the epoch.
        """
        if not self.limits.is_on:
            return key_disabled(self.name)
        expires = self.limits.expires
        return key_expired(self.name) if expires is not None and expires <= now else None

    def may_ask(self, *names: str) -> bool:
        """@param names: of one model."""
        patterns = self.limits.models
        return not patterns or any(
            _compiled(pattern).fullmatch(name) for pattern in patterns for name in names
        )


@lru_cache(1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def accounts_of_keys(keys: Sequence[str]) -> dict[str, Account]:
    """
    The accounts of keys that are given without names: C{key-1}, C{key-2} and so on, so that a key
    that takes another's place in the setting is for the same account.
    """
    return {key: Account(f"key-{number}") for number, key in enumerate(keys, 1)}


def checked_name(name: str) -> str:
    """@raise ValueError: it is no name of an account."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"'{name[:100]}' is no name of an account: up to 64 letters, digits and any of ._@+-,"
            " of which the first is a letter or a digit."
        )
    if _NUMBERED.fullmatch(name):
        raise ValueError(f"'{name}' is a name of the keys in PROXY_API_KEYS.")
    return name


def checked_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """@raise ValueError: one of them is no pattern of names, or there are too many."""
    kept = tuple(dict.fromkeys(pattern.strip() for pattern in patterns))
    for pattern in kept:
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(f"'{pattern[:100]}' is no name of a model, with * for any characters.")
    if len(kept) > _MOST_PATTERNS:
        raise ValueError(f"There may be {_MOST_PATTERNS} patterns of models.")
    return () if "*" in kept else kept
