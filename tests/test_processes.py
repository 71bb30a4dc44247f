"""Several processes at one port, under load and in trouble."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from testing.fake_newapi import DONE, EVENT_STREAM, Call, FakeNewApi, chunk, event
from testing.processes import Running, children, free_port, processes_at_home_in
from tests.support import CLI, ROOT, gpt, until
from tests.talks import Talks, tell_back, told
from tests.test_metrics import samples

pytestmark = pytest.mark.processes

TWISTD = str(Path(sys.executable).with_name("twistd"))
CLIENTS = 12
# Seconds. A process of which nothing is heard for so long is replaced.
WATCHDOG = 4


class Manager(DatagramProtocol):
    """What systemd is to a daemon."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard.append(datagram.decode())

    def states(self) -> list[str]:
        """What was said but that the daemon lives."""
        return [one.partition("\n")[0] for one in self.heard if one != "WATCHDOG=1"]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "XDG_RUNTIME_DIR": str(folder),
        "PROCESSES": "2",
        "PORT": "off",
        "USAGE_DAYS": "0",
        "DATA_DIR": str(folder / "data"),
        "DRAIN": "60",
    } | more


@define
class Several(Talks):
    """A daemon of two processes, and the upstream that they ask."""

    daemon: Running
    upstream: FakeNewApi
    manager: Manager
    folder: Path

    def log(self) -> str:
        return self.daemon.log.read_text()

    def pids(self) -> list[int]:
        """Of the processes that serve, as they were last told of, by their numbers."""
        found = re.findall(r"process (\d+) serves \(pid (\d+)\)", self.log())
        return [pid for _, pid in sorted({int(number): int(pid) for number, pid in found}.items())]

    def refuses(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == errno.ECONNREFUSED

    async def until_logged(self, pattern: str, number: int = 1) -> None:
        await until(
            lambda: len(re.findall(pattern, self.log())) >= number, f"{number} {pattern} are logged"
        )

    async def begin_streams(self, number: int) -> tuple[list[Any], list[Call]]:
        """Answers that have begun, and do not end by themselves."""
        held: list[Call] = []

        async def hold(call: Call) -> None:
            await call.whole()
            held.append(call)
            await call.head(headers=[EVENT_STREAM])
            await call.send(event(chunk("begun")))

        self.upstream.play(*[hold] * number)
        clients = [await self.begin(gpt(f"stream-{n}", stream=True)) for n in range(number)]
        for client in clients:
            await client.until_received(b"begun")
        return clients, held


@define
class Reader:
    """
    Asks for the metrics again and again, whichever process answers.

    @ivar fallen: the counters that had less than before.
    """

    daemon: Several
    values: dict[Any, float] = field(factory=dict)
    fallen: list[Any] = field(factory=list)
    reads: int = 0
    _reading: Deferred[None] | None = None

    async def read(self) -> dict[Any, float]:
        now = samples((await self.daemon.get("/metrics")).body)
        # What a process has of its own, such as its CPU time, ends with it.
        self.fallen += [
            sample
            for sample, before in self.values.items()
            if sample[0].endswith(COUNTED)
            and not sample[0].startswith("process_")
            and now.get(sample, 0.0) < before
        ]
        self.values = now
        self.reads += 1
        return now

    def begin(self) -> Reader:
        self._reading = Deferred.fromCoroutine(self._read_on())
        return self

    async def _read_on(self) -> None:
        while True:
            # What is asked of one that is killed is not answered.
            with suppress(AssertionError):
                await self.read()
            await deferLater(reactor, 0.2)

    async def end(self) -> dict[Any, float]:
        """The metrics, which must not have fallen at any time."""
        assert self._reading is not None
        self._reading.cancel()
        with suppress(CancelledError):
            await self._reading
        values = await self.read()
        assert self.reads > 5
        assert self.fallen == []
        return values


COUNTED = ("_total", "_count", "_sum", "_bucket")
PROCESSES = ("processes", frozenset[Any]())


def answered(values: dict[Any, float]) -> float:
    return sum(value for (name, _), value in values.items() if name == "requests_total")


def are_gone(pids: Sequence[int]) -> Callable[[], bool]:
    return lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids)


