"""A short form of C{python -m bench.chaos}."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from testing.trial.chaos import trial

pytestmark = pytest.mark.cli


@ensureDeferred
async def test_every_request_is_answered_or_gets_an_error_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    assert await trial(reactor, tmp_path, seconds=8, seed=1, clients=12) == []
