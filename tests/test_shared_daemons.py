"""Daemons that have the same STATE_URL: what one knows, the other knows, by a real Redis server."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from gemproxy.chat.errors import ChatError, upstream_failed
from gemproxy.gemini.api.keys import REST, KeyLease, KeyRing
from gemproxy.gemini.translate.errors import api_failure
from gemproxy.routing.rest import FAILURES, SHORTEST, TOPIC, Rest
from gemproxy.state.news import Subject
from gemproxy.state.server import Server
from gemproxy.state.shared import SharedState
from gemproxy.state.shared_news import SharedNews
from gemproxy.state.url import parse_state_url
from gemproxy.util.digests import digest_of
from testing.fake_newapi import FakeNewApi, document, stream
from testing.google import refusals, scenarios
from tests.redis_server import RedisServer, needs_redis, redis_server
from tests.support import Product, Reply, chat, gpt, running, until

pytestmark = pytest.mark.slow

MODEL = "gemini-x"
DAILY = api_failure(429, refusals.day_quota().body)
KEYS = ("first-key-of-google", "second-key-of-google")


@define
class Side:
    """What one of two daemons has of the others, and its own clock."""

    state: SharedState
    news: SharedNews
    clock: Clock
    ring: KeyRing
    rest: Rest

    async def hears(self) -> None:
        """Read what is new. What this side told is told then."""
        await self.news.hear()

    async def tries(self) -> KeyLease | ChatError:
        try:
            return await self.ring.acquire(MODEL)
        except ChatError as error:
            return error


@asynccontextmanager
async def one_side(server: RedisServer) -> AsyncIterator[Side]:
    state = SharedState(reactor, Server(reactor, parse_state_url(server.url)))
    news = SharedNews(reactor, state)
    clock = Clock()
    clock.advance(1000)
    ring = KeyRing(clock, KEYS[:1], wall_clock=clock.seconds, news=news)
    rest = Rest(clock, "a", Subject(news, TOPIC, "its digest"))
    news.follow(TOPIC, lambda _, told, left: rest.heard(told, left))
    state.startService()
    # What is new is read when a test says so.
    try:
        await until(lambda: not state.is_away, "the state is there")
        yield Side(state, news, clock, ring, rest)
    finally:
        await state.stopService()


async def both_wait(one: Side, two: Side, seconds: float) -> None:
    """Their clocks advance, and the server's does not: whatever was told is heard before."""
    for side in (one, two):
        await side.hears()
        side.clock.advance(seconds)


@needs_redis
@ensureDeferred
async def test_a_key_rests_and_is_probed_for_all(tmp_path: Path):
    with redis_server(tmp_path) as server:
        await server.start()
        async with one_side(server) as one, one_side(server) as two:
            # What it does not understand does no harm.
            names = f'"key", "{digest_of(KEYS[0])} {MODEL}"', '"upstream", "its digest"'
            values = "7", "[]", "{}", '{"error": {}, "seconds": 1, "failures": "x"}'
            news = [f"[{name}, {value}, 9]" for name in names for value in values]
            for told in ("x", "7", "[]", f'[{names[0]}, {{}}, "soon"]', *news):
                await server.command("XADD", "gemproxy:news", "*", "told", told)
            one.ring.release(await one.ring.acquire(MODEL), DAILY)
            await one.hears()
            await two.hears()
            refused = await two.tries()
            assert isinstance(refused, ChatError)
            assert (refused.code, refused.message) == ("insufficient_quota", DAILY.error.message)
            assert REST - 5 < two.ring.exhausted()[MODEL] <= REST
            # Of all that ask when the rest is over, one request is the probe.
            await both_wait(one, two, REST)
            tried = await gatherResults(
                [Deferred.fromCoroutine(side.tries()) for side in (one, two) for _ in range(5)]
            )
            (probe,) = [each for each in tried if isinstance(each, KeyLease)]
            assert probe.is_probe
            prober, other = (one, two) if probe in tried[:5] else (two, one)
            # It fails. The other one has not heard of it, and claims the next probe at once.
            prober.ring.release(probe, DAILY)
            await prober.state.get("")
            other.clock.advance(1)
            assert isinstance(await other.tries(), ChatError)
            assert other.ring.exhausted()[MODEL] > REST
            # The next one is dropped, and the one after it succeeds.
            await both_wait(one, two, 2 * REST)
            for side in (other, prober):
                probe = await side.tries()
                assert isinstance(probe, KeyLease) and probe.is_probe
                side.ring.abandon(probe) if side is other else side.ring.release(probe, None)
                await side.state.get("")
            assert other.ring._rests
            await prober.hears()
            await other.hears()
            assert not other.ring._rests
            # Whoever had it for too long does not take it from the next one.
            first = await one.news.claim("key", "x")
            await server.command("DEL", f"gemproxy:claim:{digest_of('key', 'x')}")
            assert await two.news.claim("key", "x")
            first.release()
            assert await one.news.claim("key", "x") is None
            kept = await server.command("XRANGE", "gemproxy:news", "-", "+")
            assert MODEL in kept
            assert not any(key in kept for key in KEYS)


