"""A real Redis server for tests, which goes away, stops and comes back as they say."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from twisted.internet.threads import deferToThread

from testing.processes import Running
from tests.support import until

_is_here = shutil.which("redis-server") is not None


def needs_redis(test: Callable[..., Any]) -> Callable[..., Any]:
    """The marks of a test that runs a server."""
    skipped = pytest.mark.skipif(not _is_here, reason="Redis is not installed")
    return pytest.mark.redis(skipped(test))


@define
class RedisServer:
    """
    Listens at a socket in a folder, and keeps nothing on a disk.

    @ivar options: those of its command line.
    """

    folder: Path
    options: tuple[str, ...] = ()
    running: Running | None = None

    @property
    def path(self) -> Path:
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def start(self) -> None:
        """It is empty."""
        self.path.unlink(missing_ok=True)
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.path), "--save", ""]
        self.running = Running.start([*command, *self.options], self.folder)
        await until(self._listens, "Redis listens")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.path)) == 0

    def signal(self, number: signal.Signals) -> None:
        assert self.running is not None
        self.running.process.send_signal(number)

    def end(self) -> None:
        """Kill it, whatever it does."""
        if self.running is not None:
            self.running.process.kill()
            self.running.process.wait()
            self.running = None

    async def command(self, *words: object) -> str:
        """What the server says to a command of somebody else's."""
        command = ["redis-cli", "-s", str(self.path), *map(str, words)]
        return await deferToThread(
            subprocess.check_output, command, text=True, timeout=20, stderr=subprocess.DEVNULL
        )


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """One that is not started yet."""
    server = RedisServer(folder, options)
    try:
        yield server
    finally:
        server.end()
