"""Stores the last requests and responses on disk."""

from __future__ import annotations

import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time
from typing import Any, Protocol

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from gemproxy.exchange import Exchange
from gemproxy.util.log import make_logger
from gemproxy.util.masking import Masking

# Exchanges are written in batches, because only the last ones of a burst are kept.
WRITE_DELAY = 0.25
_NUMBERED = re.compile(r"(\d{6,})_(?:input\.json|output\.txt)")
# The prefix of the names of incomplete files.
_PART = ".gemproxy-part-"


class Journal(Protocol):
    """Records exchanges."""

    def begin(
        self,
        route: str,
        model: str,
        stream: bool,
        request: bytes,
        masking: Masking,
    ) -> Exchange:
        """Create the record of a new exchange; the caller fills it in."""

    def end(self, exchange: Exchange) -> None:
        """Record the end of an exchange, whatever its outcome."""


@frozen
class NoJournal:
    """A journal that discards all exchanges."""

    clock: IReactorTime
    new_id: Callable[[], str]
    wall_clock: Callable[[], float] = time

    def begin(
        self,
        route: str,
        model: str,
        stream: bool,
        request: bytes,
        masking: Masking,
    ) -> Exchange:
        now, began = self.wall_clock(), self.clock.seconds()
        return Exchange(self.new_id(), now, began, route, model, stream, b"", masking)

    def end(self, exchange: Exchange) -> None:
        """Do nothing."""


class DiskJournal(Service):
    """
    Keeps the last exchanges as pairs of numbered files.

    Files are written in batches, by a thread. Each is written under a temporary name first, so that
    readers never see an incomplete file.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        in_thread: Callable[..., Deferred[None]],
        new_id: Callable[[], str],
        folder: Path,
        keep: int,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        """
        @param in_thread: calls a function in a thread.
        @param wall_clock: the time of requests, in seconds since the epoch.
        """
        self._clock = clock
        self._in_thread = in_thread
        self._new_id = new_id
        self._folder = folder
        self._keep = keep
        self._wall_clock = wall_clock
        self._pending: deque[Exchange] = deque(maxlen=keep)
        self._timer: IDelayedCall | None = None
        self._writing: Deferred[None] | None = None
        self._number: int | None = None
        self._complained = False

    def begin(
        self,
        route: str,
        model: str,
        stream: bool,
        request: bytes,
        masking: Masking,
    ) -> Exchange:
        now, began = self._wall_clock(), self._clock.seconds()
        return Exchange(self._new_id(), now, began, route, model, stream, request, masking)

    def end(self, exchange: Exchange) -> None:
        self._pending.append(exchange)
        if self._timer is None and self._writing is None:
            self._timer = self._clock.callLater(WRITE_DELAY, self._write)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._writing is not None or self._pending:
            if self._writing is None:
                self._write()
            if self._writing is not None:
                await self._writing

    def _write(self) -> None:
        self._timer = None
        batch, self._pending = self._pending, deque(maxlen=self._keep)
        self._writing = Deferred()
        self._in_thread(self._write_all, list(batch)).addErrback(self._complain).addCallback(
            self._written
        )

    def _written(self, _: None) -> None:
        done, self._writing = self._writing, None
        if self._pending and self.running:
            self._timer = self._clock.callLater(WRITE_DELAY, self._write)
        if done is not None:
            done.callback(None)

    def _complain(self, failure: Any) -> None:
        if not failure.check(OSError):
            self.log.failure("writing the journal failed", failure)
        elif not self._complained:
            self._complained = True
            self.log.warn(
                "the journal cannot be written to {folder}: {error}",
                folder=str(self._folder),
                error=failure.getErrorMessage(),
            )

    # In a thread:

    def _write_all(self, exchanges: Sequence[Exchange]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._number is None:
            for left_over in self._folder.glob(f"{_PART}*"):
                left_over.unlink(missing_ok=True)
        numbers = sorted({number for number, _ in self._files()})
        last = max(self._number or 0, numbers[-1] if numbers else 0)
        for exchange in exchanges:
            last += 1
            self._replace(self._folder / f"{last:06d}_input.json", exchange.input())
            self._replace(self._folder / f"{last:06d}_output.txt", exchange.output())
        self._number = last
        self._complained = False
        for number, path in self._files():
            if number <= last - self._keep:
                path.unlink(missing_ok=True)

    def _files(self) -> list[tuple[int, Path]]:
        matches = ((_NUMBERED.fullmatch(path.name), path) for path in self._folder.iterdir())
        return [(int(match[1]), path) for match, path in matches if match]

    def _replace(self, path: Path, content: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=_PART)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
