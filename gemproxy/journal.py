"""Stores the last requests and responses on disk."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import time
from typing import Any, Protocol

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gemproxy.chat.errors import ChatError
from gemproxy.chat.request import is_large
from gemproxy.exchange import Exchange
from gemproxy.journal_folder import JournalFolder
from gemproxy.offload.pool import Offload
from gemproxy.util.batches import Batches
from gemproxy.util.log import make_logger
from gemproxy.util.masking import Masking

# Exchanges are written in batches, because only the last ones of a burst are kept.
WRITE_DELAY = 0.25
# Seconds after which a disk that does not take them is tried again.
RETRY_DELAY = 5.0
# Errors that will not pass: something else has that name, or it is not one of a folder.
_NO_FOLDER = (
    errno.EEXIST,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
)
# Seconds that the disk has when the daemon stops.
STOP_PATIENCE = 10.0
# Of exchanges that wait for the disk.
MOST_BYTES = 64 * 1024 * 1024


class Journal(Protocol):
    """Records exchanges."""

    def begin(
        self,
        id: str,
        route: str,
        model: str,
        stream: bool,
        request: bytes,
        masking: Masking,
        account: str | None = None,
    ) -> Exchange:
        """
        Create the record of a new exchange; the caller fills it in.

        @param id: that of the request.
        @param account: the name of that which the client has; None if it has none.
        """

    def end(self, exchange: Exchange) -> None:
        """Record the end of an exchange, whatever its outcome."""


@frozen
class NoJournal:
    """A journal that discards all exchanges."""

    clock: IReactorTime
    wall_clock: Callable[[], float] = time

    def begin(
        self,
        id: str,
        route: str,
        model: str,
        stream: bool,
        request: bytes,
        masking: Masking,
        account: str | None = None,
    ) -> Exchange:
        now, began = self.wall_clock(), self.clock.seconds()
        return Exchange(id, now, began, route, model, stream, b"", masking, account)

    def end(self, exchange: Exchange) -> None:
        """Do nothing."""


@frozen
class _Written:
    """
    What became of a batch.

    @ivar left: what could not be written.
    @ivar error: why.
    @ivar unremovable: why old files could not be removed.
    @ivar failures: of exchanges that cannot be put into files, which is an error in gemproxy.
    """

    left: Sequence[Exchange]
    error: Exception | None
    unremovable: OSError | None
    failures: Sequence[Failure]


class DiskJournal(Service):
    """
    Keeps the last exchanges as pairs of numbered files.

    They are written in batches, by a thread. What cannot be written waits until it can be, as far
    as memory allows.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        in_thread: Callable[..., Awaitable[Any]],
        offload: Offload,
        folder: Path,
        keep: int,
        count_dropped: Callable[[], object] = lambda: None,
        wall_clock: Callable[[], float] = time,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """
        @param in_thread: calls a function in a thread.
        @param offload: renders large requests.
        @param count_dropped: called for each exchange that is lost.
        @param wall_clock: the time of requests, in seconds since the epoch.
        @param most_bytes: of exchanges that wait.
        """
        self._clock = clock
        self._in_thread = in_thread
        self._offload = offload
        self._path = folder
        self._folder = JournalFolder(folder, keep)
        self._keep = keep
        self._count_dropped = count_dropped
        self._wall_clock = wall_clock
        self._most_bytes = most_bytes
        self._pending: deque[Exchange] = deque()
        # Of those that wait, and of those that are being written.
        self._bytes = self._bytes_in_hand = 0
        self._batches = Batches(
            clock,
            self._write_pending,
            lambda: bool(self._pending and self.running),
            WRITE_DELAY,
            RETRY_DELAY,
        )
        self._complaints: set[str] = set()

    def startService(self) -> None:
        """@raise OSError: there cannot be such a folder. One that is not writable may become so."""
        super().startService()
        try:
            self._folder.try_out()
        except OSError as error:
            if error.errno in _NO_FOLDER:
                reason = f"The journal cannot be kept in {self._path} (LOG_DIR): {error.strerror}."
                raise OSError(reason) from None
            self._complain_of_writing(error)

    def begin(
        self,
        id: str,
        route: str,
        model: str,
        stream: bool,
        request: bytes,
        masking: Masking,
        account: str | None = None,
    ) -> Exchange:
        now, began = self._wall_clock(), self._clock.seconds()
        return Exchange(id, now, began, route, model, stream, request, masking, account)

    def end(self, exchange: Exchange) -> None:
        self._pending.append(exchange)
        self._bytes += exchange.weight
        self._drop_excess()
        self._batches.added()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._batches.stop()
        finishing = Deferred.fromCoroutine(self._finish())
        return finishing.addTimeout(STOP_PATIENCE, self._clock).addErrback(self._give_up)

    async def _finish(self) -> None:
        await self._batches.until_idle()
        while self._pending and await self._write_pending():
            pass
        if self._pending:
            self._lose(len(self._pending))

    def _give_up(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self.log.warn("the journal's disk does not answer: the last exchanges are lost")

    async def _write_pending(self) -> bool:
        """Returns whether all that was waiting is written."""
        batch = list(self._pending)
        self._pending.clear()
        self._bytes, self._bytes_in_hand = 0, self._bytes
        try:
            for exchange in batch:
                await self._render_if_large(exchange)
            written: _Written = await self._in_thread(self._write_all, batch)
        except CancelledError:
            raise
        except Exception as error:
            # There is no thread, for example.
            written = _Written(batch, error, None, ())
        self._pending.extendleft(reversed(written.left))
        self._bytes = sum(exchange.weight for exchange in self._pending)
        self._bytes_in_hand = 0
        self._drop_excess()
        self._report(written)
        return written.error is None

    async def _render_if_large(self, exchange: Exchange) -> None:
        """Have done what would keep the thread, and with it all others, busy."""
        if is_large(exchange.request):
            try:
                exchange.keep_input(await self._offload.run(Exchange.input, exchange))
            except ChatError as error:
                self.log.warn("a large request is missing in the journal: {error}", error=error)
                exchange.request = b"null"

    def _drop_excess(self) -> None:
        """Forget the oldest ones that wait, if there are too many."""
        while len(self._pending) > self._keep:
            # They would be removed as soon as they are written.
            self._drop_oldest()
        dropped = 0
        while self._bytes + self._bytes_in_hand > self._most_bytes and (
            len(self._pending) > 1 or (self._pending and self._bytes_in_hand)
        ):
            self._drop_oldest()
            dropped += 1
        if dropped:
            self._lose(dropped)

    def _drop_oldest(self) -> None:
        oldest = self._pending.popleft()
        self._bytes -= oldest.weight
        oldest.forget()

    def _lose(self, number: int) -> None:
        for _ in range(number):
            self._count_dropped()
        self._complain(
            "lost", "exchanges are missing in the journal: it cannot be written, or not fast enough"
        )

    def _report(self, written: _Written) -> None:
        for failure in written.failures:
            self.log.failure("an exchange cannot be written down", failure)
            self._count_dropped()
        if written.error is not None:
            self._complain_of_writing(written.error)
        else:
            self._complaints.discard("write")
        if written.unremovable is not None:
            meaning = "old files of the journal stay in {folder}: {error}"
            self._complain("remove", meaning, folder=str(self._path), error=written.unremovable)
        else:
            self._complaints.discard("remove")
        if not self._pending:
            self._complaints.discard("lost")

    def _complain_of_writing(self, error: Exception) -> None:
        meaning = "the journal cannot be written to {folder}: {error}"
        self._complain("write", meaning, folder=str(self._path), error=error)

    def _complain(self, kind: str, meaning: str, **facts: object) -> None:
        """Once, until it is better."""
        if kind not in self._complaints:
            self._complaints.add(kind)
            self.log.warn(meaning, **facts)

    # In a thread:

    def _write_all(self, exchanges: Sequence[Exchange]) -> _Written:
        unremovable: OSError | None = None
        failures: list[Failure] = []
        for position, exchange in enumerate(exchanges):
            try:
                request, answer = exchange.input(), exchange.output()
            except Exception:
                failures.append(Failure())
                continue
            try:
                unremovable = self._folder.write(request, answer) or unremovable
            except OSError as error:
                return _Written(exchanges[position:], error, unremovable, failures)
            exchange.forget()
        return _Written((), None, unremovable, failures)
