"""How a daemon ends: what is under way comes to its end, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import deferLater

from gemproxy.service import Patience
from testing.fake_newapi import FakeNewApi, answer, chunk, events, stream
from testing.google import scenarios
from testing.google.app import StandIn
from testing.processes import processes_at_home_in
from tests.support import (
    CLI,
    Client,
    Connection,
    chat,
    free_port,
    gpt,
    running_relay,
    until,
)

pytestmark = pytest.mark.slow

TWISTD = str(Path(sys.executable).with_name("twistd"))
HALF = events(*answer("Half")[:2], then="hang")


@define
class Process(Client):
    """A daemon in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path
    runs: Path

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def until_ended(self, seconds: float = 20.0) -> int:
        await until(lambda: self.process.poll() is not None, "the process has ended", seconds)
        assert processes_at_home_in(self.runs) == []
        assert not self.runs.exists() or list(self.runs.iterdir()) == []
        assert "Traceback" not in self.log.read_text()
        return self.process.returncode

    async def until_closed_to_all(self) -> None:
        """Wait until nobody gets in any more."""
        await until(lambda: not listens(self.port), "the port is closed")
        with pytest.raises(ConnectionRefusedError):
            await self.connect()

    async def is_healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        connection = await self.connect()
        connection.send("GET", "/health")
        status = (await connection.reply()).status
        connection.drop()
        return status == 200


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def spawned(folder: Path, environ: dict[str, str], output: Any) -> subprocess.Popen[bytes]:
    command = [TWISTD, "-n", "--pidfile=", "gemproxy"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdout=output,
        stderr=output,
        # A shell has its background jobs ignore it, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@asynccontextmanager
async def started(folder: Path, **settings: object) -> AsyncIterator[Process]:
    """A daemon with a Stream Proxy on C{port}; settings by their environment variables."""
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(folder),
        "GEMINI_CLI": CLI,
        "PORT": "off",
        "STREAM_PORT": str(port),
        "LOG_DIR": "",
        "USAGE_DAYS": "0",
    } | {name: str(value) for name, value in settings.items()}
    log = folder / "log"
    with log.open("wb") as output:
        process = spawned(folder, environ, output)
    daemon = Process(port, process, log, folder / "gemproxy")
    try:
        await until(lambda: listens(port) or process.poll() is not None, "it listens", 60)
        end = reactor.seconds() + 60
        while not await daemon.is_healthy():
            assert reactor.seconds() < end
            await deferLater(reactor, 0.05)
        yield daemon
    finally:
        daemon.drop_all()
        if process.poll() is None:
            process.kill()
            process.wait()


@asynccontextmanager
async def relaying(folder: Path, **settings: object) -> AsyncIterator[tuple[Process, FakeNewApi]]:
    """A daemon that only relays, and its upstream."""
    upstream = FakeNewApi()
    urls = {"GEMINI_PROXY_URL": upstream.url, "UPSTREAM_URL": upstream.url}
    try:
        async with started(folder, **(urls | settings)) as daemon:
            yield daemon, upstream
    finally:
        await upstream.stop()


@asynccontextmanager
async def with_api(folder: Path, **settings: object) -> AsyncIterator[tuple[Process, StandIn]]:
    """A daemon with a worker, and what it takes for Google."""
    api = StandIn(reactor)
    port = reactor.listenTCP(0, api.site(), interface="127.0.0.1")
    urls = {
        "GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{port.getHost().port}",
        "GEMINI_API_KEY": "the-key",
        "UPSTREAM_URL": "http://127.0.0.1:1",
    }
    try:
        async with started(folder, **(urls | settings)) as daemon:
            yield daemon, api
    finally:
        await port.stopListening()
        await api.stop()


async def begun(daemon: Client, count: int = 1, **fields: object) -> list[Connection]:
    """Streams that have begun."""
    clients = [await daemon.begin(gpt(stream=True, **fields)) for _ in range(count)]
    for client in clients:
        await client.until_received(b"Half")
    return clients


# The whole process


