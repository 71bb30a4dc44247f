"""How many workers there may be and how large, as far as memory and CPU allow."""

from __future__ import annotations

import math

from attrs import frozen

MIB = 1024 * 1024

# What suffices for any traffic, where there is enough memory.
_MOST = 4
_HEAP = 512 * MIB
_WORN = 450 * MIB
# With less, a worker would be replaced or full before it has served much.
_LEAST_HEAP = 192 * MIB
_LEAST_WORN = 300 * MIB
# Of the CLI 0.61.0: a worker that has served some hundred requests; one that is warm; and how much
# of that is not in the heap that node limits.
_WORKER = 320 * MIB
_WARM = 240 * MIB
_NOT_HEAP = 112 * MIB
# For the daemon, and of the whole, for requests that it holds.
_DAEMON = 96 * MIB
_SHARE_OF_REQUESTS = 1 / 8
_WORKERS_PER_CORE = 2


@frozen
class WorkerSizes:
    """
    @ivar workers: the number of processes at most.
    @ivar heap: node's limit of a process's heap, in bytes.
    @ivar worn: the resident memory from which on a process is replaced, in bytes.
    """

    workers: int = _MOST
    heap: int = _HEAP
    worn: int = _WORN


def worker_sizes(
    memory: int | None,
    cores: float | None = None,
    wanted: int | None = None,
    processes: int = 1,
) -> WorkerSizes:
    """
    What fits beside the daemon. Each of its processes has one worker at least.

    @param memory: bytes for the daemon and its workers together; None for any amount.
    @param cores: CPU cores for them; None for any number.
    @param wanted: the number of workers, if it is given.
    @param processes: those of the daemon itself.
    """
    workers = _MOST if wanted is None else wanted
    if wanted is None and cores is not None:
        workers = min(workers, math.ceil(cores * _WORKERS_PER_CORE))
    if memory is None:
        return WorkerSizes(max(workers, processes))
    room = int(memory - _DAEMON * processes - memory * _SHARE_OF_REQUESTS)
    if wanted is None:
        workers = max(1, min(workers, room // _WORKER))
    workers = max(workers, processes)
    # One may grow while the others are as they were.
    heap = room - (workers - 1) * _WARM - _NOT_HEAP
    return WorkerSizes(
        workers,
        min(max(heap, _LEAST_HEAP), _HEAP),
        min(max(room // workers, _LEAST_WORN), _WORN),
    )
