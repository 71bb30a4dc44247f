"""Limits that accounts have at several daemons together, kept by a real Redis server."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from gemproxy.accounts import shared_limiter
from gemproxy.accounts.account import Account
from gemproxy.accounts.budget import Spent
from gemproxy.accounts.file import FILE, AccountsFile
from gemproxy.accounts.ledger import Ledger
from gemproxy.accounts.limiter import LocalLimiter, Permit
from gemproxy.accounts.records import limits_of_json
from gemproxy.accounts.shared_limiter import SharedLimiter
from gemproxy.chat.errors import ChatError
from gemproxy.state.server import Server
from gemproxy.state.shared import SharedState, StatePatience
from gemproxy.state.url import parse_state_url
from testing.fake_newapi import FakeNewApi, document
from testing.processes import Running, free_port
from tests.redis_server import RedisServer, needs_redis, redis_server
from tests.support import ROOT, Client, until

# A busy machine is no reason to be late.
CALM = StatePatience(answer=5, interval=0.05, delay=0.05, longest_delay=0.1)
LIVELY = StatePatience(answer=0.3, interval=0.05, delay=0.05, longest_delay=0.1)
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()


class Replica:
    """What a daemon has of it all."""

    def __init__(self, state: SharedState) -> None:
        self.state = state
        self.ledger, self.now = Ledger(), NOON
        local = LocalLimiter(self.ledger, reactor.seconds, lambda: self.now)
        self.limiter = SharedLimiter(local, self.ledger, state, reactor, lambda: self.now)

    async def until_there(self) -> None:
        await until(lambda: not self.state.is_away, "the state is there")

    async def begin(self, account: Account) -> Permit | ChatError:
        try:
            return await self.limiter.begin(account)
        except ChatError as error:
            return error

    async def admits(self, account: Account) -> bool:
        return isinstance(await self.begin(account), Permit)

    async def until_known(self) -> None:
        """Until the server knows what was told."""
        if not self.state.is_away:
            await self.state.get("nothing")

    async def charge(self, account: Account, tokens: int, cost: float = 0.0) -> None:
        self.limiter.charge(account.name, Spent(1, tokens, cost))
        await self.until_known()

    def left(self, account: Account) -> list[str]:
        return [value for name, value in self.limiter.headers(account) if "remaining" in name]


@asynccontextmanager
async def replicas(
    server: RedisServer, patience: StatePatience = CALM
) -> AsyncIterator[Sequence[Replica]]:
    url = parse_state_url(server.url)
    states = [SharedState(reactor, Server(reactor, url), patience) for _ in range(3)]
    some = [Replica(state) for state in states]
    for state in states:
        state.startService()
    try:
        for one in some:
            await one.until_there()
        yield some
    finally:
        for state in states:
            await state.stopService()


def account(name: str = "bob", **limits: Any) -> Account:
    return Account(name, limits_of_json(limits))


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with redis_server(tmp_path) as server:
        yield server


@needs_redis
@ensureDeferred
async def test_each_limit_is_for_all_of_them_together(server: RedisServer) -> None:
    await server.start()
    async with replicas(server) as (one, two, three):
        # Requests at once
        bob = account(concurrent=2)
        first, second = await one.begin(bob), await two.begin(bob)
        assert isinstance(first, Permit)
        assert isinstance(second, Permit)
        refusal = await three.begin(bob)
        assert isinstance(refusal, ChatError)
        assert (refusal.status, refusal.retry_after) == (429, 1)
        first.release()
        await one.until_known()
        assert await three.admits(bob)
        assert not await one.admits(bob)

        # Requests a minute, asked for at once by all
        eve = account("eve", requests_per_minute=600)
        since = reactor.seconds()
        results = await settled([each.limiter.begin(eve) for each in (one, two, three) * 600])
        took = reactor.seconds() - since
        # A minute's worth at once, and then what comes with time.
        assert 600 <= sum(isinstance(result, Permit) for result in results) <= 601 + 10 * took
        refused = next(result for result in results if isinstance(result, ChatError))
        assert "on requests per min (RPM): Limit 600" in refused.message
        assert refused.retry_after is not None
        assert 0 < refused.retry_after <= 0.1
        for each in (one, two, three):
            await each.admits(eve)
            assert int(each.left(eve)[0]) <= 1 + 10 * (reactor.seconds() - since)

        # Tokens a minute: what one has learnt, the next one knows.
        amy = account("amy", tokens_per_minute=100)
        for each in (one, two):
            assert await each.admits(amy)
            await each.charge(amy, 90)
        refusal = await three.begin(amy)
        assert isinstance(refusal, ChatError)
        assert "on tokens per min (TPM): Limit 100" in refusal.message
        assert refusal.retry_after == pytest.approx(48.6, abs=0.5)

        # Budgets
        for name, budget in (("dan", "100 tokens/day"), ("kim", "2USD/month")):
            dan = account(name, budgets=["1M tokens/month", budget])
            for each in (one, two, three):
                assert await each.admits(dan)
                await each.charge(dan, 40, 0.9)
            for each in (three, one):
                refusal = await each.begin(dan)
                assert isinstance(refusal, ChatError)
                assert f"used up: {budget}" in refusal.message
            assert one.ledger.spent(name, "day", NOON).tokens == 120
            assert one.ledger.spent(name, "month", NOON).cost == pytest.approx(2.7)
        # A limit that was raised begins with a full minute, and a day ends.
        assert await one.admits(account("eve", requests_per_minute=601))
        one.now += 86400
        assert await one.admits(account("dan", budgets=["100 tokens/day"]))


async def settled(asked: Sequence[Any]) -> list[Any]:
    results: list[Any] = []
    for one in asked:
        one.addErrback(lambda failure: failure.value).addCallback(results.append)
    await gatherResults(asked)
    return results


@needs_redis
@ensureDeferred
async def test_without_the_server_each_carries_on_from_what_it_knew(server: RedisServer) -> None:
    await server.start()
    bob = account(requests_per_minute=10, concurrent=5, budgets=["100 tokens/day"])
    async with replicas(server, LIVELY) as (one, two, _):
        held = [await one.begin(bob) for _ in range(3)]
        await one.charge(bob, 30)
        assert await two.admits(bob)
        assert two.left(bob) == ["6"]
        # Nobody waits for more than a moment, and nobody fails.
        server.signal(SIGSTOP)
        two.limiter.charge("bob", Spent(1, 69))
        assert await two.admits(bob)
        assert await two.admits(bob)
        assert two.left(bob) == ["4"]
        for _ in range(2):
            assert await two.admits(bob)
        # Its own requests at once are 5 now, and none of the others'.
        refusal = await two.begin(bob)
        assert isinstance(refusal, ChatError)
        assert "5 requests of 'bob' are under way" in refusal.message
        server.signal(SIGCONT)
        await two.until_there()
        await two.until_known()
        # What was counted meanwhile is known to all: once, though it came late.
        await one.until_there()
        refusal = await one.begin(bob)
        assert isinstance(refusal, ChatError)
        assert "under way" in refusal.message
        for permit in held:
            assert isinstance(permit, Permit)
            permit.release()
        await one.until_known()
        assert one.left(bob) == ["2"]
        assert one.ledger.spent("bob", "day", NOON).tokens == 99

        # The server is started anew: what they knew is there again.
        server.end()
        await until(lambda: one.state.is_away and two.state.is_away, "they know")
        await server.start()
        for each in (one, two):
            await each.until_there()
            await each.until_known()
        refusal = await one.begin(bob)
        assert isinstance(refusal, ChatError)
        assert "5 requests of 'bob' are under way" in refusal.message
        await two.charge(bob, 1)
        rich = account(concurrent=6, requests_per_minute=10, budgets=["100 tokens/day"])
        for _ in range(2):
            refusal = await one.begin(rich)
            assert isinstance(refusal, ChatError)
            assert "used up: 100 tokens/day" in refusal.message
            assert int(one.left(rich)[0]) < 5
            # Nor if that is lost again.
            await server.command("DEL", "gemproxy:spent:bob:2026-11-28", "gemproxy:requests:bob:10")


@needs_redis
@ensureDeferred
async def test_what_is_under_way_counts_as_long_as_its_daemon_lives(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_limiter, "_LEASE", 0.4)
    monkeypatch.setattr(shared_limiter, "_RENEWAL", 0.05)
    await server.start()
    bob = account(concurrent=1)
    async with replicas(server) as (one, two, _):
        permit = await one.begin(bob)
        assert isinstance(permit, Permit)
        end = reactor.seconds() + 1
        while reactor.seconds() < end:
            assert not await two.admits(bob)
            await deferLater(reactor, 0.02)
        # As if it were killed: nobody says that it has ended.
        await one.state.stopService()
        since = reactor.seconds()
        while not await two.admits(bob):
            await deferLater(reactor, 0.02)
        assert reactor.seconds() - since < 10
        permit.release()


@needs_redis
@ensureDeferred
async def test_what_ended_while_the_server_stood_still_counts_no_more(server: RedisServer) -> None:
    await server.start()
    bob = account(concurrent=1)
    async with replicas(server, LIVELY) as (one, two, _):
        permit = await one.begin(bob)
        assert isinstance(permit, Permit)
        server.signal(SIGSTOP)
        assert not await one.admits(bob)
        assert one.state.is_away
        permit.release()
        server.signal(SIGCONT)
        for each in (one, two):
            await each.until_there()
            await each.until_known()
        assert await two.admits(bob)


class Crowd(Protocol):
    """A connection on which all requests are sent at once."""

    def __init__(self, requests: bytes) -> None:
        self._requests = requests
        self.seen = bytearray()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._requests)

    def dataReceived(self, data: bytes) -> None:
        self.seen += data


async def ask_all(ports: Sequence[int], key: str, number: int) -> Counter[str]:
    """Ask so often on a connection to each port; the statuses, by their numbers."""
    # Without a body, so that a refusal does not end the connection.
    request = (
        b"POST /v1/moderations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
        b"Authorization: Bearer %s\r\n\r\n"
    ) % key.encode()
    factory = Factory.forProtocol(lambda: Crowd(request * number))
    crowds = await gatherResults(
        [TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory) for port in ports]
    )

    def answered() -> bool:
        return all(crowd.seen.count(b"HTTP/1.1 ") == number for crowd in crowds)

    await until(answered, "all are answered", seconds=60)
    for crowd in crowds:
        crowd.transport.loseConnection()
    return Counter(
        status.decode()
        for crowd in crowds
        for status in re.findall(rb"HTTP/1.1 (\d+) ", crowd.seen)
    )


def daemon(port: int, folder: Path, state: str, upstream: str) -> Running:
    """One of several, whose accounts are in the same folder."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PORT": "off",
        "STREAM_PORT": str(port),
        "UPSTREAM_URL": upstream,
        "GEMINI_PROXY_URL": upstream,
        "DATA_DIR": str(folder / "data"),
        "STATE_URL": state,
        "LOG_DIR": "",
        "USAGE_DAYS": "0",
    }
    twistd = str(Path(sys.executable).with_name("twistd"))
    command = [twistd, "-n", "--pidfile=", "gemproxy"]
    return Running.start(command, folder / str(port), environ)


