"""Short forms of C{python -m bench.chaos} and C{python -m bench.memory}."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from testing.memory_cgroup import MemoryCgroup, NoCgroups
from testing.trial import memory
from testing.trial.chaos import trial

pytestmark = pytest.mark.cli


@ensureDeferred
async def test_every_request_is_answered_or_gets_an_error_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    assert await trial(reactor, tmp_path, seconds=8, seed=1, clients=12) == []


@ensureDeferred
async def test_many_clients_are_served_with_little_memory(tmp_path: Path) -> None:
    try:
        MemoryCgroup.make(512 * 1024 * 1024).remove()
    except NoCgroups:
        pytest.skip("no cgroup can be made here")
    size = memory.Size(megabytes=512, workers=None, clients=80, requests=160)
    assert await memory.trial(reactor, tmp_path, size) == []