@ensureDeferred
async def test_requests_under_way_are_finished_and_new_ones_are_refused(tmp_path: Path) -> None:
    async with relaying(tmp_path) as (daemon, upstream):
        finish: Deferred[None] = Deferred()

        async def two_parts(call: object) -> None:
            await events(*answer("Half")[:2], then="hang")(call)
            await finish
            rest = [*answer(" and the rest")[1:]]
            await call.send(b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in rest) + b"0\r\n\r\n")
            call.end()

        upstream.play(two_parts, two_parts, two_parts)
        (streaming,) = await begun(daemon)
        plain = await daemon.begin(gpt())
        passed = await daemon.send("POST", "/v1/completions", {"stream": True})
        await passed.until_received(b"Half")
        # This one has sent no more than the beginning of its request.
        late = await daemon.connect()
        late.transport.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 63\r\n\r\n{"
        )
        idle = await daemon.connect()
        idle.send("GET", "/health")
        assert (await idle.reply()).status == 200
        idle.received.clear()
        await upstream.when_asked(2)

        daemon.signal(signal.SIGTERM)
        await daemon.until_closed_to_all()
        idle.send("GET", "/ready")
        ready = await idle.reply()
        assert (ready.status, ready.json) == (503, {"ready": False, "status": "stopping"})
        idle.received.clear()
        idle.send("POST", "/v1/chat/completions", gpt())
        refused = await idle.reply()
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")

        late.transport.write(b'"model": "gpt-x", "messages": []' + b" " * 29 + b"}")
        assert (await late.reply()).content == "Hello"
        assert not streaming.closed
        finish.callback(None)
        for client in (streaming, passed):
            reply = await client.reply()
            assert reply.content == "Half and the rest"
            assert reply.data[-1] == "[DONE]"
        assert (await plain.reply()).content == "Half and the rest"
        assert await daemon.until_ended() == -signal.SIGTERM


@ensureDeferred
async def test_an_answer_that_exceeds_the_drain_is_ended_with_an_error(tmp_path: Path) -> None:
    async with relaying(tmp_path, DRAIN=0.5) as (daemon, upstream):
        upstream.always(HALF)
        streaming = await begun(daemon, 3)
        plain = await daemon.begin(gpt())
        passed = await daemon.send("POST", "/v1/completions", {"stream": True})
        await passed.until_received(b"Half")
        await upstream.when_asked(4)

        began = reactor.seconds()
        daemon.signal(signal.SIGTERM)
        for client in [*streaming, passed]:
            reply = await client.reply()
            assert reply.content == "Half"
            assert reply.data[-1]["error"]["code"] == "overloaded"
        told = await plain.reply()
        assert (told.status, told.headers["retry-after"]) == (503, "5")
        assert reactor.seconds() - began >= 0.5
        assert await daemon.until_ended(5) == -signal.SIGTERM
        for call in upstream.calls:
            await call.when_closed()


@pytest.mark.cli
@ensureDeferred
async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with with_api(tmp_path, DRAIN=60) as (daemon, api):
        api.play(scenarios.hang("Half", after=1), scenarios.hang())
        (streaming,) = await begun(daemon, model="gemini-x")
        plain = await daemon.begin(chat())
        await api.when_request(1)
        daemon.signal(signal.SIGTERM)
        await daemon.until_closed_to_all()
        assert not streaming.closed
        assert not plain.received

        began = reactor.seconds()
        daemon.signal(signal.SIGTERM)
        reply = await streaming.reply()
        assert reply.content == "Half"
        assert reply.data[-1]["error"]["code"] == "overloaded"
        assert (await plain.reply()).status == 503
        await daemon.until_ended(5)
        assert reactor.seconds() - began < 5


@ensureDeferred
async def test_ctrl_c_is_such_a_signal_too(tmp_path: Path) -> None:
    async with relaying(tmp_path, DRAIN=60) as (daemon, upstream):
        upstream.always(HALF)
        (streaming,) = await begun(daemon)
        daemon.signal(signal.SIGINT)
        await daemon.until_closed_to_all()
        daemon.signal(signal.SIGINT)
        assert (await streaming.reply()).data[-1]["error"]["code"] == "overloaded"
        await daemon.until_ended(5)


@pytest.mark.cli
@ensureDeferred
async def test_a_terminal_that_goes_away_is_no_reason_to_end(tmp_path: Path) -> None:
    async with with_api(tmp_path) as (daemon, api):
        api.play(scenarios.answer("Half", " and", " the", " rest", pace=0.2))
        (streaming,) = await begun(daemon, model="gemini-x")
        workers = processes_at_home_in(daemon.runs)
        daemon.signal(signal.SIGHUP)
        assert (await streaming.reply()).content == "Half and the rest"
        assert (await daemon.get("/health")).status == 200
        assert processes_at_home_in(daemon.runs) == workers

        # An answer through a worker that comes to its end while the daemon does.
        api.play(scenarios.answer("Half", " and", " the", " rest", pace=0.2))
        (streaming,) = await begun(daemon, model="gemini-x")
        daemon.signal(signal.SIGTERM)
        reply = await streaming.reply()
        assert (reply.content, reply.data[-1]) == ("Half and the rest", "[DONE]")
        await daemon.until_ended()


