"""What accounts cost a request: daemons without keys, with an account, and with all its limits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import dialects
from bench.load import CLIENT_KEY
from gemproxy.accounts.file import FILE, AccountsFile
from gemproxy.accounts.known_keys import digest_of
from gemproxy.accounts.records import limits_of_json
from testing.processes import Running

# Those that no answer reaches.
_LIMITS = {
    "models": ["gpt-*", "*-*"],
    "requests_per_minute": 10**9,
    "tokens_per_minute": 10**12,
    "concurrent": 1000,
    "budgets": ["100000M tokens/day", "1000000USD/month"],
}
KINDS: dict[str, dict[str, Any] | None] = {
    "no keys": None,
    "an account": {},
    "with all limits": _LIMITS,
}


def start(folder: Path, upstream: int, limits: dict[str, Any] | None) -> tuple[Running, int]:
    """
    A daemon, and its port.

    @param limits: of the account whose key the clients show; None for no accounts.
    """
    data = folder / "data"
    if limits is not None:
        file = AccountsFile(data / FILE)
        file.add("bench", limits_of_json(limits), 0.0)
        file.close()
        with closing(sqlite3.connect(data / FILE)) as connection, connection:
            connection.execute("UPDATE account SET digest = ?", (digest_of(CLIENT_KEY),))
    return dialects.start(folder, upstream, data_dir=data, usage_days=0)