@asynccontextmanager
async def several(folder: Path, **more: str) -> AsyncIterator[Several]:
    upstream, manager = FakeNewApi(), Manager()
    upstream.always(tell_back)
    listening = reactor.listenUNIXDatagram(str(folder / "notify"), manager)
    port = free_port()
    environ = environment(
        folder,
        STREAM_PORT=str(port),
        GEMINI_PROXY_URL=upstream.url,
        UPSTREAM_URL=upstream.url,
        NOTIFY_SOCKET=str(folder / "notify"),
        WATCHDOG_USEC=str(WATCHDOG * 1_000_000),
        **more,
    )
    daemon = Running.start([TWISTD, "-n", "--pidfile=", "gemproxy"], folder, environ)
    try:
        found = Several(port, daemon, upstream, manager, folder)
        await until(lambda: "READY=1" in manager.heard, "the daemon is ready")
        assert sorted(found.pids()) == sorted(children(daemon.pid))
        yield found
    finally:
        started = re.findall(r"serves \(pid (\d+)\)", daemon.log.read_text())
        daemon.stop()
        await listening.stopListening()
        await upstream.stop_listening()
        await until(are_gone([int(pid) for pid in started]), "no process is left")


@ensureDeferred
async def test_they_are_replaced_one_after_the_other_and_end_together(tmp_path: Path) -> None:
    """Under load. All that is written down is: nobody's line is lost."""
    config = tmp_path / "config.toml"
    config.write_text("")
    more = {"LOG_KEEP": "100000", "USAGE_DAYS": "1"}
    async with several(tmp_path, GEMPROXY_CONFIG=str(config), **more) as daemon:
        first = daemon.pids()
        reader = Reader(daemon).begin()
        talks = daemon.begin_talks(CLIENTS, 20)
        await daemon.until_right(CLIENTS)
        daemon.daemon.process.send_signal(signal.SIGHUP)
        await gatherResults(talks)
        assert (daemon.right, daemon.cut, daemon.refused) == (CLIENTS * 20, set(), set())
        await daemon.until_logged("all processes were replaced")
        second = daemon.pids()
        assert len({*first, *second}) == 4
        assert sorted(children(daemon.daemon.pid)) == sorted(second)
        assert daemon.manager.states() == ["READY=1", "RELOADING=1", "READY=1"]
        values = await reader.end()
        assert (answered(values), values[PROCESSES]) == (CLIENTS * 20, 2)

        # With bad settings they stay as they are: be it that the parent notices, or a new process.
        config.write_text("nonsense = 1")
        daemon.daemon.process.send_signal(signal.SIGHUP)
        await daemon.until_logged("all processes stay as they are: .*nonsense")
        config.write_text(f"LOG_DIR = '{config}/below'")
        daemon.daemon.process.send_signal(signal.SIGHUP)
        await daemon.until_logged("process 1 is not replaced, nor any after it: ")
        assert daemon.pids() == second

        clients, held = await daemon.begin_streams(6)
        daemon.daemon.process.terminate()
        await daemon.until_logged("waiting up to 60 s for")
        await until(daemon.refuses, "connections are refused")
        for call in held[:4]:
            await call.send(event(chunk(" ended", finish="stop")) + DONE)
            call.end()
        await until(lambda: sum(b"ended" in one.received for one in clients) == 4, "four end")
        daemon.daemon.process.terminate()
        replies = [await client.reply() for client in clients]
        assert sum(reply.data[-1] == "[DONE]" for reply in replies) == 4
        assert sum("stopping" in str(reply.data[-1]) for reply in replies) == 2
        assert await deferToThread(daemon.daemon.process.wait, 30) == -signal.SIGTERM
        assert daemon.manager.states()[-1] == "STOPPING=1"
        assert list((tmp_path / "gemproxy").iterdir()) == []
    asked = CLIENTS * 20 + len(clients)
    with closing(sqlite3.connect(tmp_path / "data" / "usage.sqlite3")) as usage:
        assert usage.execute("SELECT sum(requests) FROM day").fetchone() == (asked,)
    numbers = sorted(int(path.name[:6]) for path in (tmp_path / "logs").glob("*_output.txt"))
    assert numbers == list(range(1, asked + 1))


