"""How many processes may run: fewer for a while after one has died of memory."""

from __future__ import annotations

# Seconds after which one more process is tried.
_RECOVERY = 120.0


class Allowance:
    """
    Where memory does not suffice, as many processes as before would die again. After a death as
    many may run as were left, and one more with each interval in which none dies.

    @ivar deaths: how many processes died of memory in a row, with less than that interval between
        two of them.
    """

    def __init__(self, most: int) -> None:
        self.deaths = 0
        self._most = most
        self._base = most
        self._since = 0.0

    def at(self, now: float) -> int:
        """The number of processes that may run at a time in seconds, at least one."""
        return min(self._most, self._base + int((now - self._since) // _RECOVERY))

    def died_of_memory(self, now: float, left: int) -> None:
        """@param left: the number of processes that still run."""
        is_first = not self.deaths or now - self._since >= _RECOVERY
        self.deaths = 1 if is_first else self.deaths + 1
        self._base = max(1, min(self.at(now), left))
        self._since = now
