"""Large requests: served as small ones are, by processes of their own, and of limited number."""

from __future__ import annotations

import gc
import gzip
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from gemproxy.offload import pool
from testing.fake_newapi import Call, document, hang, stream
from testing.google import scenarios
from testing.google.recorded_request import ReceivedRequest
from tests.support import Product, Relay, Reply, chat, encode, gpt, running, running_relay, until

pytestmark = pytest.mark.slow

# Everything that could be spoilt on the way: escapes, characters of all lengths, halves of pairs.
ODD = 'a"\\\n\u00e9\u4e2d\U0001f600\x00'
LARGE = ODD * 120_000
BIG = 1_000_000


def sent_upstream(relay: Relay) -> Any:
    return json.loads(bytes(relay.upstream.calls[-1].body))


async def post(relay: Relay, path: str, body: Any, **headers: str) -> Reply:
    return await (await relay.send("POST", path, body, **headers)).reply()


def journal(folder: Path) -> Any:
    (path,) = folder.glob("*_input.json")
    return json.loads(path.read_bytes())


async def until_written(folder: Path) -> Any:
    await until(lambda: list(folder.glob("*_output.txt")), "the journal is written")
    return journal(folder)


@pytest.mark.parametrize("is_streaming", [True, False])
@ensureDeferred
async def test_a_large_request_is_relayed_as_a_small_one_is(
    tmp_path: Path, is_streaming: bool
) -> None:
    async with running_relay(LOG_DIR=tmp_path) as relay:
        relay.upstream.always(stream("Fine"))
        body = gpt(LARGE, stream=is_streaming, n=1, unknown=[1.5, {"x": None}])
        reply = await relay.ask(body)
        assert (reply.status, reply.content) == (200, "Fine")
        if is_streaming:
            assert bytes(relay.upstream.calls[0].body) == encode(body)
        else:
            wanted = {"stream": True, "stream_options": {"include_usage": True}}
            assert sent_upstream(relay) == body | wanted
        assert (await until_written(tmp_path))["request"] == body


@ensureDeferred
async def test_lone_halves_of_pairs_and_long_numbers_are_read_as_in_small_requests(
    relay: Relay,
) -> None:
    relay.upstream.always(stream("Fine"))
    raw = b'{"model": "gpt-x", "seed": %d, "messages": [{"role": "user", "content": "%b\\ud800"}]}'
    reply = await relay.ask(raw % (10**30, b"a" * BIG))
    assert reply.status == 200
    assert sent_upstream(relay)["seed"] == 10**30
    assert sent_upstream(relay)["messages"][0]["content"] == "a" * BIG + "\ufffd"


@ensureDeferred
async def test_a_large_request_is_refused_as_a_small_one_is(relay: Relay) -> None:
    for body, param in (
        (gpt(LARGE, stream="yes"), "stream"),
        ({"messages": [{"role": "user", "content": LARGE}]}, "model"),
        (b'{"a": ' + b"a" * BIG, None),
    ):
        reply = await relay.ask(body)
        assert (reply.status, reply.error["param"]) == (400, param)
    assert relay.upstream.calls == []


@ensureDeferred
async def test_what_costs_more_than_it_weighs_is_refused(relay: Relay) -> None:
    for part, setting in ((b"[],", "MAX_CONTAINERS"), (b"1,", "MAX_VALUES")):
        body = b'{"model": "gpt-x", "messages": [%b0]}' % (part * 1_100_000)
        for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/images/generations"):
            reply = await post(relay, path, body)
            assert reply.status == 400
            assert setting in reply.error["message"]
    assert relay.upstream.calls == []


@ensureDeferred
async def test_an_encoded_bomb_is_decoded_elsewhere(relay: Relay) -> None:
    relay.upstream.always(stream("Fine"))
    body = gpt("a" * 8_000_000)
    headers = {"Content-Encoding": "gzip"}
    reply = await post(relay, "/v1/chat/completions", gzip.compress(encode(body)), **headers)
    assert reply.status == 200
    assert sent_upstream(relay)["messages"] == body["messages"]


@ensureDeferred
async def test_a_large_request_that_is_passed_through_is_read_for_its_model(
    relay: Relay,
) -> None:
    relay.upstream.always(document(b'{"data": []}'))
    body = {"input": LARGE, "model": "newapi/embedder"}
    assert (await post(relay, "/v1/embeddings", body)).status == 200
    assert sent_upstream(relay) == body | {"model": "embedder"}


@ensureDeferred
async def test_a_full_temporary_folder_costs_no_request(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    relay.upstream.always(stream("Fine"))
    assert (await relay.ask(gpt("a" * 300_000))).status == 200


@ensureDeferred
async def test_bodies_beyond_the_budget_wait_for_another_time() -> None:
    async with running_relay(MAX_BODY="2MB", MAX_BODIES="3MB") as relay:
        relay.upstream.play(hang())
        first = await relay.begin(gpt("a" * 1_900_000))
        await until(lambda: relay.upstream.calls, "the first one is upstream")
        relay.upstream.always(stream("Fine"))
        refused = await relay.ask(gpt("a" * 1_900_000))
        assert (refused.status, refused.error["code"]) == (503, "overloaded")
        assert "MAX_BODIES" in refused.error["message"]
        assert int(refused.headers["retry-after"]) > 0
        # Without a length, it is found out on the way.
        client = await relay.connect()
        client.transport.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1cfde0\r\n" + b"a" * 1_900_000
        )
        assert (await client.reply()).status == 503
        # Small ones are served, and what passes through as it comes is not held.
        assert (await relay.ask(gpt("Hi"))).status == 200
        relay.upstream.always(document(b"{}"))
        assert (await post(relay, "/v1/files", b"x" * 1_900_000)).status == 200
        assert relay.daemon._admission.held > 1_900_000
        first.drop()
        await until(lambda: not relay.daemon._admission.held, "it has gone")
        relay.upstream.always(stream("Fine"))
        assert (await relay.ask(gpt("a" * 1_900_000))).status == 200


