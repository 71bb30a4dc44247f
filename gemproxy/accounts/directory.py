"""The accounts of a running daemon, which knows of changes within a second."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from time import time
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from gemproxy.accounts.account import Account
from gemproxy.accounts.budget import PERIODS, Spent, period_at
from gemproxy.accounts.file import AccountsFile, News
from gemproxy.accounts.known_keys import KnownKeys, key_digest
from gemproxy.accounts.ledger import Ledger
from gemproxy.accounts.limiter import Limiter, LocalLimiter
from gemproxy.accounts.records import Record
from gemproxy.accounts.shared_limiter import SharedLimiter
from gemproxy.state.shared import SharedState
from gemproxy.util.log import make_logger

# Seconds between two looks at the file, and what a daemon that is killed loses of what was spent.
_INTERVAL = 1.0
# Seconds that the disk has when the daemon stops.
_STOP_PATIENCE = 10.0


class Directory(Service):
    """
    Knows whose a key is, and how much of its limits is left.

    @ivar limiter: keeps the accounts within their limits.
    @ivar records: the accounts in the file, also those that were revoked.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        in_thread: Callable[..., Awaitable[Any]],
        file: AccountsFile,
        numbered: Mapping[str, Account],
        state: SharedState | None = None,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        """
        @param in_thread: calls a function in a thread, one at a time.
        @param numbered: the accounts of keys that are known without the file.
        @param state: what this daemon shares with others; None if it is alone.
        @param wall_clock: in seconds since the epoch.
        """
        self._clock = clock
        self._in_thread = in_thread
        self._file = file
        self._numbered = {key_digest(key): account for key, account in numbered.items()}
        self._wall_clock = wall_clock
        self._ledger = Ledger()
        local = LocalLimiter(self._ledger, clock.seconds, wall_clock)
        self.limiter: Limiter = local
        if state is not None:
            self.limiter = SharedLimiter(local, self._ledger, state, clock, wall_clock)
        self.records: Sequence[Record] = ()
        self._known = KnownKeys(self._numbered)
        self._names: frozenset[str] = frozenset()
        # What is being written is in one hand at a time.
        self._lock = DeferredLock()
        self._loop = LoopingCall(self.look)
        self._loop.clock = clock
        self._is_bad = False

    @property
    def are_needed(self) -> bool:
        """Whether a client needs an account: once there is any, even if it was revoked."""
        return bool(self._numbered or self.records)

    def find(self, keys: Iterable[str]) -> Account | None:
        """The account that one of these keys is of; None if none is known."""
        return self._known.find(keys)

    def numbered(self) -> list[Account]:
        """Those without a record."""
        return list(self._numbered.values())

    def charge(self, name: str, tokens: int, cost: float) -> None:
        """
        What a request took is known. Accounts without a record have nothing to be charged.

        @param cost: 0 if it is not known.
        """
        if name in self._names:
            self.limiter.charge(name, Spent(1, tokens, cost))

    def startService(self) -> None:
        """@raise OSError: there is a file, and it cannot be read."""
        try:
            self._learn(self._file.refresh({}, self._periods()))
        except (sqlite3.Error, OSError, ValueError) as error:
            raise OSError(f"The accounts cannot be read (DATA_DIR): {error}.") from None
        super().startService()
        self._loop.start(_INTERVAL, now=False).addErrback(
            lambda failure: self.log.failure("accounts are not followed any more", failure)
        )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        closing = Deferred.fromCoroutine(self._close())
        return closing.addTimeout(_STOP_PATIENCE, self._clock).addErrback(self._give_up)

    async def _close(self) -> None:
        await self.look()
        await self._in_thread(self._file.close)

    def _give_up(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self.log.warn("the disk does not answer: what was spent last is lost")

    async def change(self, work: Callable[..., Any], *args: Any) -> Any:
        """
        Have a method of the file called. What it has changed is known then.

        @raise Exception: whatever it raises.
        """
        result = await self._in_thread(work, *args)
        await self.look()
        return result

    async def look(self) -> None:
        """Write down what was spent, and look what has changed."""
        await self._lock.acquire()
        try:
            await self._exchange_news()
        finally:
            self._lock.release()

    async def _exchange_news(self) -> None:
        spent = self._ledger.take()
        try:
            self._learn(await self._in_thread(self._file.refresh, spent, self._periods()))
        except CancelledError:
            raise
        except Exception as error:
            self._ledger.put_back()
            if not self._is_bad:
                self._is_bad = True
                self.log.warn(
                    "the accounts stay as they were, and what is spent is not written down:"
                    " {error}",
                    error=error,
                )
        else:
            self._is_bad = False

    def _periods(self) -> list[str]:
        now = self._wall_clock()
        return [period_at(period, now) for period in PERIODS]

    def _learn(self, news: News | None) -> None:
        self._ledger.written(None if news is None else news.spent)
        if news is None or news.records is None:
            return
        was_needed, self.records = self.are_needed, news.records
        if self.running and self.are_needed and not was_needed:
            self.log.info("clients need a key from now on: there is an account")
        self._names = frozenset(record.account.name for record in news.records)
        by_digest = {
            record.digest: record.account for record in news.records if record.digest is not None
        }
        self._known = KnownKeys(by_digest | self._numbered)
        self.limiter.keep_only({account.name for account in by_digest.values()})

    def spent(self, name: str) -> dict[str, Spent]:
        """What an account has spent, by the periods of now."""
        now = self._wall_clock()
        return {period: self._ledger.spent(name, period, now) for period in PERIODS}