@needs_redis
@ensureDeferred
async def test_an_upstream_rests_and_is_tried_for_all(tmp_path: Path):
    with redis_server(tmp_path) as server:
        await server.start()
        async with one_side(server) as one, one_side(server) as two:
            for _ in range(FAILURES):
                one.rest.failed(upstream_failed("Refused."))
            await one.hears()
            await two.hears()
            with pytest.raises(ChatError, match=r"failed 5 times.*Refused"):
                await two.rest.check()
            await both_wait(one, two, SHORTEST)
            await one.rest.check()
            # The other one waits for what comes of it.
            with pytest.raises(ChatError, match="rests for 1 s"):
                await two.rest.check()
            one.rest.succeeded()
            await one.state.get("")
            two.clock.advance(1)
            await two.rest.check()
            assert two.rest.left() == 0
            assert two.rest.last_error is None
            # It is away: each goes by what it knows, and nobody waits for anybody.
            for _ in range(FAILURES):
                one.rest.failed(upstream_failed("Refused."))
            await one.hears()
            await two.hears()
            server.end()
            await until(lambda: one.state.is_away and two.state.is_away, "the state is away")
            for side in (one, two):
                with pytest.raises(ChatError):
                    await side.rest.check()
                side.clock.advance(SHORTEST)
                await side.rest.check()
            one.ring.release(await one.ring.acquire(MODEL), DAILY)
            assert isinstance(await two.tries(), KeyLease)
            # It comes back empty, and works as before.
            await server.start()
            await until(lambda: not (one.state.is_away or two.state.is_away), "it is back")
            one.ring.release(await one.ring.acquire("gemini-y"), DAILY)
            await one.hears()
            await two.hears()
            assert list(two.ring.exhausted()) == ["gemini-y"]


@asynccontextmanager
async def two_daemons(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Product, Product]]:
    """Both ask the first one's stand-in for Google, and the same upstream."""
    settings |= {"GEMINI_ENGINE": "direct", "GEMINI_API_KEY": ",".join(KEYS), "MAX_RETRIES": 0}
    async with running(tmp_path / "one", **settings) as one:
        google = one.daemon._config.google_gemini_base_url
        settings["GOOGLE_GEMINI_BASE_URL"] = google
        async with running(tmp_path / "two", **settings) as two:
            for each in (one, two):
                await there(each)
            yield one, two


async def there(product: Product) -> None:
    state: Any = product.daemon._state
    await until(lambda: not state.is_away, "the state is there")


async def told(one: Product, other: Product) -> None:
    """What one has told, the other has heard."""
    for each in (one, other):
        await each.daemon._news.hear()  # type: ignore[attr-defined]


def keys_of(product: Product) -> list[str]:
    return [asked.headers["x-goog-api-key"] for asked in product.asked]


