"""An account: somebody who may use the proxy. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen


@frozen
class Account:
    """@ivar name: by which people know it, and which shows nothing of its key."""

    name: str


def accounts_of_keys(keys: Sequence[str]) -> dict[str, Account]:
    """
    The accounts of keys that are given without names: C{key-1}, C{key-2} and so on, so that a key
    that takes another's place in the setting is for the same account.
    """
    return {key: Account(f"key-{number}") for number, key in enumerate(keys, 1)}
