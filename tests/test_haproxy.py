"""Three replicas behind HAProxy, as deploy/haproxy.cfg has it, under load and in trouble."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attrs import define
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from testing.fake_newapi import EVENT_STREAM, Call, FakeNewApi, chunk, event
from testing.processes import Running, free_port
from tests.support import ROOT, gpt
from tests.talks import Talks, tell_back

NAMES = ("one", "two", "three")
pytestmark = [
    pytest.mark.haproxy,
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed"),
]


@define
class Balanced(Talks):
    """@ivar commands: the path of the socket that takes HAProxy's commands."""

    replicas: dict[str, Running]
    upstream: FakeNewApi
    commands: str

    async def command(self, text: str) -> str:
        return await deferToThread(self._command, text)

    def _command(self, text: str) -> str:
        with socket.socket(socket.AF_UNIX) as commands:
            commands.connect(self.commands)
            commands.sendall(text.encode() + b"\n")
            return commands.makefile().read()

    async def until_up(self, name: str) -> None:
        """Wait until HAProxy knows that a replica serves: on a slow machine it may be in doubt."""
        is_up = re.compile(rf"gemproxy \d+ {name} \S+ 2 ")
        while not is_up.search(await self.command("show servers state gemproxy")):
            await deferLater(reactor, 0.05)

    async def under_way(self, name: str) -> int:
        """Requests that HAProxy has at a replica."""
        lines = (await self.command("show servers conn gemproxy")).splitlines()
        return next(int(line.split()[6]) for line in lines if f"gemproxy/{name} " in line)


@async_yield_fixture()
async def balanced(tmp_path: Path) -> AsyncIterator[Balanced]:
    upstream = FakeNewApi()
    upstream.always(tell_back)
    ports = {name: free_port() for name in NAMES}
    twistd = str(Path(sys.executable).with_name("twistd"))
    replicas = {
        name: Running.start(
            [twistd, "-n", "--pidfile=", "gemproxy"],
            tmp_path / name,
            {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "PORT": "off",
                "STREAM_PORT": str(port),
                "GEMINI_PROXY_URL": upstream.url,
                "UPSTREAM_URL": upstream.url,
                "LOG_DIR": "",
                "USAGE_DAYS": "0",
                "DRAIN": "20",
            },
        )
        for name, port in ports.items()
    }
    commands = str(tmp_path / "haproxy.sock")
    servers = "\n".join(f"    server {name} 127.0.0.1:{port}" for name, port in ports.items())
    given = (ROOT / "deploy/haproxy.cfg").read_text()
    config = tmp_path / "haproxy.cfg"
    config.write_text(re.sub(r"(?m)^    server-template .*$", servers, given))
    number = free_port()
    balancer = None
    try:
        for name, port in ports.items():
            await deferToThread(replicas[name].until_listening, port)
        environ = {"HAPROXY_SOCKET": commands, "HAPROXY_BIND": f"127.0.0.1:{number}"}
        command = [str(shutil.which("haproxy")), "-f", str(config)]
        balancer = Running.start(command, tmp_path, environ)
        await deferToThread(balancer.until_listening, number)
        yield Balanced(number, replicas, upstream, commands)
    finally:
        for process in (*replicas.values(), *([balancer] if balancer else [])):
            process.process.send_signal(signal.SIGCONT)
            process.stop()
        await upstream.stop_listening()


async def fewest_first(balanced: Balanced) -> None:
    """The replica with the fewest requests under way gets the next one."""
    held: list[Call] = []

    async def hold(call: Call) -> None:
        await call.whole()
        held.append(call)
        await call.head(headers=[EVENT_STREAM])
        await call.send(event(chunk("a")))

    balanced.upstream.play(*[hold] * 9)
    for number in range(9):
        connection = await balanced.begin(gpt(str(number), stream=True))
        await connection.until_received(b'"content":"a"')
    assert [await balanced.under_way(name) for name in NAMES] == [3, 3, 3]
    # A client that goes ends its answer at the upstream, though nothing comes from there.
    balanced.drop_all()
    for call in held:
        await call.when_closed()


@ensureDeferred
async def test_nobody_notices_what_happens_to_replicas(balanced: Balanced) -> None:
    """Under load, one is drained and stopped, one stands still for a while, and one is killed."""
    await fewest_first(balanced)
    clients, turns = 20, 12
    talks = balanced.begin_talks(clients, turns)
    await balanced.until_right(clients)
    one, two, three = balanced.replicas.values()

    # What it has begun ends well, and it gets nothing else.
    await balanced.command("set server gemproxy/one state drain")
    assert await balanced.under_way("one") > 0
    one.process.terminate()
    await deferToThread(one.process.wait, 30)
    assert balanced.cut == set()

    # Requests that it has wait for it; others go elsewhere.
    two.process.send_signal(signal.SIGSTOP)
    before = balanced.right
    await balanced.until_right(before + clients)
    two.process.send_signal(signal.SIGCONT)
    assert balanced.cut == set()
    await balanced.until_up("two")

    # Its answers are lost. Nobody else's are: those that find its port closed go elsewhere.
    three.process.kill()
    # Nobody asks before it has ended: until then, its port takes connections.
    three.process.wait(30)
    asking = set(balanced.asking)
    await gatherResults(talks)
    assert balanced.cut <= asking
    assert balanced.refused == set()
    assert balanced.right + len(balanced.cut) == clients * turns
    # Nothing that was begun was sent again.
    asked = [call.json["messages"][0]["content"] for call in balanced.upstream.calls]
    assert len(asked) == len(set(asked))
