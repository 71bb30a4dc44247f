"""A wall clock that is set while answers are under way: a daemon in a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from time import time

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from testing.fake_newapi import EVENT_STREAM, Call, FakeNewApi, answer
from testing.processes import Running, free_port
from testing.wall_clock import WallClock
from tests.support import ROOT, Client, Connection, gpt, until

pytestmark = pytest.mark.slow

HOUR = 3600.0


@asynccontextmanager
async def daemon(folder: Path, upstream: FakeNewApi) -> AsyncIterator[tuple[Client, WallClock]]:
    client, clock = Client(free_port()), WallClock(folder / "wall-clock")
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "GEMINI_PROXY_URL": upstream.url,
        "UPSTREAM_URL": upstream.url,
        "PORT": "off",
        "STREAM_PORT": str(client.port),
        "LOG_DIR": str(folder / "logs"),
        "HEARTBEAT_INTERVAL": "0.1",
        "EARLY_HEARTBEATS": "true",
        "DRAIN": "0",
    }
    command = [*clock.twistd, "-n", "--pidfile=", "gemproxy"]
    running = Running.start(command, folder / "run", environ)
    try:
        await until(lambda: "is running" in running.last_words(), "the daemon runs")
        yield client, clock
    finally:
        client.drop_all()
        running.stop()
    assert "Traceback" not in running.log.read_text()


async def until_beats(connection: Connection) -> None:
    """Wait for some more heartbeats."""
    wanted = connection.received.count(b": heartbeat") + 3
    await connection.when(
        lambda: connection.closed or connection.received.count(b": heartbeat") >= wanted, 10
    )


@ensureDeferred
async def test_setting_the_clock_neither_cuts_answers_nor_stops_heartbeats(tmp_path: Path) -> None:
    upstream, rest = FakeNewApi(), Deferred[None]()

    async def slowly(call: Call) -> None:
        await call.whole()
        await call.head(headers=[EVENT_STREAM])
        first, *more = answer("One", " two")
        await call.send(first)
        await rest
        await call.send(b"".join(more))
        call.close()

    async with daemon(tmp_path, upstream) as (client, clock):
        upstream.play(slowly)
        connection = await client.begin(gpt(stream=True))
        await until_beats(connection)
        for ahead in (HOUR, -HOUR, 0.0):
            clock.set(ahead)
            await until_beats(connection)
            asked = len(upstream.calls)
            assert (await client.ask(gpt())).content == "Hello"
            assert len(upstream.calls) == asked + 1
        rest.callback(None)
        assert (await connection.reply()).content == "One two"
    dates = [
        datetime.fromisoformat(json.loads(path.read_bytes())["time"]).timestamp()
        for path in sorted((tmp_path / "logs").glob("*_input.json"))
    ]
    assert [round((date - time()) / HOUR) for date in dates] == [1, -1, 0, 0]
    await upstream.stop()
