"""A CLI that behaves badly: it is retired, its request is told, and the others go on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.logger import formatEvent, globalLogPublisher

from gemproxy.gemini.cli.limits import CliLimits
from testing.google import scenarios
from testing.processes import processes_at_home_in
from tests.support import ROOT, Product, chat, running, until

FAKE = ROOT / "testing" / "fake_cli.py"


LITTLE_PATIENCE = CliLimits(
    start_timeout=1.0,
    line_limit=1_000_000,
    stray_limit=500,
    stderr_limit=1_000_000,
    exit_delay=0.2,
    setup_timeout=0.5,
    cancel_timeout=0.3,
    first_restart_delay=0.05,
    growth_delay=0.05,
)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)
    assert [formatEvent(event) for event in events if "log_failure" in event] == []


class Fakes:
    """The fake CLI, and what it is told to do at its start."""

    def __init__(self, folder: Path) -> None:
        self._mode = folder / "mode"
        self.cli = folder / "fake"
        self.behave("well")
        self.cli.write_text(f"#!/bin/sh\nexec {sys.executable} -I {FAKE} {self._mode}\n")
        self.cli.chmod(0o755)

    def behave(self, how: str) -> None:
        self._mode.write_text(how)


@asynccontextmanager
async def with_fakes(
    tmp_path: Path, cli_limits: CliLimits = LITTLE_PATIENCE, **settings: Any
) -> AsyncIterator[tuple[Product, Fakes]]:
    fakes = Fakes(tmp_path)
    defaults = {
        "GEMINI_CLI": fakes.cli,
        "GEMINI_SESSIONS": 1,
        "GEMINI_WORKERS": 2,
        "MAX_RETRIES": 0,
        "TIMEOUT": 1,
    }
    async with running(tmp_path / "run", cli_limits=cli_limits, **(defaults | settings)) as product:
        yield product, fakes
        product.drop_all()
        await product.until_idle()
        await product.daemon.stopService()
        assert processes_at_home_in(product.run_root) == []
        assert list(product.run_root.glob("*")) == []


async def ask(product: Product, how: str = "well", **fields: Any) -> Any:
    product.api.play(scenarios.answer("Well ", "said."))
    return await product.ask(chat(model=f"gemini-{how}", **fields))


RETIRED = [
    *("bytes", "binary", "huge-line", "no-json", "no-message", "unknown-id", "strange-id"),
    *("answered-twice", "deep", "updates-of-others", "updates-of-no-use", "notifications"),
    *("requests", "log", "text", "stalls", "dies", "closes-its-output", "closes-its-input"),
]


@pytest.mark.parametrize("how", RETIRED)
@ensureDeferred
async def test_a_worker_that_misbehaves_is_retired(
    tmp_path: Path, logged: list[Any], how: str
) -> None:
    async with with_fakes(tmp_path) as (product, _):
        (pid,) = product.worker_pids()
        began = reactor.seconds()
        reply = await ask(product, how, stream=True)
        assert reactor.seconds() - began < 6
        assert reply.status in (502, 504)
        assert reply.error["type"] == "server_error"
        await until(lambda: pid not in product.worker_pids(), "it is retired")
        assert not Path(f"/proc/{pid}").exists()
        product.api._plays.clear()
        await until(lambda: product.daemon.pool.warm, "there is another")
        reply = await ask(product)
        assert (reply.status, reply.content) == (200, "Well said.")
        # Floods are not kept.
        assert max((len(formatEvent(event)) for event in logged), default=0) < 20_000


@pytest.mark.parametrize("how", ["dies-at-the-end", "stalls-at-the-end", "more-than-said"])
@ensureDeferred
async def test_what_a_worker_does_after_the_reply_harms_no_answer(
    tmp_path: Path, logged: list[Any], how: str
) -> None:
    async with with_fakes(tmp_path) as (product, _):
        (pid,) = product.worker_pids()
        for stream in (True, False):
            reply = await ask(product, how, stream=stream)
            assert (reply.status, reply.content) == (200, "Well said.")
            await product.until_idle()
        if how != "more-than-said":
            await until(lambda: pid not in product.worker_pids(), "it is retired")


@ensureDeferred
async def test_what_killed_a_worker_is_not_tried_again(tmp_path: Path, logged: list[Any]) -> None:
    async with with_fakes(tmp_path, MAX_RETRIES=5, RETRY_DELAY=0.01, TIMEOUT=9) as (product, _):
        (pid,) = product.worker_pids()
        reply = await ask(product, "dies")
        assert (reply.status, reply.error["type"]) == (502, "server_error")
        assert "not tried again" in reply.error["message"]
        assert reply.headers["x-should-retry"] == "false"
        await until(lambda: product.daemon.pool.warm, "there is another")
        assert len({pid, *product.worker_pids()}) == 2
        product.api._plays.clear()
        assert (await ask(product)).status == 200


@pytest.mark.parametrize("how", ["silent", "invented", "another-conversation"])
@ensureDeferred
async def test_what_a_worker_may_not_do_comes_to_nothing(
    tmp_path: Path, logged: list[Any], how: str
) -> None:
    async with with_fakes(tmp_path) as (product, _):
        reply = await ask(product, how)
        assert (reply.status, reply.error["type"]) == (502, "server_error")
        assert product.asked == []
        product.api._plays.clear()
        assert (await ask(product)).status == 200


@pytest.mark.parametrize("how", ["wants-more", "strange-types", "asks-twice"])
@ensureDeferred
async def test_what_a_worker_wants_beyond_is_refused_and_ignored(
    tmp_path: Path, logged: list[Any], how: str
) -> None:
    async with with_fakes(tmp_path) as (product, _):
        (pid,) = product.worker_pids()
        reply = await ask(product, how)
        assert (reply.status, reply.content) == (200, "Well said.")
        await product.until_idle()
        assert len(product.asked) == 1
        assert product.worker_pids() == [pid]


@ensureDeferred
async def test_a_worker_without_its_home_is_retired(tmp_path: Path, logged: list[Any]) -> None:
    async with with_fakes(tmp_path, MAX_RETRIES=3, RETRY_DELAY=0.1) as (product, _):
        (pid,) = product.worker_pids()
        assert (await ask(product, "loses-its-home")).status == 200
        assert (await ask(product)).status == 200
        await until(lambda: pid not in product.worker_pids(), "it is retired")


@ensureDeferred
async def test_another_version_starts_with_one_warning(tmp_path: Path, logged: list[Any]) -> None:
    async with with_fakes(tmp_path) as (product, _):
        (pid,) = product.worker_pids()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pid not in product.worker_pids(), "its end is noticed")
        assert (await ask(product)).status == 200
    said = [formatEvent(event) or "" for event in logged]
    assert sum("is version 9.9.9, and gemproxy is tested with" in one for one in said) == 1


@pytest.mark.parametrize("how", ["stalls", "dies", "floods", "refuses", "talks nonsense"])
@pytest.mark.parametrize(
    "method", ["authenticate", "session/new", "session/set_model", "session/prompt"]
)
@ensureDeferred
async def test_at_every_step_a_worker_may_fail(
    tmp_path: Path, logged: list[Any], method: str, how: str
) -> None:
    async with with_fakes(tmp_path) as (product, fakes):
        (pid,) = product.worker_pids()
        step = "in " if how != "refuses" else ""
        fakes.behave(f"{how} {step}{method}")
        is_first = method in ("authenticate", "session/new")
        if is_first:
            os.kill(pid, signal.SIGKILL)
            await until(lambda: pid not in product.worker_pids(), "its end is noticed")
        began = reactor.seconds()
        reply = await ask(product)
        assert reactor.seconds() - began < 8
        assert reply.status in (502, 504)
        assert reply.error["type"] == "server_error"
        product.drop_all()

        fakes.behave("well")
        product.api._plays.clear()
        await until(lambda: product.daemon.pool.warm, "there is a good one")
        if how != "refuses" or is_first:
            await until(lambda: pid not in product.worker_pids(), "the bad one is retired")
        await product.until_idle()
        reply = await ask(product)
        assert (reply.status, reply.content) == (200, "Well said.")


@ensureDeferred
async def test_the_others_go_on(tmp_path: Path, logged: list[Any]) -> None:
    limits = {"GEMINI_WORKERS": 3, "MAX_RETRIES": 2, "RETRY_DELAY": 0.1, "TIMEOUT": 20}
    # The fake that streams cannot answer meanwhile, as the real CLI can.
    patient = evolve(LITTLE_PATIENCE, look_interval=60.0)
    async with with_fakes(tmp_path, patient, **limits) as (product, _):
        product.api.play(scenarios.hang("Half", after=1))
        streaming = await product.begin(chat(stream=True, model="gemini-well"))
        await streaming.until_received(b"Half")
        bad = [
            await product.begin(chat(model=f"gemini-{how}", stream=True))
            for how in ("bytes", "unknown-id", "dies", "requests")
        ]
        good = await product.ask_all(chat(f"{n}", model="gemini-well") for n in range(10))
        assert {reply.status for reply in good} == {200}
        assert [reply.content.rpartition("\n")[2] for reply in good] == [str(n) for n in range(10)]
        for client in bad:
            reply = await client.reply()
            assert reply.status == 502 or reply.data[-1]["error"]
        assert not streaming.closed
        assert product.asked[0].closed is None
