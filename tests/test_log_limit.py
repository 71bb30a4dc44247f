"""Lines that anybody can cause are limited in number, and what is left out is counted."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from gemproxy.util.log_limit import MOST, LogLimit
from testing.fake_newapi import document
from tests.support import Relay, gpt, running_relay


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def limit(clock: Clock, told: list[Any]) -> LogLimit:
    return LogLimit(clock, lambda *args: told.append(args), most=3, period=60.0)


def test_so_many_lines_of_a_kind_are_let_through(
    limit: LogLimit, clock: Clock, told: list[Any]
) -> None:
    assert [limit.allows(401) for _ in range(5)] == [True] * 3 + [False] * 2
    assert limit.allows(403)
    clock.advance(59)
    assert not limit.allows(401)
    assert told == []
    clock.advance(1)
    assert told == [(401, 3)]
    assert limit.allows(401)
    assert clock.getDelayedCalls() == []


def test_where_nothing_is_left_out_nothing_is_told(
    limit: LogLimit, clock: Clock, told: list[Any]
) -> None:
    for _ in range(10):
        assert limit.allows(401)
        clock.advance(30)
    limit.stop()
    assert told == []
    assert clock.getDelayedCalls() == []


def test_in_the_end_it_is_told_what_was_left_out_so_far(
    limit: LogLimit, clock: Clock, told: list[Any]
) -> None:
    for _ in range(5):
        limit.allows(401)
    limit.stop()
    assert told == [(401, 2)]
    assert clock.getDelayedCalls() == []


def lines(relay: Relay, words: str) -> list[str]:
    return [text for event in relay.logged if words in (text := formatEvent(event))]


KEY = {"Authorization": "Bearer a-good-key"}


@ensureDeferred
async def test_requests_without_a_key_fill_no_disk() -> None:
    async with running_relay(PROXY_API_KEYS="a-good-key") as relay:
        for number in range(MOST + 5):
            wrong = {"Authorization": "Bearer wrong"}
            assert (await relay.ask(gpt(), **wrong)).status == 401
            assert (await (await relay.send("GET", f"/v1/{number}")).reply()).status == 401
        assert len(lines(relay, "status=401")) == MOST
        # Those that have one are not affected.
        for _ in range(MOST + 5):
            assert (await (await relay.send("GET", "/nowhere", **KEY)).reply()).status == 404
        assert len(lines(relay, "status=404")) == MOST + 5
        metrics = (await (await relay.send("GET", "/metrics", **KEY)).reply()).body.decode()
        refused = 2 * (MOST + 5)
        assert f'gemproxy_refused_keys_total{{needed="client"}} {refused}.0' in metrics
        assert 'gemproxy_refused_keys_total{needed="admin"} 0.0' in metrics
    (left_out,) = lines(relay, "left out")
    assert left_out.startswith(f"{refused - MOST} more requests were refused with status 401")


@ensureDeferred
async def test_neither_do_those_that_an_upstream_refuses(relay: Relay) -> None:
    relay.upstream.always(document({"error": {"message": "no"}}, status=401, reason="No"))
    for _ in range(MOST + 5):
        assert (await relay.ask(gpt())).status == 401
    assert len(lines(relay, "status=401")) == MOST


@ensureDeferred
async def test_refused_keys_of_admin_are_counted() -> None:
    async with running_relay(ADMIN_KEY="a-good-key") as relay:
        await relay.send("GET", "/admin/routes")
        assert (await relay.get("/admin/routes")).status == 401
        metrics = (await relay.get("/metrics")).body.decode()
        assert 'gemproxy_refused_keys_total{needed="admin"} 2.0' in metrics
