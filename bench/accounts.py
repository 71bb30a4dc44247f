"""
What accounts cost a request: daemons without keys, with an account, with all its limits, and with
those shared by a Redis server.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bench import dialects
from bench.load import CLIENT_KEY
from gemproxy.accounts.file import FILE, AccountsFile
from gemproxy.accounts.known_keys import key_digest
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
SHARED = "with all limits, shared"
KINDS: dict[str, dict[str, Any] | None] = {
    "no keys": None,
    "an account": {},
    "with all limits": _LIMITS,
    SHARED: _LIMITS,
}


@contextmanager
def server(folder: Path) -> Iterator[tuple[Running, str] | None]:
    """A Redis server and its URL; None where there is none to be had."""
    program, socket = shutil.which("redis-server"), folder / "redis.sock"
    if program is None:
        yield None
        return
    command = [program, "--port", "0", "--unixsocket", str(socket), "--save", ""]
    running = Running.start(command, folder)
    try:
        yield running, f"unix://{socket}"
    finally:
        running.stop()


def start(
    folder: Path, upstream: int, limits: dict[str, Any] | None, state_url: str | None = None
) -> tuple[Running, int]:
    """
    A daemon, and its port.

    @param limits: of the account whose key the clients show; None for no accounts.
    @param state_url: of the server that shares them; None for none.
    """
    data = folder / "data"
    if limits is not None:
        file = AccountsFile(data / FILE)
        file.add("bench", limits_of_json(limits), 0.0)
        file.close()
        with closing(sqlite3.connect(data / FILE)) as connection, connection:
            connection.execute("UPDATE account SET digest = ?", (key_digest(CLIENT_KEY),))
    environ = {} if state_url is None else {"STATE_URL": state_url}
    return dialects.start(folder, upstream, environ=environ, data_dir=data, usage_days=0)