def holds(relay: Relay, size: int) -> bool:
    return relay.daemon._admission.held == size


@ensureDeferred
async def test_of_bodies_that_come_at_once_one_is_served() -> None:
    body = encode(gpt("a" * 1_900_000))
    async with running_relay(MAX_BODY="2MB", MAX_BODIES="3MB") as relay:
        relay.upstream.play(hang())
        clients = [await relay.connect() for _ in range(2)]
        for number, client in enumerate(clients, 1):
            client.transport.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body)
            )
            client.transport.write(body[:1_050_000])
            await until(partial(holds, relay, number * 1_050_000), "its first half is received")
        for client in clients:
            client.transport.write(body[1_050_000:])
        await until(lambda: relay.upstream.calls, "one of them is upstream")
        await until(lambda: any(client.received for client in clients), "the other is refused")
        (refused,) = (client for client in clients if client.received)
        assert (await refused.reply()).status == 503
        await relay.upstream.calls[0].whole()


def kept(than: int) -> list[str]:
    """What refers to so many bytes, apart from what the stand-ins have recorded."""
    return [
        repr(one)[:200]
        for one in gc.get_objects()
        if not isinstance(one, Call | ReceivedRequest)
        for other in gc.get_referents(one)
        if isinstance(other, bytes | bytearray) and len(other) > than
    ]


@pytest.fixture
def no_collection() -> Any:
    """Cycles are not found: nothing large may be in one."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@ensureDeferred
async def test_nothing_of_a_large_request_is_kept(
    tmp_path: Path, no_collection: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = partial(pool.OffloadLimits, idle_life=0.2)
    monkeypatch.setattr("gemproxy.service.OffloadLimits", short)
    async with running_relay(LOG_DIR=tmp_path) as relay:
        relay.upstream.always(stream("Fine"))
        for is_streaming in (True, False):
            assert (await relay.ask(gpt("a" * 3_000_000, stream=is_streaming))).status == 200
        assert (await relay.ask(gpt("a" * 3_000_000, stream="yes"))).status == 400
        monkeypatch.setattr(pool.sys, "executable", "/bin/false")
        await until(lambda: not relay.daemon._offload._children, "the processes have ended")
        assert (await relay.ask(gpt("a" * 3_000_000))).status == 503
        await until(lambda: len(list(tmp_path.glob("*_output.txt"))) == 2, "they are written")
        await until(lambda: not relay.daemon._journal._batches.is_writing, "all is done")
        assert kept(2_000_000) == []


@pytest.mark.cli
@ensureDeferred
async def test_a_large_request_to_gemini_is_served_and_nothing_of_it_is_kept(
    tmp_path: Path, no_collection: None
) -> None:
    folder = tmp_path / "log"
    async with running(tmp_path / "run", LOG_DIR=folder) as product:
        product.api.play(scenarios.answer("Fine"))
        picture = "data:image/png;base64,iVBORw0KGgo" + "A" * 2_000_001
        parts = [
            {"type": "text", "text": LARGE},
            {"type": "image_url", "image_url": {"url": picture}},
        ]
        body = chat({"role": "system", "content": "Be"}, {"role": "user", "content": parts})
        reply = await product.ask(body)
        assert (reply.status, reply.content) == (200, "Fine")
        (asked,) = product.asked
        sent = json.loads(asked.raw)
        assert sent["systemInstruction"] == {"parts": [{"text": "Be"}]}
        text, inline = sent["contents"][0]["parts"]
        assert text == {"text": LARGE}
        assert inline["inlineData"]["data"] == picture.partition(",")[2]
        written = (await until_written(folder))["request"]["messages"][1]["content"]
        assert written[0]["text"] == LARGE
        assert written[1]["image_url"]["url"].startswith("[image/png, ")
        await until(lambda: not product.daemon._journal._batches.is_writing, "all is done")
        del asked, sent, text, inline, written, picture, parts, body
        assert kept(2_000_000) == []


@ensureDeferred
async def test_very_many_messages_reach_gemini_with_one_mark(product: Product) -> None:
    product.api.play(scenarios.answer("Fine"))
    reply: Reply = await product.ask(chat(*["a"] * 19_999))
    assert (reply.status, reply.content) == (200, "Fine")
    (asked,) = product.asked
    assert len(json.loads(asked.raw)["contents"]) == 19_999
    refused = await product.ask(chat(*["a"] * 20_001))
    assert (refused.status, "MAX_MESSAGES" in refused.error["message"]) == (400, True)
