"""What pages that watch the daemon are told: the state, its changes, and the end of a request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from operator import itemgetter
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from gemproxy.chat.errors import ChatError
from gemproxy.web.live import INTERVAL, MOST_TIME, Live
from gemproxy.web.live_state import MOST_SHOWN, LiveState
from gemproxy.web.under_way import Progress, UnderWay
from testing.fake_newapi import chunk, document, events, hang
from testing.google import scenarios
from tests.support import Client, Connection, Product, chat, gpt, running_relay


@define
class Playing:
    """A request that goes as a test says."""

    began: float = 0.0
    tokens: int | None = 0
    state: str = "streaming"
    ended: list[ChatError] = field(factory=list)

    def facts(self) -> dict[str, Any]:
        return {"id": "?", "model": "m"}

    def progress(self) -> Progress:
        return Progress(self.state, "gemini", 0, self.tokens, 0)

    def interrupt(self, error: ChatError) -> None:
        self.ended.append(error)


# The state, which is pure:


def told(page: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """What a page knows when it was told of a change, as docs/admin.md says."""
    requests = {one["id"]: one for one in page["requests"]}
    news = change.pop("requests", {"new": [], "changed": [], "ended": []})
    for one in news["new"]:
        requests[one["id"]] = one
    for one in news["changed"]:
        requests[one["id"]] |= one
    for id in news["ended"]:
        del requests[id]
    return page | change | {"requests": list(requests.values())}


by_id = itemgetter("id")


@define
class Numbered(Playing):
    id: str = ""

    def facts(self) -> dict[str, Any]:
        return {"id": self.id}


LOOK = st.dictionaries(
    st.sampled_from("abcd"),
    st.tuples(st.one_of(st.none(), st.integers(0, 50)), st.sampled_from(["waiting", "streaming"])),
)


@given(st.lists(st.tuples(LOOK, st.integers(0, 1)), min_size=1, max_size=8))
def test_who_is_told_of_the_changes_knows_the_state(looks: list[Any]) -> None:
    state = LiveState()
    page = state.whole()
    for number, (look, queue) in enumerate(looks):
        running = {id: Numbered(0.0, tokens, said, id=id) for id, (tokens, said) in look.items()}
        change = state.advance(number / 2, number / 2, running, {"queue": queue})
        page = told(page, dict(change)) if change else page | {"time": number / 2}
        whole = state.whole()
        assert sorted(page.pop("requests"), key=by_id) == sorted(whole["requests"], key=by_id)
        assert page == {name: value for name, value in whole.items() if name != "requests"}
        page = whole
        assert len(page["requests"]) == page["requests_total"] == len(look)


def test_a_speed_is_that_of_late_and_a_day_of_requests_leaves_nothing_behind() -> None:
    state, running = LiveState(), {"a": Playing(tokens=0), "b": Playing(tokens=None)}
    for second in range(1, 8):
        running["a"].tokens = 40 * second
        state.advance(float(second), float(second), running, {})
    assert [row["speed"] for row in state.whole()["requests"]] == [40.0, None]
    for second in range(8, 20):
        state.advance(float(second), float(second), running, {})
    assert state.whole()["requests"][0]["speed"] < 1
    for second in range(20, 2000):
        state.advance(float(second), 0.0, {str(second): Playing()}, {})
    assert len(state._rows) == 1
    many = {str(number): Playing() for number in range(MOST_SHOWN + 5)}
    state.advance(3000.0, 0.0, many, {})
    assert len(state.whole()["requests"]) == MOST_SHOWN
    assert state.whole()["requests_total"] == MOST_SHOWN + 5


# The stream, with a clock of the test's:

COST = 0.02


@define
class Watcher:
    """Stands for the request of a page."""

    events: list[tuple[str, Any]] = field(factory=list)
    comments: int = 0
    producer: Any = None
    channel: object = ""
    method: bytes = b"GET"

    def setHeader(self, name: bytes, value: bytes) -> None:
        pass

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        if data.startswith(b":"):
            self.comments += 1
            return
        name, text = data.decode().removesuffix("\n\n").split("\n")
        self.events.append((name.removeprefix("event: "), json.loads(text.removeprefix("data: "))))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@define
class Stage:
    clock: Clock = field(factory=Clock)
    under_way: UnderWay = field(factory=UnderWay)
    fields: Callable[[float], dict[str, Any]] = lambda time: {}
    spent: float = 0.0

    def live(self) -> Live:
        return Live(
            self.clock,
            self.under_way,
            lambda time: self.fields(time),
            wall_clock=float,
            cpu_clock=lambda: self.spent,
        )

    def watch(self, live: Live) -> tuple[Watcher, Deferred[None]]:
        watcher = Watcher()
        return watcher, Deferred.fromCoroutine(live._watch(watcher))


def test_a_page_that_does_not_read_gets_the_newest_state_later_and_nothing_until_then() -> None:
    stage = Stage()
    live = stage.live()
    first, _ = stage.watch(live)
    lazy, leaving = stage.watch(live)
    assert (first.names, lazy.names) == (["state"], ["state"])
    lazy.producer.pauseProducing()
    for number in range(5):
        stage.under_way.add(str(number), Playing())
        stage.clock.advance(INTERVAL)
    assert first.names == ["state"] + ["change"] * 5
    assert lazy.names == ["state"]
    lazy.producer.resumeProducing()
    stage.clock.advance(INTERVAL)
    assert lazy.names == ["state", "state"]
    assert len(lazy.events[-1][1]["requests"]) == 5
    leaving.cancel()
    leaving.addErrback(lambda _: None)
    assert live.pages == 1


def test_nothing_is_done_for_nobody_and_silence_is_filled() -> None:
    looks = []
    stage = Stage(fields=lambda time: looks.append(time) or {})
    live = stage.live()
    assert not stage.clock.getDelayedCalls()
    watcher, watching = stage.watch(live)
    for _ in range(100):
        stage.clock.advance(INTERVAL)
    assert watcher.names == ["state"]
    assert watcher.comments == 3
    live.close()
    assert watching.called
    assert watcher.producer is None
    assert not stage.clock.getDelayedCalls()
    seen = len(looks)
    stage.clock.advance(100)
    assert len(looks) == seen


def test_looks_that_take_long_are_rare_and_one_that_fails_is_not_the_last() -> None:
    failed: list[Any] = []
    globalLogPublisher.addObserver(failed.append)

    def slow(time: float) -> dict[str, Any]:
        stage.spent += COST
        looks.append(stage.clock.seconds())
        if len(looks) == 2:
            raise ValueError("broken")
        return {}

    looks: list[float] = []
    stage = Stage(fields=slow)
    watcher, _ = stage.watch(stage.live())
    try:
        for _ in range(100):
            stage.clock.advance(0.1)
    finally:
        globalLogPublisher.removeObserver(failed.append)
    assert len(looks) > 3
    assert min(b - a for a, b in pairwise(looks)) >= COST / MOST_TIME
    assert sum("log_failure" in event for event in failed) == 1
    assert watcher.names == ["state", "state"]


# The daemon, over sockets:


async def watching(client: Client, **headers: str) -> Connection:
    page = await client.send("GET", "/admin/live", **headers)
    await page.until_received(b"event: state")
    return page


def events_of(page: Connection) -> list[tuple[str, Any]]:
    found = re.findall(rb"event: (\w+)\ndata: (.*)\n\n", page.received)
    return [(name.decode(), json.loads(data)) for name, data in found]


async def until_told(page: Connection, condition: Callable[[dict[str, Any]], bool]) -> Any:
    """The first request of which the page is told so."""

    def known() -> dict[str, dict[str, Any]]:
        state: dict[str, Any] = {"requests": []}
        for name, data in events_of(page):
            state = data if name == "state" else told(state, data)
            for one in state["requests"]:
                if condition(one):
                    return one
        return {}

    await page.when(known)
    return known()


async def end(client: Client, id: str) -> Any:
    return await (await client.send("POST", f"/admin/requests/{id}/end")).reply()


def sent_in_words(text: str) -> Callable[[dict[str, Any]], bool]:
    return lambda one: re.fullmatch(text, one["state"]) is not None


@pytest.mark.slow
@ensureDeferred
async def test_requests_of_all_kinds_are_seen_and_ended() -> None:
    hostile = '<script>alert(1)</script>"\u2028'
    async with running_relay(PROXY_API_KEYS="", STOP_TAGS="") as relay:
        page = await watching(relay)
        relay.upstream.always(events(chunk("One"), chunk(" two"), then="hang"))
        streaming = await relay.begin(gpt(stream=True, model=hostile))
        one = await until_told(page, sent_in_words("streaming"))
        assert (one["model"], one["client"], one["stream"]) == (hostile, "127.0.0.1", True)
        assert one["path"] == "/v1/chat/completions"
        assert one["tokens"] == 2
        assert one["sent"] > 0
        assert page.received.count(b"<script>")
        assert b"text/event-stream" in page.received
        reply = await end(relay, one["id"])
        assert reply.json == {"id": one["id"], "ended": True}
        ended = await streaming.reply()
        assert ended.data[-1]["error"]["code"] == "ended_by_operator"
        await (await relay.upstream.when_asked()).when_closed()
        await page.until_received(b'"ended":["%b"]' % one["id"].encode())
        reply = await end(relay, one["id"])
        assert (reply.status, reply.error["code"]) == (404, "not_under_way")

        waiting = await relay.begin(gpt())
        relay.upstream.always(hang())
        one = await until_told(page, sent_in_words("waiting for the upstream"))
        await end(relay, one["id"])
        reply = await waiting.reply()
        assert (reply.status, reply.headers["x-should-retry"]) == (503, "false")
        assert "operator" in reply.error["message"]

        passed = await relay.send("POST", "/v1/audio/speech", {"model": "tts-1"})
        one = await until_told(page, lambda one: one["route"] == "passed")
        assert (one["state"], one["model"]) == ("waiting for the upstream", "tts-1")
        assert one["upstream"] == "newapi"
        await end(relay, one["id"])
        assert (await passed.reply()).error["code"] == "ended_by_operator"
        assert not page.closed


@ensureDeferred
async def test_who_logs_out_watches_no_longer() -> None:
    async with running_relay(ADMIN_KEY="key-of-the-admin-1") as relay:
        sent = await relay.send("POST", "/admin/login", {"key": "key-of-the-admin-1"})
        cookie = (await sent.reply()).headers["set-cookie"].partition(";")[0]
        page = await watching(relay, Cookie=cookie)
        await relay.send("POST", "/admin/logout", Cookie=cookie)
        assert (await page.reply()).status == 200
        assert not relay.daemon._live.pages


@pytest.mark.slow
@ensureDeferred
async def test_a_retry_says_when_it_comes() -> None:
    refusal = document({}, 503, [("Retry-After", "60")])
    keys = {"PROXY_API_KEYS": "key-of-a-client-1", "ADMIN_KEY": "key-of-the-admin-1"}
    async with running_relay(MAX_RETRIES=2, MAX_RETRY_WAIT=100, **keys) as relay:
        relay.upstream.always(refusal)
        page = await watching(relay, x_api_key="key-of-the-admin-1")
        client = await relay.begin(gpt(stream=True), x_api_key="key-of-a-client-1")
        one = await until_told(page, sent_in_words(r"retry 1 of 2 in (5|6|7)\d s"))
        assert (one["retries"], one["account"]) == (1, "key-1")
        client.drop()
        await page.until_received(b'"ended":["%b"]' % one["id"].encode())


@ensureDeferred
async def test_workers_keys_and_what_they_do(product: Product) -> None:
    product.api.play(scenarios.hang("Hello", after=1))
    page = await watching(product)
    client = await product.begin(chat("Hi", stream=True))
    one = await until_told(page, sent_in_words("streaming"))
    _, state = events_of(page)[0]
    (worker, *_) = state["workers"]
    assert worker["pid"] in product.worker_pids()
    assert (worker["state"], worker["memory"] > 1e6, worker["sessions"] > 0) == (
        "ready",
        True,
        True,
    )
    assert state["queues"]["worker"] == 0
    assert all("secret" in key["key"] or "..." in key["key"] for key in state["keys"])
    assert (await end(product, one["id"])).json["ended"]
    assert b"ended_by_operator" in (await client.reply()).body
    await (await product.until_asked()).when_closed()