async def health_of(port: int) -> str:
    connection = await Client(port).send("GET", "/health")
    return str((await connection.reply()).json["status"])


@needs_redis
@ensureDeferred
async def test_three_daemons_let_through_what_one_would_and_serve_whatever_happens(
    server: RedisServer, upstream: FakeNewApi, tmp_path: Path
) -> None:
    await server.start()
    upstream.always(document({}))
    file = AccountsFile(tmp_path / "data" / FILE)
    _, key = file.add("bob", limits_of_json({"requests_per_minute": 300}), 0.0)
    _, another = file.add("amy", limits_of_json({"concurrent": 1000}), 0.0)
    file.close()
    ports = [free_port() for _ in range(3)]
    daemons = [daemon(port, tmp_path, server.url, upstream.url) for port in ports]
    try:
        for port, each in zip(ports, daemons, strict=True):
            await deferToThread(each.until_listening, port)
        since = reactor.seconds()
        seen = await ask_all(ports * 4, key, 250)
        took = reactor.seconds() - since
        print(f"{3000 / took:.0f} requests a second")
        # A minute's worth at once, and then what comes with time. On a busy machine the server may
        # be away for a moment, in which each goes by what it knew; three for themselves would let
        # 900 through.
        assert 300 <= seen["200"] <= 600 + 3 * 5 * took
        assert seen == {"200": len(upstream.calls), "429": 3000 - len(upstream.calls)}

        # No request fails for it.
        server.signal(SIGSTOP)
        assert await ask_all(ports, another, 30) == {"200": 90}
        server.end()
        assert await ask_all(ports, another, 30) == {"200": 90}
        assert [await health_of(port) for port in ports] == ["degraded"] * 3
        await server.start()
        for port in ports:
            while await health_of(port) != "ok":
                await deferLater(reactor, 0.05)
        assert await ask_all(ports, another, 30) == {"200": 90}
        assert all("the shared state is away" in each.log.read_text() for each in daemons)
    finally:
        for each in daemons:
            each.stop()