@ensureDeferred
async def test_one_that_is_killed_or_hangs_is_replaced_and_none_outlives_the_parent(
    tmp_path: Path,
) -> None:
    async with several(tmp_path) as daemon:
        one, two = daemon.pids()
        reader = Reader(daemon).begin()
        talks = daemon.begin_talks(CLIENTS, 16)
        await daemon.until_right(CLIENTS)
        asking = set(daemon.asking)
        os.kill(one, signal.SIGKILL)
        await gatherResults(talks)
        # What it had is lost. The other serves on.
        assert daemon.cut <= asking
        assert (daemon.right + len(daemon.cut), daemon.refused) == (CLIENTS * 16, set())
        await daemon.until_logged("process 1 was ended by SIGKILL; another one is started in 1 s")
        await daemon.until_logged("process 1 serves", 2)

        os.kill(two, signal.SIGSTOP)
        processes = (await daemon.get("/health")).json["processes"]
        assert [one["status"] for one in processes] == ["ok", "silent"]
        await daemon.until_logged("process 2 gives no sign of life: it is killed")
        await daemon.until_logged("process 2 serves", 2)
        assert are_gone([one, two])()
        values = await reader.end()
        # What was counted after the last time that it was told is lost; nothing counts twice.
        assert CLIENTS * 8 <= answered(values) <= CLIENTS * 16
        assert values[PROCESSES] == 2
        assert daemon.manager.states() == ["READY=1"]
        assert (await daemon.ask(gpt("Hello", stream=True))).content == told("Hello")

        clients, _ = await daemon.begin_streams(4)
        left = daemon.pids()
        daemon.daemon.process.kill()
        for client in clients:
            # No cut connection: an error.
            assert "stopping" in (await client.reply()).data[-1]["error"]["message"]
        await until(are_gone(left), "no process is left")


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a start that is not to succeed."""
    return subprocess.run(
        [TWISTD, "-n", "--pidfile=", "gemproxy", *arguments],
        cwd=folder,
        env=environment(folder, GEMINI_PROXY_URL="http://127.0.0.1:1", **more),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_keeps_all_from_starting_is_said_once_and_ends_the_parent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        taken = run(tmp_path, STREAM_PORT=str(busy.getsockname()[1]))
    bad = run(tmp_path, STREAM_PORT="0", LOG_DIR="/proc/nowhere")
    for result, words in ((taken, "in use"), (bad, "(LOG_DIR)")):
        assert result.returncode == 1
        output = result.stdout + result.stderr
        [said] = [line for line in output.splitlines() if "gemproxy: " in line]
        assert words in said
        assert "Traceback" not in output
    assert list((tmp_path / "gemproxy").iterdir()) == []


@pytest.mark.cli
@ensureDeferred
async def test_in_the_background_with_the_cli(tmp_path: Path) -> None:
    """One log file, one number of CLI workers for all, and none of them outlives the parent."""
    log, pidfile = tmp_path / "twistd.log", tmp_path / "twistd.pid"
    path = f"{Path(CLI).parent}:{os.environ['PATH']}"
    ports = {"PORT": str(free_port()), "STREAM_PORT": "off", "GEMINI_WORKERS": "3"}
    environ = environment(tmp_path, PATH=path, **ports)
    command = [TWISTD, "gemproxy", "--demo"]
    await deferToThread(lambda: subprocess.run(command, cwd=tmp_path, env=environ, check=True))
    parent = int(pidfile.read_text())
    try:
        client = Talks(int(ports["PORT"]))
        await until(lambda: log.read_text().count(" serves (pid ") == 2, "both serve", 60)
        await until(lambda: len(processes_at_home_in(tmp_path)) == 2, "each has a worker")
        body = gpt("Hello") | {"model": "gemini-2.5-flash"}
        answers = await client.ask_all([body] * 8)
        assert {answer.status for answer in answers} == {200}
        for number in (1, 2):
            assert f"[process {number}, gemproxy." in log.read_text()
        # One is always there that has a warm worker.
        os.kill(parent, signal.SIGHUP)
        while "all processes were replaced" not in log.read_text():
            assert (await client.get("/ready")).status == 200
            await deferLater(reactor, 0.1)
        left = children(parent)
    finally:
        os.kill(parent, signal.SIGKILL)
    await until(are_gone(left), "no process is left")
    await until(lambda: not processes_at_home_in(tmp_path), "no CLI process is left")
