"""What several processes of a daemon say together: metrics, pages of the console, changes."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, frozen
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from gemproxy.config import BadSetting, Config
from gemproxy.metrics import Joining, Metrics
from gemproxy.processes.child import when
from gemproxy.processes.place import Place
from gemproxy.siblings.asking import PATIENCE, SILENT, Siblings
from gemproxy.siblings.counts_left import CountsLeft
from gemproxy.siblings.metric_sums import (
    Families,
    counted,
    families_in,
    families_of,
    joined,
)
from gemproxy.siblings.shared_times import SharedTimes
from gemproxy.web.health import health_of_all
from gemproxy.web.live_state import fields_of_all
from testing.fake_newapi import chunk, events, stream
from tests.support import Relay, Reply, gpt, running_relay, until
from tests.test_live import events_of
from tests.test_metrics import samples

# The sum of metrics, which is pure:


@frozen
class Counting:
    """A process that counts."""

    registry: CollectorRegistry
    counter: Counter
    histogram: Histogram

    @classmethod
    def begin(cls) -> Counting:
        registry = CollectorRegistry()
        return cls(
            registry,
            Counter("gemproxy_asked", "How often", ["by"], registry=registry),
            Histogram("gemproxy_wait", "How long", buckets=(1, 2), registry=registry),
        )

    def count(self, by: str, wait: float) -> None:
        self.counter.labels(by).inc()
        self.histogram.observe(wait)

    def families(self) -> Families:
        families = families_of(self.registry.collect(), {})
        # As another process reads them.
        return families_in(json.loads(json.dumps([family.as_json() for family in families])))


def values(families: Families) -> dict[Any, float]:
    return {
        sample: value
        for family in families
        for sample, value in family.samples.items()
        if not sample[0].endswith("_created")
    }


EVENTS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.sampled_from([0.5, 1.5, 9]))
)


@given(EVENTS)
def test_what_processes_count_apart_is_what_one_had_counted(events: list[Any]) -> None:
    one, several = Counting.begin(), [Counting.begin() for _ in range(3)]
    for number, by, wait in events:
        one.count(by, wait)
        several[number].count(by, wait)
    assert values(joined(process.families() for process in several)) == values(one.families())


def test_each_metric_is_joined_as_it_should_be() -> None:
    shown = []
    for number, seconds in (1, 0.5), (2, 0.25):
        metrics = Metrics("1.2.3")
        metrics.watch("connections", "Connections", lambda number=number: number)
        up = number - 1
        metrics.watch("longest", "The longest", lambda seconds=seconds: seconds, Joining.HIGHEST)
        metrics.watch("up", "Whether it is up", lambda up=up: up, Joining.LOWEST)
        metrics.refused_keys.labels("client").inc(number)
        families = families_of(metrics.registry.collect(), metrics.joining)
        shown.append([one.labelled(str(number)) if one.is_of_each else one for one in families])
    total = joined(shown)
    found = values(total)
    assert found["gemproxy_connections", ()] == 3
    assert found["gemproxy_longest", ()] == 0.5
    assert found["gemproxy_up", ()] == 0
    assert found["gemproxy_refused_keys_total", (("needed", "client"),)] == 3
    assert found["gemproxy_build_info", (("version", "1.2.3"),)] == 1
    for number in "12":
        assert found["process_resident_memory_bytes", (("process", number),)] > 0
    since = [
        one["gemproxy_refused_keys"] for one in ({f.name: f for f in s} for s in (*shown, total))
    ]
    first, second, both = (
        one.samples["gemproxy_refused_keys_created", (("needed", "client"),)] for one in since
    )
    assert both == min(first, second)
    # Of one that has ended, what it counted stays, and nothing else.
    assert {family.type for family in counted(shown[0])} == {"counter", "histogram"}
    assert not any(family.name.startswith("process_") for family in counted(shown[0]))
    # Another version may say it in another way.
    assert list(families_in([["x"]])) == list(families_in("?")) == []


def test_counts_of_thousands_that_have_ended_are_in_one_file(tmp_path: Path) -> None:
    processes = [Counting.begin() for _ in range(5)]
    for number, process in enumerate(processes):
        process.count("a", 0.5)
        CountsLeft(tmp_path, f"1-{number}").leave(counted(process.families()))
    mine = CountsLeft(tmp_path, "2-9")
    everything = values(joined(process.families() for process in processes))
    for running in {"1-4", "1-3"}, {"1-4"}, {"1-4"}:
        mine.add_up(running)
        left = mine.read()
        assert left.by_name.keys() == running
        assert values(joined([*left.by_name.values(), left.ended])) == everything
    # Whoever has read a file that is added up meanwhile knows it by its name.
    CountsLeft(tmp_path, "1-0").leave(counted(processes[0].families()))
    assert mine.read().by_name.keys() == {"1-4"}
    (tmp_path / "1-4.counts").write_text("damaged")
    assert mine.read().by_name == {}
    assert len(list(tmp_path.glob("*.counts"))) == 3


# What else is put together, likewise:


def test_the_health_of_all_is_ok_where_as_many_serve_as_there_should_be() -> None:
    place = Place(1, 2, name="1-1")
    ok, degraded = {"status": "ok"}, {"status": "degraded", "workers": 0}
    failing, starting = {"status": "failing"}, {"status": "starting"}
    stopping = {"status": "stopping"}
    for own, others, status in (
        (ok, {"2-1": ok}, "ok"),
        (ok, {}, "degraded"),
        (ok, {"2-1": None}, "degraded"),
        (ok, {"2-1": failing}, "degraded"),
        (degraded, {"2-1": ok}, "degraded"),
        (stopping, {"2-1": ok, "1-2": ok}, "ok"),
        (starting, {"2-1": ok, "1-0": ok}, "ok"),
        (starting, {"2-1": starting}, "starting"),
        (stopping, {"2-1": stopping}, "stopping"),
        (failing, {"2-1": None}, "failing"),
    ):
        said = health_of_all(own, others, place)
        assert said["status"] == status, (own, others)
        names = [one["process"] for one in said["processes"]]
        assert names == sorted([place.name, *others])
    assert said["processes"][1] == {"process": "2-1", "status": "silent"}


def test_what_rests_anywhere_is_shown_to_rest() -> None:
    def fields(number: int, rests: dict[str, int], until: int | None) -> dict[str, Any]:
        paused = [{"model": model, "until": end, "reason": "?"} for model, end in rests.items()]
        return {
            "workers": [{"pid": number}],
            "keys": [{"key": "AI...1", "rests": paused}],
            "upstreams": [{"name": "newapi", "until": until}],
            "queues": {"worker": number, "connections": 1},
            "requests_total": number,
        }

    together = fields_of_all([fields(1, {"a": 5, "b": 9}, None), fields(2, {"a": 7}, 4)])
    assert together.pop("keys")[0]["rests"] == [
        {"model": "a", "until": 7, "reason": "?"},
        {"model": "b", "until": 9, "reason": "?"},
    ]
    assert together == {
        "workers": [{"pid": 1}, {"pid": 2}],
        "upstreams": [{"name": "newapi", "until": 4}],
        "queues": {"worker": 3, "connections": 2},
        "requests_total": 3,
    }


def test_times_in_files_are_known_to_all(tmp_path: Path) -> None:
    one, other = SharedTimes(tmp_path / "x"), SharedTimes(tmp_path / "x")
    assert (len(one), list(one), one.get(b"a")) == (0, [], None)
    one[b"b"], one[b"a"] = 2.5, 3.25
    assert list(other.items()) == [(b"b", 2.5), (b"a", 3.25)]
    del other[b"b"], other[b"b"]
    assert (dict(one), len(one)) == ({b"a": 3.25}, 1)


def test_a_process_is_ready_when_it_can_serve_and_also_if_it_never_can() -> None:
    clock, warm = Clock(), [False]
    soon, late = (when(clock, lambda: warm[0], seconds) for seconds in (9.0, 0.5))
    clock.pump([0.25, 0.25])
    assert (soon.called, late.called) == (False, True)
    warm[0] = True
    clock.advance(0.25)
    assert soon.called
    assert not clock.getDelayedCalls()


# Over sockets:


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For the address of a socket, its path is too long."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    return folder


@pytest.mark.slow
@ensureDeferred
async def test_nobody_waits_for_a_process_that_does_not_answer(folder: Path) -> None:
    asked = []
    first, second = (Siblings(reactor, Place(n, 2, folder, f"{n}-1")) for n in (1, 2))
    second.answer("/double", lambda number: asked.append(number) or 2 * number)
    for siblings in first, second:
        siblings.startService()
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as gone:
        hung.bind(first._address_of("3-1"))
        hung.listen()
        gone.bind(first._address_of("4-1"))
        began = reactor.seconds()
        assert await first.ask("/double", 4) == {"2-1": 8, "3-1": SILENT}
        assert reactor.seconds() - began >= PATIENCE
        # It is not asked again, nor waited for.
        assert await first.ask("/double", 5, 3600) == {"2-1": 10, "3-1": SILENT}
        assert await first.ask("/unknown", None, 3600) == {"3-1": SILENT}
    # Its connection is gone, and so is it.
    await until(lambda: not first._silent, "its end is noticed")
    assert await first.ask("/double", 6, 3600) == {"2-1": 12}
    assert asked == [4, 5, 6]
    for siblings in first, second:
        await siblings.stopService()
    assert {path.name for path in folder.iterdir()} == {"3-1.sock", "4-1.sock"}
    assert await Siblings(reactor, Place()).ask("/double", 4) == {}


# Whole daemons, side by side in this process:

ADMIN = {"Authorization": "Bearer key-of-the-admin-1"}
CLIENT = {"Authorization": "Bearer key-of-a-client"}


@define
class Side:
    """@ivar stop: ends it, as a process that drains."""

    relay: Relay
    stop: Callable[[], Awaitable[object]]

    async def say(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        return await (await self.relay.send(method, path, body, **(headers or ADMIN))).reply()

    async def metrics(self) -> dict[Any, float]:
        return samples((await self.say("GET", "/metrics")).body)


@define
class Pair:
    """Two processes of one daemon, and those that take their places."""

    settings: dict[str, Any]
    folder: Path
    stack: AsyncExitStack

    async def start(self, number: int, serial: int) -> Side:
        stack = AsyncExitStack()
        held = socket.create_server(("127.0.0.1", 0))
        settings = self.settings | {"STREAM_PORT": held.getsockname()[1]}
        ports = {"Stream Proxy": held.detach()}
        place = Place(number, 2, self.folder, f"{number}-{serial}", ports, "secret")
        relay = await stack.enter_async_context(running_relay(place=place, **settings))
        self.stack.push_async_callback(stack.aclose)
        return Side(relay, stack.aclose)


@async_yield_fixture
async def pair(tmp_path: Path, folder: Path) -> AsyncIterator[Pair]:
    settings = {
        "ADMIN_KEY": "key-of-the-admin-1",
        "DATA_DIR": tmp_path / "data",
        "LOG_DIR": tmp_path / "logs",
        "USAGE_DAYS": 1,
        "RESPONSES_KEEP": 9,
        "PROXY_API_KEYS": "key-of-a-client",
    }
    async with AsyncExitStack() as stack:
        yield Pair(settings, folder, stack)


@pytest.mark.slow
@ensureDeferred
async def test_pages_of_one_process_show_and_end_the_requests_of_all(pair: Pair) -> None:
    first, second = await pair.start(1, 1), await pair.start(2, 2)
    second.relay.upstream.always(events(chunk("One"), then="hang"))
    asking = [await second.relay.begin(gpt(stream=True), **CLIENT) for _ in range(2)]
    for one in asking:
        await one.until_received(b"One")
    page = await first.relay.send("GET", "/admin/live", **ADMIN)
    await page.until_received(b"event: state")
    ((_, state),) = events_of(page)
    assert state["requests_total"] == 2
    assert state["queues"]["connections"] == 3
    ended, other = (one["id"] for one in state["requests"])
    reply = await first.say("POST", f"/admin/requests/{ended}/end")
    assert reply.json == {"id": ended, "ended": True}
    cut = await asking[0].reply()
    assert cut.data[-1]["error"]["code"] == "ended_by_operator"
    await page.until_received(b'"ended":["%b"]' % ended.encode())
    reply = await first.say("POST", f"/admin/requests/{ended}/end")
    assert (reply.status, reply.error["code"]) == (404, "not_under_way")
    # A process that goes takes its requests along.
    await second.stop()
    await page.until_received(b'"ended":["%b"]' % other.encode())


@ensureDeferred
async def test_what_is_changed_at_one_process_holds_in_all(pair: Pair) -> None:
    first, second = await pair.start(1, 1), await pair.start(2, 2)
    # Accounts, at once:
    second.relay.upstream.always(stream("Yes"))
    secret = (await first.say("POST", "/admin/keys", {"name": "bob"})).json["secret"]
    bob = {"Authorization": f"Bearer {secret}"}
    assert (await second.relay.ask(gpt(), **bob)).status == 200
    assert (await second.say("DELETE", "/admin/keys/bob")).status == 200
    assert (await first.relay.ask(gpt(), **bob)).status == 401
    # Sessions of browsers:
    login = await first.say("POST", "/admin/login", {"key": "key-of-the-admin-1"})
    cookie = {"Cookie": login.headers["set-cookie"].partition(";")[0]}
    assert (await second.say("GET", "/admin/routes", **cookie)).status == 200
    assert (await second.say("POST", "/admin/logout", **cookie)).status == 200
    assert (await first.say("GET", "/admin/routes", **cookie)).status == 401
    # The configuration:
    daemon = second.relay.daemon
    anew = evolve(daemon._config, stop_tags=("[X]",))
    daemon._read_config = lambda: anew
    assert (await first.say("POST", "/admin/reload")).json == {"changed": ["stop_tags"]}

    def refuse() -> Config:
        raise BadSetting("MODELS is wrong.")

    daemon._read_config = refuse
    reply = await first.say("POST", "/admin/reload")
    assert (reply.status, reply.error["code"]) == (503, "partly_reloaded")
    assert "Process 2-2: MODELS is wrong." in reply.error["message"]


@pytest.mark.slow
@ensureDeferred
async def test_what_one_process_has_written_is_found_at_all(pair: Pair) -> None:
    first, second = await pair.start(1, 1), await pair.start(2, 2)
    ids = []
    for number in range(4):
        side = (first, second)[number % 2]
        side.relay.upstream.always(stream("Yes"))
        question = {"model": "gemini-x", "input": f"Question {number}"}
        reply = await side.say("POST", "/v1/responses", question, **CLIENT)
        ids.append((reply.headers["x-request-id"], reply.json["id"]))
    for _, id in ids:
        for side in first, second:
            found = await side.say("GET", f"/v1/responses/{id}", **CLIENT)
            assert found.json["id"] == id
    for side in first, second:
        # They are written a moment later.
        while len((await side.say("GET", "/admin/journal")).json["data"]) < len(ids):
            await deferLater(reactor, 0.05)
        while (await side.say("GET", "/admin/usage")).json["total"]["requests"] < len(ids):
            await deferLater(reactor, 0.05)
    health = (await first.say("GET", "/health")).json
    assert health["status"] == "ok"
    assert [one["process"] for one in health["processes"]] == ["1-1", "2-2"]


@ensureDeferred
async def test_a_counter_never_falls_whoever_is_asked_and_whoever_ends(pair: Pair) -> None:
    first, second = await pair.start(1, 1), await pair.start(2, 2)
    counted = ("responses_total", frozenset({("status", "401")}))
    waited = ("requests_under_way", frozenset())
    shown = []
    for _ in range(3):
        for side in (first, second):
            assert (await side.relay.ask(gpt())).status == 401
            shown.append((await side.metrics())[counted])
    assert shown == [1, 2, 3, 4, 5, 6]
    # One that ends tells of all that it has counted.
    assert (await second.relay.ask(gpt())).status == 401
    await second.stop()
    now = await first.metrics()
    assert (now[counted], now["processes", frozenset()], now[waited]) == (7, 1, 1)
    third = await pair.start(2, 3)
    assert not (pair.folder / "2-2.counts").exists()
    for side in first, third:
        now = await side.metrics()
        assert (now[counted], now["processes", frozenset()]) == (7, 2)
        assert {labels for name, labels in now if name == "process_open_fds"} == {
            frozenset({("process", "1")}),
            frozenset({("process", "2")}),
        }


@pytest.mark.slow
@ensureDeferred
async def test_processes_whose_folder_is_removed_find_each_other_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd does when a user logs out."""
    monkeypatch.setattr("gemproxy.siblings.asking._LOOKS", 0.05)
    first, second = await pair.start(1, 1), await pair.start(2, 2)
    shutil.rmtree(pair.folder)
    # Where it cannot be made, each is alone.
    pair.folder.touch()
    for side in first, second:
        assert (await side.metrics())["processes", frozenset()] == 1
        login = await side.say("POST", "/admin/login", {"key": "key-of-the-admin-1"})
        cookie = {"Cookie": login.headers["set-cookie"].partition(";")[0]}
        assert (await side.say("GET", "/admin/routes", **cookie)).status == 200
        await until(lambda: side.relay.daemon._siblings._is_bad, "it is noticed")  # noqa: B023
    pair.folder.unlink()
    for side in first, second:
        while (await side.metrics())["processes", frozenset()] < 2:
            await deferLater(reactor, 0.05)
    for reason in ("cannot ask this one", "is lost when it ends"):
        assert len([said for said in first.relay.warnings if reason in said]) == 2
