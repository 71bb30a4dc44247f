"""The state that daemons share, in a real Redis server that is away, slow, full or read only."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any, cast

import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher

from gemproxy.doctor.checks import Doctor
from gemproxy.state.server import Server
from gemproxy.state.shared import PROBES, Script, SharedState, StateAway, StatePatience
from gemproxy.state.url import StateUrl, parse_state_url
from testing.processes import Running, free_port
from testing.tls import make_certificate
from tests.redis_server import RedisServer, needs_redis, redis_server
from tests.support import Relay, assert_no_failures, running_relay, until

INCREASE = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
SECRET = "hunter2-hunter2"  # noqa: S105
# A busy machine is no reason to be late; where that is the point, it is another patience.
CALM = StatePatience(answer=5, interval=0.1, delay=0.05, longest_delay=0.1)
AWAY, BACK = "the shared state is away (", "the shared state is there again: "
QUICK = StatePatience(interval=0.1, silence=0.4, delay=0.05, longest_delay=0.1)


# Addresses


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redis://a", StateUrl("redis", (("a", 6379),))),
        ("rediss://[::1]:7/3", StateUrl("rediss", (("::1", 7),), database=3)),
        (
            f"VALKEY://me:{SECRET}%40@a/",
            StateUrl("valkey", (("a", 6379),), user="me", password=f"{SECRET}@"),
        ),
        (
            f"unix://:{SECRET}@/run/a.sock?db=2",
            StateUrl("unix", (), path="/run/a.sock", database=2, password=SECRET),
        ),
        (
            f"redis+sentinel://:{SECRET}@a,b:1/main/4",
            StateUrl(
                "redis+sentinel", (("a", 26379), ("b", 1)), "main", database=4, password=SECRET
            ),
        ),
    ],
)
def test_an_address_is_read_as_clients_of_redis_write_it(text: str, url: StateUrl) -> None:
    parsed = parse_state_url(text)
    assert parsed == url
    assert SECRET not in f"{parsed} {parsed!r}"
    if url.password is None:
        assert parse_state_url(str(parsed)) == url


@pytest.mark.parametrize(
    "text",
    ["a:6379", "http://a", "redis://", "redis://a,b", "redis://a:0", "redis://a:x", "redis://a/x",
     "redis://a/1/2", "redis://a?db=1", "redis://me@a", "redis://a#b", "redis://a b",
     "redis://[::1", "redis+sentinel://a", "redis+sentinel://a/", "unix://a/b", "unix:///",
     "unix:///a?db=x", f"unix:///a?password={SECRET}"],
)  # fmt: skip
def test_what_is_no_address_is_told_without_what_is_secret(text: str) -> None:
    with pytest.raises(ValueError, match=r"redis://\[") as raised:
        parse_state_url(text)
    assert SECRET not in str(raised.value)


# A server


@define
class Asking:
    """@ivar logged: everything."""

    server: RedisServer
    state: SharedState
    logged: list[Any] = field(factory=list)

    @property
    def told(self) -> list[str]:
        """The lines about it, without where it is."""
        mine = (event for event in self.logged if event.get("log_source") is self.state)
        return [formatEvent(event).partition(self.server.url)[0] for event in mine]

    async def until_there(self) -> None:
        await until(lambda: not self.state.is_away, "the state is there")

    async def count(self, number: int = 1) -> Any:
        return await self.state.run(INCREASE, ["count"], number)

    async def why_not(self) -> str:
        with pytest.raises(StateAway) as raised:
            await self.count()
        return str(raised.value)


@asynccontextmanager
async def asking(
    server: RedisServer, patience: StatePatience = QUICK, url: str = ""
) -> AsyncIterator[Asking]:
    state = SharedState(reactor, Server(reactor, parse_state_url(url or server.url)), patience)
    one = Asking(server, state)
    globalLogPublisher.addObserver(one.logged.append)
    state.startService()
    try:
        yield one
    finally:
        await state.stopService()
        globalLogPublisher.removeObserver(one.logged.append)
    assert_no_failures(one.logged)


@needs_redis
@ensureDeferred
async def test_what_one_keeps_another_finds_until_the_server_is_started_anew(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as server:
        async with asking(server, CALM) as one, asking(server, CALM) as other:
            assert await one.why_not() == "it is not connected yet"
            # It comes up later than the daemon.
            await until(lambda: one.told, "somebody is told")
            await server.start()
            await one.until_there()
            await other.until_there()
            assert await one.count() == 1
            assert await other.count(2) == 3
            assert await one.state.get("a") is None
            assert await one.state.put("a", b"\0", 100, if_new=True)
            assert not await other.state.put("a", b"1", 100, if_new=True)
            assert await other.state.get("a") == b"\0"
            assert await other.state.delete("a", "b") == 1
            # Sent at once, and answered in their order.
            answers = await gatherResults([one.state.run(INCREASE, ["n"], 1) for _ in range(500)])
            assert answers == list(range(1, 501))
            # Somebody has it forget the scripts.
            await server.command("SCRIPT", "FLUSH")
            assert await one.count() == 4
            assert "gemproxy:count" in await server.command("KEYS", "*")

            # Killed, and empty when it is back.
            server.end()
            assert await one.why_not() == "it has closed the connection"
            assert one.state.is_away
            await server.start()
            returned: list[int] = []
            one.state.on_return.append(lambda: returned.append(1))
            await one.until_there()
            assert (await one.count(), returned) == (1, [1])
            assert one.told == [AWAY, BACK] * 2


@needs_redis
@ensureDeferred
async def test_one_that_stands_still_is_waited_for_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        await server.start()
        async with asking(server) as one:
            await one.until_there()
            server.signal(SIGSTOP)
            late: list[Any] = []
            since = reactor.seconds()
            asked = [one.state.run(INCREASE, ["count"], 1, late=late.append) for _ in range(2)]
            for waiting in asked:
                with pytest.raises(StateAway, match="did not answer within 20 ms"):
                    await waiting
            assert reactor.seconds() - since >= 0.02
            # Nobody waits for it again.
            refused: list[Any] = []
            one.state.run(INCREASE, ["count"], 1).addErrback(refused.append)
            assert refused
            await until(lambda: one.told[1:], "somebody is told")
            server.signal(SIGCONT)
            await one.until_there()
            assert late == [1, 2]
            assert await one.count() == 3
            # For so long that another connection is made.
            server.signal(SIGSTOP)
            await one.why_not()
            await until(lambda: one.state._connection is None, "the connection is given up")
            server.signal(SIGCONT)
            await one.until_there()
            assert one.told[1:3] == one.told[-2:] == [AWAY, BACK]


@needs_redis
@ensureDeferred
async def test_one_that_is_busy_for_a_moment_is_asked_again_when_it_has_answered(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as server:
        await server.start()
        # Nobody is told of a moment, but of what goes on, or comes again and again.
        patience = StatePatience(answer=0.05, interval=1)
        async with asking(server, patience) as one:
            await one.until_there()
            for turn in range(5):
                assert len(one.told) == 1
                if turn == 2:
                    await one.count()
                await server.command("CLIENT", "PAUSE", 150)
                assert "did not answer within 50 ms" in await one.why_not()
                assert one.state.is_away
                await one.until_there()
            assert one.told[1:] == [AWAY, BACK]


@needs_redis
@ensureDeferred
async def test_a_server_that_cannot_be_written_to_is_away_until_it_can(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", SECRET) as server:
        await server.start()
        url = f"unix://:{SECRET}@{server.path}?db=3"
        async with asking(server, CALM) as one, asking(server, CALM, url) as other:
            await other.until_there()
            await until(lambda: one.told, "somebody is told")
            assert "it says: NOAUTH" in await one.why_not()
            assert await other.count() == 1
            for command, undone, word in (
                ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
                ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
                (
                    "CONFIG SET min-replicas-to-write 1",
                    "CONFIG SET min-replicas-to-write 0",
                    "NORE",
                ),
                ("ACL SETUSER default -@scripting", "ACL SETUSER default +@all", "NOPERM"),
            ):
                await server.command("-a", SECRET, *command.split())
                assert f"it says: {word}" in await other.why_not()
                # It answers, but what is tried is to write, and to have a script run.
                await server.command("-a", SECRET, "CONFIG", "RESETSTAT")
                while not re.search(
                    r"cmdstat_set:.*calls=([2-9]|\d\d)",
                    await server.command("-a", SECRET, "INFO", "all"),
                ):
                    assert other.state.is_away
                await server.command("-a", SECRET, *undone.split())
                await other.until_there()
            assert await other.count() == 2
            assert "gemproxy:count" in await server.command("-a", SECRET, "-n", 3, "KEYS", "*")
        assert SECRET not in "".join([*one.told, *other.told])


@ensureDeferred
async def test_a_server_of_another_protocol_is_named_so_and_fills_no_log() -> None:
    factory = Factory.forProtocol(WebServer)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        reason = await problem(f"redis://127.0.0.1:{port.getHost().port}")
    finally:
        globalLogPublisher.removeObserver(logged.append)
        await port.stopListening()
    assert str(reason).startswith("it does not speak Redis' protocol: ")
    assert_no_failures(logged)


class WebServer(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def checked(relay: Relay) -> str:
    """What `gemproxy doctor` would say of it."""
    found = await Doctor(reactor, lambda: relay.daemon._config, {}).examine()
    (state,) = [one.state.value for one in found if one.check == "shared state"]
    return state


@needs_redis
@ensureDeferred
async def test_a_daemon_serves_without_it_and_says_that_it_is_away(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        async with running_relay(STATE_URL=server.url) as relay:
            health = (await relay.get("/health")).json
            assert health["status"] == "degraded"
            assert "it cannot be reached" in health["shared_state"]
            assert b"gemproxy_shared_state_up 0.0" in (await relay.get("/metrics")).body
            assert await checked(relay) == "failed"
            await until(lambda: relay.warnings, "the log has a warning")
            await server.start()
            assert relay.daemon._state is not None
            await until(lambda: not relay.daemon._state.is_away, "the state is there")
            assert (await relay.get("/health")).json == {"status": "ok"}
            assert b"gemproxy_shared_state_up 1.0" in (await relay.get("/metrics")).body
            assert await checked(relay) == "ok"
        assert sum("shared state" in warning for warning in relay.warnings) == 1


class Slow:
    """A server, and a connection to it, that answers when it is told to."""

    def __init__(self) -> None:
        self.url = parse_state_url("redis://slow")
        self.asked: list[Deferred[Any]] = []

    async def connect(self) -> Slow:
        return self

    def ask(self, *words: object) -> Deferred[Any]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def end(self) -> None:
        """Nothing."""

    def answer(self) -> None:
        self.asked.pop(0).callback(b"OK")


def test_time_in_which_this_process_was_busy_does_not_count() -> None:
    clock, server = Clock(), Slow()
    state = SharedState(clock, cast("Server", server))
    state.startService()
    for _ in PROBES:
        server.answer()
    failed: list[Any] = []

    def ask() -> None:
        state.get("a").addErrback(failed.append)

    ask()
    clock.advance(0.019)
    assert not state.is_away
    clock.advance(0.001)
    assert (state.is_away, len(failed)) == (True, 1)
    server.answer()
    assert not state.is_away
    # It may not even have been sent.
    ask()
    clock.advance(1)
    assert not state.is_away
    server.answer()
    clock.advance(1)
    assert (state.is_away, len(failed)) == (False, 1)
    # That is so once.
    ask()
    clock.advance(1)
    clock.advance(1)
    assert (state.is_away, len(failed)) == (True, 2)


# Ways to it


@needs_redis
@ensureDeferred
async def test_over_tls_its_certificate_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, port = make_certificate(tmp_path), free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file"]
    options += [str(certificate), "--tls-cert-file", str(certificate)]
    options += ["--tls-key-file", str(certificate)]
    with redis_server(tmp_path, *options) as server:
        await server.start()
        url = f"rediss://localhost:{port}"
        assert "has a certificate that is not trusted" in str(await problem(url))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await problem(url) is None
        assert "has a certificate" in str(await problem(f"rediss://127.0.0.1:{port}"))
        async with asking(server, CALM, url) as one:
            await one.until_there()
            assert await one.count() == 1


async def problem(url: str) -> str | None:
    return await Server(reactor, parse_state_url(url)).problem()


SENTINEL = """
port {sentinel}
sentinel monitor main 127.0.0.1 {master} 1
sentinel down-after-milliseconds main 300
sentinel failover-timeout main 1000
sentinel auth-pass main {secret}
"""


@needs_redis
@ensureDeferred
async def test_behind_sentinels_the_next_master_takes_over(tmp_path: Path) -> None:
    first, second, sentinel, nobody = [free_port() for _ in range(4)]
    secrets = ["--requirepass", SECRET, "--masterauth", SECRET, "--repl-diskless-sync-delay", "0"]
    replica = ["--replicaof", "127.0.0.1", str(first), "--replica-priority", "1"]
    with (
        redis_server(tmp_path / "1", "--port", str(first), *secrets) as one,
        redis_server(tmp_path / "2", "--port", str(second), *secrets, *replica) as two,
    ):
        await one.start()
        await two.start()
        settings = tmp_path / "sentinel.conf"
        settings.write_text(SENTINEL.format(sentinel=sentinel, master=first, secret=SECRET))
        watching = Running.start(["redis-server", str(settings), "--sentinel"], tmp_path / "3")
        try:
            await deferToThread(watching.until_listening, sentinel)
            # The first of them is not there.
            places = f"127.0.0.1:{nobody},127.0.0.1:{sentinel}"
            assert "no Sentinel knows of 'other'" in str(
                await problem(f"redis+sentinel://127.0.0.1:{sentinel}/other")
            )
            url = f"redis+sentinel://:{SECRET}@{places}/main"
            async with asking(one, CALM, url) as asker:
                await asker.until_there()
                assert await asker.count() == 1
                while f":{second}," not in await sentinel_says(sentinel):
                    pass
                while await one.command("-a", SECRET, "WAIT", 1, 1000) != "1\n":
                    pass
                one.end()
                await until(lambda: asker.state.is_away, "the master is gone")
                await asker.until_there()
                # What was kept is still there.
                assert await asker.count() == 2
                assert await two.command("-a", SECRET, "GET", "gemproxy:count") == "2\n"
        finally:
            watching.stop()


async def sentinel_says(port: int) -> str:
    """Of its replicas, each of which is named by its address."""
    command = ["redis-cli", "-p", str(port), "SENTINEL", "REPLICAS", "main"]
    return (await deferToThread(subprocess.check_output, command, text=True, timeout=20)).replace(
        "\n", ","
    )