@ensureDeferred
async def test_a_hangup_reads_the_configuration_anew(tmp_path: Path) -> None:
    url = "http://127.0.0.1:1"
    file = tmp_path / "gemproxy.toml"
    file.write_text(f"[[upstream]]\nname = 'a'\nurl = '{url}'\n")
    async with started(tmp_path, GEMINI_PROXY_URL=url, GEMPROXY_CONFIG=file) as daemon:
        file.write_text(f"{file.read_text()}[routes]\n'alias' = 'nowhere/x'\n")
        daemon.signal(signal.SIGHUP)
        await until(lambda: "stays as it is" in daemon.log.read_text(), "it is refused")
        assert "route 'alias'" in daemon.log.read_text()
        file.write_text(file.read_text().replace("nowhere", "a"))
        daemon.signal(signal.SIGHUP)
        await until(lambda: "was read anew" in daemon.log.read_text(), "it is read")
        routes = (await daemon.get("/admin/routes")).body.decode()
        assert re.search("alias +-> +a/x", routes)


def test_a_stream_port_that_is_taken_is_an_error_at_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        result = subprocess.run(
            [TWISTD, "-n", "--pidfile=", "gemproxy"],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PORT": "off",
                "STREAM_PORT": port,
                "GEMINI_PROXY_URL": "http://127.0.0.1:1",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert result.returncode == 1
    assert port in result.stdout + result.stderr
    assert "in use" in result.stdout + result.stderr


# What a client that is slow gets


@ensureDeferred
async def test_not_a_byte_of_a_finished_answer_is_cut() -> None:
    text = "x" * 20_000_000
    async with running_relay(Patience(last_words=0.1), DRAIN=20) as relay:
        relay.upstream.play(events(chunk(text), *answer()[1:]))
        client = await relay.begin(gpt())
        client.transport.pauseProducing()
        await until(lambda: relay.daemon._admission.open, "it is under way")
        await until(lambda: not relay.daemon._admission.open, "it is answered")
        stopping = relay.daemon.stopService()
        gone: Deferred[None] = Deferred()
        reactor.callLater(0.5, gone.callback, None)
        await gone
        assert not stopping.called
        client.transport.resumeProducing()
        assert (await client.reply()).content == text
        await stopping


@ensureDeferred
async def test_a_client_that_takes_nothing_is_not_waited_for_longer_than_allowed() -> None:
    async with running_relay(Patience(last_words=0.1), DRAIN=0.3) as relay:
        relay.upstream.play(events(chunk("x" * 20_000_000), *answer()[1:]))
        client = await relay.begin(gpt())
        client.transport.pauseProducing()
        await until(lambda: relay.daemon._admission.open, "it is under way")
        await until(lambda: not relay.daemon._admission.open, "it is answered")
        began = reactor.seconds()
        await relay.daemon.stopService()
        assert 0.3 <= reactor.seconds() - began < 2
        assert not relay.daemon._connections[0].open


@ensureDeferred
async def test_stopping_is_at_once_where_nothing_is_under_way_but_pages_that_watch() -> None:
    async with running_relay(DRAIN=30) as relay:
        assert (await relay.ask(gpt())).status == 200
        idle = await relay.connect()
        page = await relay.send("GET", "/admin/live")
        await page.until_received(b"event: state")
        began = reactor.seconds()
        await relay.daemon.stopService()
        assert reactor.seconds() - began < 3
        await idle.when(lambda: idle.closed)
        assert (await page.reply()).status == 200


@ensureDeferred
async def test_many_streams_are_all_finished() -> None:
    async with running_relay(DRAIN=30) as relay:
        relay.upstream.always(stream("Half", *" and the rest", pace=0.02))
        clients = await begun(relay, 30)
        stopping = relay.daemon.stopService()
        for client in clients:
            reply = await client.reply()
            assert (reply.content, reply.data[-1]) == ("Half and the rest", "[DONE]")
        await stopping


@ensureDeferred
async def test_what_has_come_before_the_end_is_answered() -> None:
    """A balancer may send a request in the moment in which it hears that a daemon is to stop."""
    async with running_relay(DRAIN=10) as relay:
        relay.upstream.always(stream("late, but in time"))
        body = json.dumps(gpt(stream=True)).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
        )
        with socket.socket() as client:
            # The reactor sees nothing of it before the daemon is told to stop.
            client.connect(("127.0.0.1", relay.port))
            client.sendall(head.encode() + b"\r\n\r\n" + body)
            await relay.daemon.stopService()
            client.settimeout(5)
            with client.makefile("rb") as received:
                answer = received.read()
    assert b"200 OK" in answer
    assert b"late, but in time" in answer
