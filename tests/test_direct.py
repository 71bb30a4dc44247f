"""A machine without Node: what says so, and the engine that does without."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from testing.google import scenarios
from tests.support import ROOT, chat, running
from tests.test_twistd import TWISTD, started


def bare_path(folder: Path, *tools: str) -> str:
    """A PATH with a few tools, and no Node."""
    folder.mkdir()
    for tool in tools:
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return str(folder)


@pytest.mark.slow
def test_the_daemon_starts_without_node_and_has_no_place_for_a_cli(tmp_path: Path):
    path = bare_path(tmp_path / "bin")
    with started(tmp_path, "--demo", "--gemini-engine", "direct", PATH=path) as daemon:
        assert daemon.get("/ready")[0] == 200
        status, answer = daemon.get("/v1/chat/completions", chat("Hello"))
        assert status == 200
        assert "Hello" in answer
        metrics = daemon.get("/metrics")[1]
        assert "gemproxy_requests_under_way" in metrics
        for name in ("workers", "worker_deaths", "sessions", "leases", "queued_requests"):
            assert f"gemproxy_{name}" not in metrics
        assert not daemon.runs.exists()
        assert daemon.stop() == -signal.SIGTERM


def test_a_start_that_lacks_node_names_the_engine_that_does_not(tmp_path: Path):
    environ = {"PATH": bare_path(tmp_path / "bin"), "GEMINI_API_KEY": "key"}
    command = [TWISTD, "-n", "--pidfile=", "gemproxy"]
    result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert result.returncode == 1
    assert "GEMINI_ENGINE=direct" in result.stderr


@pytest.mark.parametrize(
    ("given", "starts"),
    [
        ((), False),
        (("GEMINI_ENGINE=cli",), False),
        (("GEMINI_ENGINE=direct",), True),
        (("ARGS=--gemini-engine direct --port 4000",), True),
        (("ARGS=--gemini-engine=direct",), True),
    ],
)
def test_make_run_offers_it_where_there_is_no_node(
    tmp_path: Path, given: tuple[str, ...], starts: bool
):
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "requirements.txt", "package.json"):
        shutil.copy(ROOT / name, tmp_path)
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "twistd").write_text('#!/bin/sh\necho "started $*"\n')
    (binaries / "twistd").chmod(0o755)
    for stamp in ("created", "installed"):
        (tmp_path / ".venv" / stamp).touch()
    make = shutil.which("make")
    assert make is not None
    result = subprocess.run(
        [make, "run", *given],
        cwd=tmp_path,
        env={"PATH": bare_path(tmp_path / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode == 0) is starts, result
    assert ("started -n --pidfile= gemproxy --demo" in result.stdout) is starts
    for advice in ("nvm install 20", "make run GEMINI_ENGINE=direct"):
        assert (advice in result.stdout) is not starts


@pytest.mark.slow
@ensureDeferred
async def test_many_clients_are_answered_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    async with running(tmp_path, GEMINI_ENGINE="direct") as product:
        plays = [scenarios.answer(str(number)) for number in range(100)]
        product.api.play(*plays)
        replies = await product.ask_all(chat("Hi") for _ in plays)
        assert sorted(int(reply.content) for reply in replies) == list(range(100))
        assert len(product.asked) == 100
        await product.until_idle()
        assert not product.daemon._admission.open
        assert not os.path.exists(product.run_root)