def call_of(reply: Reply) -> dict[str, Any]:
    (call,) = reply.json["choices"][0]["message"]["tool_calls"]
    return {name: value for name, value in call.items() if name != "extra_content"}


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@needs_redis
@ensureDeferred
async def test_what_one_daemon_has_learnt_the_other_knows(tmp_path: Path):
    upstream = FakeNewApi()
    with redis_server(tmp_path) as server:
        await server.start()
        async with two_daemons(tmp_path, STATE_URL=server.url, UPSTREAM_URL=upstream.url) as (
            one,
            two,
        ):
            # A key without quota.
            one.api.play(scenarios.daily_quota())
            await one.ask(chat())
            await told(one, two)
            await two.ask_all([chat(), chat()])
            refused, *others = keys_of(one)
            assert (len(others), {*KEYS} - {*others}) == (3, {refused})
            # Signatures: each is good with the key with which it was made.
            model = "gemini-3-pro-preview"
            calls = []
            for signature in ("b25l", "dHdv"):
                part = scenarios.call("f") | {"thoughtSignature": signature}
                one.api.play(scenarios.answer([part]))
                reply = await one.ask(chat("Hi", model=model, tools=TOOLS))
                calls.append((call_of(reply), signature, keys_of(one)[-1]))
            for (call, signature, key), length in zip(calls[::-1], (1, 1_100_000), strict=True):
                result = {"role": "tool", "tool_call_id": call["id"], "content": "x" * length}
                history = ["Hi", {"role": "assistant", "tool_calls": [call]}, result]
                assert (await two.ask(chat(*history, model=model, tools=TOOLS))).status == 200
                assert one.asked[-1].contents[1]["parts"][0]["thoughtSignature"] == signature
                assert keys_of(one)[-1] == key
            # What an upstream refuses: streams, and a dialect.
            refusal = document({"error": {"message": "stream is not supported"}}, 400)
            whole = document({"choices": [{"index": 0, "message": {"content": "Hi"}}]})
            upstream.play(refusal, whole, document("404 page not found", 404), stream("Hi"))
            await one.ask(gpt(), one.stream_port)
            completion = b'{"model": "gpt-x", "prompt": "Say"}'
            asked_there = await one.send("POST", "/v1/completions", completion, one.stream_port)
            await asked_there.reply()
            await told(one, two)
            before = len(upstream.calls)
            upstream.play(whole, stream("Hi"))
            assert (await two.ask(gpt(), two.stream_port)).content == "Hi"
            asked_there = await two.send("POST", "/v1/completions", completion, two.stream_port)
            assert (await asked_there.reply()).json["choices"][0]["text"] == "Hi"
            first, second = upstream.calls[before:]
            assert "stream" not in first.json
            assert second.target == "/v1/chat/completions"
            # An upstream that is gone.
            await upstream.stop()
            for _ in range(FAILURES):
                assert (await one.ask(gpt(), one.stream_port)).status == 502
            # It looks by itself, too.
            await until(two.daemon._resting_upstreams, "the other one has heard of it")
            reply = await two.ask(gpt(), two.stream_port)
            assert (reply.status, "rests" in reply.error["message"]) == (503, True)


async def respond(product: Product, text: str, key: str = "k", **fields: Any) -> Reply:
    body = {"model": "gemini-2.5-flash", "input": text} | fields
    asked = await product.send("POST", "/v1/responses", body, Authorization=f"Bearer {key}")
    return await asked.reply()


async def shown(product: Product, id: str, method: str = "GET") -> int:
    asked = await product.send(method, f"/v1/responses/{id}", Authorization="Bearer k")
    return (await asked.reply()).status


@needs_redis
@ensureDeferred
async def test_a_response_is_found_and_deleted_by_every_daemon(tmp_path: Path):
    with redis_server(tmp_path) as server:
        await server.start()
        async with two_daemons(tmp_path, STATE_URL=server.url, RESPONSES_KEEP=2) as (one, two):
            first = (await respond(one, "first words")).json["id"]
            second = (await respond(two, "two", previous_response_id=first)).json["id"]
            texts = [content["parts"][0]["text"] for content in one.asked[-1].contents]
            assert (len(texts), texts[0], texts[2]) == (3, "first words", "two")
            assert await shown(one, second) == 200
            # It is the client's own, and nobody reads it in the server.
            foreign = await respond(two, "x", "another", previous_response_id=first)
            assert (foreign.status, foreign.error["code"]) == (400, "previous_response_not_found")
            kept = "gemproxy:response:*"
            search = (
                "local n = 0 for _, key in ipairs(redis.call('KEYS', ARGV[1])) do "
                "n = n + (redis.call('GET', key):find(ARGV[2], 1, true) and 100 or 1) end return n"
            )
            assert await server.command("EVAL", search, 0, kept, "first words") == "2\n"
            # It is deleted in both, and forgotten where its daemon forgets it.
            assert await shown(two, first, "DELETE") == 200
            await told(two, one)
            assert await shown(one, first) == await shown(two, first) == 404
            ids = [(await respond(one, word)).json["id"] for word in "abc"]
            assert await shown(one, ids[0]) == 404
            await told(one, two)
            assert [await shown(two, id) for id in ids] == [404, 200, 200]
            # What is too large for the server is told to be elsewhere.
            large = (await respond(one, "x" * 600_000)).json["id"]
            reply = await respond(two, "go on", previous_response_id=large)
            assert (reply.status, "only the daemon" in reply.error["message"]) == (400, True)
            assert await shown(one, large) == 200
            # When it does not answer each has its own, and what another may have is not denied.
            server.signal(signal.SIGSTOP)
            reply = await respond(two, "x", previous_response_id=ids[2])
            assert (reply.status, reply.headers["retry-after"]) == (503, "2")
            assert two.daemon._state.is_away  # type: ignore[union-attr]
            assert (await respond(two, "x", previous_response_id=second)).status == 200
            assert await shown(two, "resp_of-an-upstream") == 404
            assert await shown(two, second, "DELETE") == 200
            server.signal(signal.SIGCONT)
            for each in (one, two):
                await there(each)
            await told(two, one)
            assert await shown(one, second) == 404
