"""Has the reactor measure time by a clock that nobody sets."""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_time(reactor: Any) -> None:
    """
    Make C{reactor.seconds} the system's monotonic clock, and with it every delay, timeout and
    interval. To be called before anything is scheduled.

    Twisted's reactors use the wall clock. If that is set an hour ahead, as that of a virtual
    machine that was suspended, whatever waits has waited for too long; if it is set back, no
    delayed call is made for an hour. Twisted reads the time by this method alone;
    C{tests/test_clocks.py} fails if that changes.
    """
    reactor.seconds = time.monotonic
