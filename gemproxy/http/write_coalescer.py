"""
Defers writes until the data of one socket read has been processed.

All data written because of one read is sent together, which takes a fraction of the CPU time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gemproxy.util.log import make_logger


class WriteCoalescer:
    """Tracks the reads of the connections to upstreams."""

    log = make_logger()

    def __init__(self) -> None:
        self._reading = False
        self._waiting: deque[Callable[[], None]] = deque()

    def after_read(self, function: Callable[[], None]) -> None:
        """Call a function at the end of the current read; at once if there is none."""
        if self._reading:
            self._waiting.append(function)
        else:
            function()

    def read(self, receive: Callable[[bytes], None], data: bytes) -> None:
        """Process the data of a read, then call the deferred functions."""
        self._reading = True
        try:
            receive(data)
        finally:
            while self._waiting:
                try:
                    self._waiting.popleft()()
                except Exception:
                    self.log.failure("a function called after a read failed")
            self._reading = False
