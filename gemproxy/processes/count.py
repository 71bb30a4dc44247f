"""How many processes serve side by side. Pure."""

from __future__ import annotations

# Bytes that a process takes under load, with what it holds of requests.
_ROOM = 256 << 20


def count_for(cores: int, quota: float | None, memory: int | None) -> int:
    """
    One for each core, as far as there is room.

    @param cores: that this process may run on.
    @param quota: the share of their time that it may take, in cores; None for all of it.
    @param memory: bytes for all processes together; None for any amount.
    """
    count = cores if quota is None else min(cores, int(quota))
    return max(1, count if memory is None else min(count, memory // _ROOM))
