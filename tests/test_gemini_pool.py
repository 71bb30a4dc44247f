"""The CLI workers, as the requests of a whole daemon see them."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.web import health
from testing.google import scenarios
from testing.google.recorded_request import Closed
from testing.processes import processes_at_home_in
from tests.support import CLI, Product, chat, fresh_model, running, until

pytestmark = pytest.mark.cli


async def until_other_worker(product: Product, *old: int) -> int:
    """The process id of a worker that is warm and none of the old ones."""

    def others() -> list[int]:
        ready = [member.worker.pid for member in product.daemon.pool._members if member.ready]
        return [pid for pid in ready if pid not in old]

    await until(others, "another worker is warm")
    return others()[0]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def words(asked: Any) -> str:
    return asked.texts[-1][1]


def cli_that(folder: Path, *lines: str) -> str:
    """The real CLI, with something that goes before it."""
    script = folder / "gemini"
    script.write_text("\n".join(["#!/bin/sh", *lines, f'exec {CLI} "$@"', ""]))
    script.chmod(0o755)
    return str(script)


@ensureDeferred
async def test_sixty_requests_at_once_get_their_own_answers(product: Product) -> None:
    rounds = range(60)
    replies = await product.ask_all(
        chat(f"past {n}", f"reply {n}", f"question {n}", stream=bool(n % 2)) for n in rounds
    )
    assert [reply.content.rpartition("\n")[2] for reply in replies] == [
        f"question {n}" for n in rounds
    ]
    assert sorted(asked.texts for asked in product.asked) == sorted(
        [("user", f"past {n}"), ("model", f"reply {n}"), ("user", f"question {n}")] for n in rounds
    )
    await product.until_idle()
    assert product.session_files() == []


@ensureDeferred
async def test_a_worker_that_is_starting_when_the_daemon_stops_is_no_error(tmp_path: Path) -> None:
    events: list[Any] = []
    async with running(tmp_path, GEMINI_WORKERS=2, GEMINI_SESSIONS=1) as product:
        product.api.play(scenarios.hang(), scenarios.hang())
        for _ in range(2):
            await product.begin(chat())
        await until(lambda: len(product.worker_pids()) == 2, "another worker starts")
        assert [member.ready for member in product.daemon.pool._members] == [True, False]
        globalLogPublisher.addObserver(events.append)
        product.drop_all()
    globalLogPublisher.removeObserver(events.append)
    errors = [event for event in events if event["log_level"] >= LogLevel.error]
    assert [formatEvent(event) for event in errors] == []


@ensureDeferred
async def test_workers_start_when_needed_and_requests_wait_beyond_that(tmp_path: Path) -> None:
    limits = {"GEMINI_WORKERS": 2, "GEMINI_SESSIONS": 2, "GEMINI_QUEUE": 2}
    async with running(tmp_path, **limits) as product:
        product.api.play(*[scenarios.hang()] * 4)
        clients = [await product.begin(chat(f"{n}")) for n in range(2)]
        await product.until_asked(2)
        assert len(product.worker_pids()) == 1

        clients += [await product.begin(chat(f"{n}")) for n in range(2, 4)]
        await product.until_asked(4)
        assert len(product.worker_pids()) == 2

        for number in (4, 5):
            clients.append(await product.begin(chat(f"{number}")))
            await until(lambda n=number: product.daemon.pool.queued() == n - 3, "it waits")

        refused = await product.ask(chat("6", stream=True))
        assert (refused.status, refused.error["type"]) == (503, "server_error")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.reason == refused.error["message"]

        # First come, first served.
        product.api.play(scenarios.hang(), scenarios.answer("at last"))
        clients[1].drop()
        assert words(await product.until_asked(5)) == "4"
        clients[0].drop()
        assert words(await product.until_asked(6)) == "5"
        assert (await clients[5].reply()).content == "at last"
        assert len(product.worker_pids()) == 2
        assert len(product.asked) == 6


@ensureDeferred
async def test_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    async with running(tmp_path) as product:
        (first,) = product.worker_pids()
        os.kill(first, signal.SIGKILL)
        second = await until_other_worker(product, first)
        assert product.worker_pids() == [second]
        assert (await product.ask(chat())).status == 200
        homes = list(product.run_root.glob("*/worker-*"))
        assert len(homes) == 1


@ensureDeferred
async def test_workers_that_keep_dying_are_replaced_ever_later(tmp_path: Path) -> None:
    async with running(tmp_path) as product:
        delays = []
        (pid,) = product.worker_pids()
        for _ in range(3):
            os.kill(pid, signal.SIGKILL)
            await until(lambda gone=pid: gone not in product.worker_pids(), "its end is noticed")
            noticed = reactor.seconds()
            await until(product.worker_pids, "another one is started")
            delays.append(reactor.seconds() - noticed)
            pid = await until_other_worker(product, pid)
        # A busy machine adds to each, and takes nothing away.
        assert delays[1] > 0.4
        assert delays[2] > 0.9


@ensureDeferred
async def test_a_cli_that_does_not_start_is_an_error_until_it_does(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    cli = cli_that(tmp_path, f"[ -e {broken} ] && exit 3")
    settings = {"GEMINI_CLI": cli, "MAX_RETRIES": 2, "RETRY_DELAY": 0.1}
    async with running(tmp_path / "run", **settings) as product:
        (pid,) = product.worker_pids()
        broken.touch()
        os.kill(pid, signal.SIGKILL)
        reply = await product.ask(chat())
        assert (reply.status, reply.error["type"]) == (502, "server_error")
        reply = await product.get("/health")
        assert (reply.status, reply.json) == (200, {"status": "degraded", "workers": 0})
        assert (await product.get("/ready")).status == 503
        broken.unlink()
        await until_other_worker(product, pid)
        assert (await product.ask(chat())).status == 200
        assert (await product.get("/ready")).status == 200


@pytest.mark.parametrize(("mark", "value"), [("sessions_per_worker", 2), ("memory_per_worker", 1)])
@ensureDeferred
async def test_a_worn_worker_retires_when_its_successor_is_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str, value: int
) -> None:
    async with running(tmp_path, GEMINI_WORKERS=2) as product:
        (old,) = product.worker_pids()
        product.api.play(scenarios.hang("One", " two", after=1))
        slow = await product.begin(chat("slow", stream=True))
        await slow.until_received(b"One")
        assert (await product.ask(chat())).status == 200
        monkeypatch.setattr(product.daemon.pool._cli_limits, mark, value)
        assert (await product.ask(chat())).status == 200

        # The old one serves until the new one can, and stays for what it has begun.
        assert product.worker_pids()[0] == old
        assert (await product.get("/health")).status == 200
        new = await until_other_worker(product, old)
        monkeypatch.undo()
        assert (await product.ask(chat())).status == 200
        assert is_alive(old)
        assert product.asked[0].closed is None
        slow.drop()
        await until(lambda: not is_alive(old), "the old one has ended")
        assert product.worker_pids() == [new]
        assert len(list(product.run_root.glob("*/worker-*"))) == 1
        assert (await product.ask(chat())).status == 200


@ensureDeferred
async def test_the_only_one_allowed_is_succeeded_when_it_has_nothing_to_do(tmp_path: Path) -> None:
    limits = CliLimits(prompts_per_session=1, sessions_per_worker=10)
    async with running(tmp_path, cli_limits=limits, GEMINI_WORKERS=1) as product:
        (old,) = product.worker_pids()
        product.api.play(scenarios.hang("One", " two", after=1))
        slow = await product.begin(chat("slow", stream=True))
        await slow.until_received(b"One")
        for _ in range(10):
            assert (await product.ask(chat())).status == 200
        assert product.worker_pids() == [old]
        slow.drop()
        new = await until_other_worker(product, old)
        assert product.worker_pids() == [new]
        assert (await product.ask(chat())).status == 200


@ensureDeferred
async def test_refusals_cost_no_process_and_no_session(tmp_path: Path) -> None:
    plays = [scenarios.error(400), scenarios.rate_limited(0.1), scenarios.error(500)]
    async with running(tmp_path, GEMINI_WORKERS=1, MAX_RETRIES=0) as product:
        (pid,) = product.worker_pids()
        (member,) = product.daemon.pool._members
        product.api.play(*plays * 20)
        replies = await product.ask_all(chat(model=fresh_model()) for _ in range(60))
        assert Counter(reply.status for reply in replies) == {400: 20, 429: 20, 500: 20}
        await product.until_idle()
        assert product.worker_pids() == [pid]
        assert member.worker.opened <= product.daemon.pool._limits.sessions


async def until_stopped(pid: int) -> None:
    """Stop a process, as a debugger does, or a full disk behind its swapped pages."""
    os.kill(pid, signal.SIGSTOP)
    stat = Path(f"/proc/{pid}/stat")
    await until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")


@ensureDeferred
async def test_requests_of_a_worker_that_stops_to_react_are_had_by_another(tmp_path: Path) -> None:
    limits = CliLimits(look_interval=0.2)
    settings = {"GEMINI_WORKERS": 1, "RETRY_DELAY": 0.05}
    async with running(tmp_path, cli_limits=limits, **settings) as product:
        (pid,) = product.worker_pids()
        await until_stopped(pid)
        replies = await product.ask_all(chat(f"{number}") for number in range(10))
        contents = [reply.content.rpartition("\n")[2] for reply in replies]
        assert contents == [str(number) for number in range(10)]
        assert not is_alive(pid)


@ensureDeferred
async def test_a_starting_worker_that_stops_to_react_is_replaced(tmp_path: Path) -> None:
    limits = CliLimits(look_interval=0.2)
    async with running(tmp_path, cli_limits=limits, GEMINI_WORKERS=1) as product:
        (first,) = product.worker_pids()
        os.kill(first, signal.SIGKILL)
        await until(lambda: product.worker_pids() not in ([], [first]), "another one starts")
        (second,) = product.worker_pids()
        await until_stopped(second)
        assert (await product.ask(chat())).status == 200
        assert not is_alive(second)


@ensureDeferred
async def test_a_worker_has_nothing_to_do_with_the_answer_to_what_it_has_asked(
    product: Product,
) -> None:
    (member,) = product.daemon.pool._members
    product.api.play(scenarios.answer("One", " two", pace=1.0), scenarios.hang())
    begun = await product.begin(chat("1", stream=True))
    await begun.until_received(b"One")
    await until(lambda: not member.worker._calls, "the CLI has come to its end")
    # Its session serves another conversation, while the answer is under way.
    opened = member.worker.opened
    other = await product.begin(chat("2"))
    await product.until_asked(2)
    assert (member.leases, member.worker.opened) == (2, opened)
    os.kill(member.worker.pid, signal.SIGKILL)
    await until_other_worker(product, member.worker.pid)
    assert (await begun.reply()).content == "One two"
    assert not other.closed


@pytest.mark.parametrize("above", [0, 1])
@ensureDeferred
async def test_a_run_directory_that_is_removed_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: int
) -> None:
    temp, runtime = tmp_path / "temp", tmp_path / "runtime"
    temp.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    async with running(runtime, LOG_DIR="", GEMINI_WORKERS=2, GEMINI_SESSIONS=1) as product:
        product.api.play(scenarios.hang("One", " two", after=1))
        streaming = await product.begin(chat(stream=True))
        await streaming.until_received(b"One")
        assert (await product.ask(chat())).status == 200
        await until(lambda: product.daemon.pool.leases() == 1, "the CLI has ended its prompt")
        # systemd removes XDG_RUNTIME_DIR itself when the user logs out.
        shutil.rmtree([product.run_root, runtime][above])
        assert (await product.ask(chat())).status == 200
        assert (await product.get("/health")).status == 200
        homes = [member.worker.home for member in product.daemon.pool._members if member.ready]
        # Where it was, unless a CLI has made a folder there meanwhile, which others can enter.
        roots = (product.run_root, temp / f"gemproxy-{os.getuid()}")
        assert any(
            home.is_whole and any(home.root.is_relative_to(root) for root in roots)
            for home in homes
        )


@ensureDeferred
async def test_without_a_worker_for_minutes_the_daemon_is_unhealthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    cli = cli_that(tmp_path, f"[ -e {broken} ] && exit 3")
    limits = CliLimits(settling=0.1, look_interval=0.1)
    async with running(tmp_path / "run", cli_limits=limits, GEMINI_CLI=cli) as product:
        (pid,) = product.worker_pids()
        await until(lambda: not product.daemon.pool.lacking(), "it has stayed")
        monkeypatch.setattr(health, "_PATIENCE", 0.5)
        broken.touch()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: product.daemon.pool.lacking() > 0.5, "there has been none for a while")
        reply = await product.get("/health")
        assert (reply.status, reply.json["status"]) == (503, "failing")
        broken.unlink()
        await until_other_worker(product, pid)
        await until(lambda: not product.daemon.pool.lacking(), "it has stayed")
        reply = await product.get("/health")
        assert (reply.status, reply.json["status"]) == (200, "ok")


@ensureDeferred
async def test_idle_workers_end_but_for_the_last(
    tmp_path: Path,
) -> None:
    limits = CliLimits(idle_life=0.2, review_interval=0.1)
    async with running(tmp_path, cli_limits=limits, GEMINI_WORKERS=2, GEMINI_SESSIONS=1) as product:
        product.api.play(scenarios.hang(), scenarios.hang())
        clients = [await product.begin(chat()) for _ in range(2)]
        await product.until_asked(2)
        assert len(product.worker_pids()) == 2
        for client in clients:
            client.drop()
        await until(lambda: len(product.worker_pids()) == 1, "one has ended")
        assert (await product.ask(chat())).status == 200
        assert len(product.worker_pids()) == 1


@ensureDeferred
async def test_stopping_ends_every_process_and_removes_the_run_directory(tmp_path: Path) -> None:
    # The CLI may have children of its own; this one would outlive it.
    settings = {"GEMINI_CLI": cli_that(tmp_path, "sleep 100 &"), "GEMINI_SESSIONS": 1, "DRAIN": 0}
    run = tmp_path / "run"
    async with running(run, **settings) as product:
        product.api.play(scenarios.hang("Half", after=1), scenarios.hang())
        streaming = await product.begin(chat(stream=True))
        await streaming.until_received(b"Half")
        plain = await product.begin(chat())
        await product.until_asked(2)
        assert len(product.worker_pids()) == 2
        assert len(processes_at_home_in(product.run_root)) == 4
        assert [path.stat().st_mode & 0o777 for path in product.run_root.glob("*")] == [0o700]

        await product.daemon.stopService()
        assert processes_at_home_in(product.run_root) == []
        assert list(product.run_root.glob("*")) == []
        for asked in product.asked:
            assert await asked.when_closed() is Closed.GONE
        half = await streaming.reply()
        assert half.content == "Half"
        assert half.data[-1]["error"]["type"] == "server_error"
        told = await plain.reply()
        assert (told.status, told.headers["retry-after"]) == (503, "5")
