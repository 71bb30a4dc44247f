"""What those who run the proxy are told."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from gemproxy import metrics
from gemproxy.metrics import Metrics
from gemproxy.util.log import log_details
from testing.fake_newapi import answer, events, stream
from testing.google import scenarios
from tests.support import ROOT, Client, Product, chat, gpt, running, running_relay, until


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The values, by name and labels."""
    return {
        (sample.name.removeprefix("gemproxy_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


class Numbers:
    """What changed since the start."""

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before, self._after = samples(before), samples(after)

    def __call__(self, name: str, **labels: str) -> float:
        place = (name, frozenset(labels.items()))
        return self._after.get(place, 0.0) - self._before.get(place, 0.0)


async def read(client: Client) -> bytes:
    reply = await client.get("/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return reply.body


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)
    # It is one level for the whole process.
    log_details(False)


def test_models_that_clients_make_up_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_MODELS_LIMIT", 2)
    counted = Metrics("1.2.3")
    for model in ("a", "b", "c", "d", "a"):
        counted.answered("gemini", model, 200, 0.1, 0.2)
    numbers = Numbers(b"", counted.render())
    assert numbers("requests_total", route="gemini", model="a", status="200") == 2
    assert numbers("requests_total", route="gemini", model="(other)", status="200") == 2
    assert b'model="c"' not in counted.render()


def test_labels_are_escaped() -> None:
    counted = Metrics("1.2.3")
    counted.answered("gemini", 'a"\n\\{}\u00e9\0', 200, None, 0.2)
    numbers = Numbers(b"", counted.render())
    assert numbers("requests_total", route="gemini", model='a"\n\\{}\u00e9\0', status="200") == 1


@pytest.mark.cli
@ensureDeferred
async def test_what_the_gemini_proxy_counts(tmp_path: Path) -> None:
    async with running(tmp_path, RETRY_DELAY=0.05, GEMINI_WORKERS=2) as product:
        before = await read(product)
        product.api.play(scenarios.error(503), scenarios.answer("One"), scenarios.error(400))
        model = "gemini-2.5-flash"
        assert (await product.ask(chat())).status == 200
        assert (await product.ask(chat())).status == 400
        product.api.play(scenarios.hang("Half", after=1))
        left = await product.begin(chat(stream=True))
        await left.until_received(b"Half")
        left.drop()
        await product.until_idle()
        assert (await product.ask(b"no JSON")).status == 400

        numbers = Numbers(before, await read(product))
        for status in ("200", "400", "499"):
            assert numbers("requests_total", route="gemini", model=model, status=status) == 1
        assert numbers("retries_total", reason="upstream_error") == 1
        assert numbers("aborted_upstreams_total") == 1
        assert numbers("first_token_seconds_count", route="gemini") == 2
        assert numbers("request_seconds_count", route="gemini") == 3
        assert numbers("responses_total", status="400") == 2
        assert b"the-key" not in await read(product)

        now = Numbers(b"", await read(product))
        assert now("queued_requests") == 0
        assert now("workers", state="ready") == 1
        (pid,) = product.worker_pids()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pid not in product.worker_pids(), "its end is noticed")
        now = Numbers(b"", await read(product))
        assert now("workers", state="ready") == 0
        # Nobody else kills a worker: it is taken for the kernel, for want of memory.
        assert now("worker_deaths_total", reason="memory") == 1
        assert now("worker_deaths_total", reason="killed") == 0


@ensureDeferred
async def test_what_the_stream_proxy_counts() -> None:
    async with running_relay(HEARTBEAT_INTERVAL=1, STOP_TAGS="<stop>") as relay:
        before = await read(relay)
        relay.upstream.play(stream("A", " tag: <stop> x"))
        assert (await relay.ask(gpt(stream=True))).content == "A tag: "
        relay.upstream.play(events(*answer("Half")[:2], then="hang"))
        waiting = await relay.begin(gpt(stream=True))
        await waiting.until_received(b": heartbeat")
        waiting.drop()
        await until(lambda: not relay.daemon._admission.open, "it is over")
        await relay.get("/v1/files")
        await relay.get("/nowhere")

        numbers = Numbers(before, await read(relay))
        labels = {"route": "stream/upstream", "model": "gpt-x"}
        assert numbers("requests_total", status="200", **labels) == 1
        assert numbers("requests_total", status="499", **labels) == 1
        assert numbers("stop_tags_total") == 1
        assert numbers("heartbeats_total") >= 1
        assert numbers("aborted_upstreams_total") == 2
        assert numbers("passthrough_requests_total", status="200") == 1
        assert numbers("responses_total", status="404") == 1


def hold_up(seconds: float) -> None:
    time.sleep(seconds)


@ensureDeferred
async def test_a_turn_for_which_everything_waits_is_told_of() -> None:
    async with running_relay() as relay:
        await deferLater(reactor, 0, hold_up, 0.3)
        numbers = Numbers(b"", await read(relay))
        assert numbers("longest_turn_seconds") >= 0.3
        assert numbers("turn_seconds_bucket", le="0.25") >= 1
        slow = numbers("turn_seconds_count") - numbers("turn_seconds_bucket", le="0.25")
        assert slow >= 1
        assert numbers("turn_seconds_sum") >= 0.3
    assert any("tests.test_metrics.hold_up:" in warning for warning in relay.warnings)


@pytest.mark.cli
@ensureDeferred
async def test_each_metric_is_documented(product: Product) -> None:
    told = (ROOT / "docs" / "operations.md").read_text()
    names = {re.sub("_(bucket|sum|count)$", "", name) for name, _ in samples(await read(product))}
    # Prometheus' own, and the times that its library adds.
    own = [name for name in names if not re.search("^process_|_created$", name)]
    assert [name for name in own if f"| `gemproxy_{name}` |" not in told] == []


@ensureDeferred
async def test_the_process_has_the_usual_metrics() -> None:
    async with running_relay() as relay:
        values = samples(await read(relay))
        for name in ("process_open_fds", "process_max_fds", "process_resident_memory_bytes"):
            assert values[name, frozenset()] > 0


@ensureDeferred
async def test_neither_keys_nor_texts_are_in_logs_or_metrics(
    product: Product, logged: list[Any]
) -> None:
    product.api.play(scenarios.answer("s3cret answer"), scenarios.error(400, "No."))
    for model in ("gemini-2.5-flash", "gemini-x"):
        await product.ask(chat("s3cret prompt", model=model), Authorization="Bearer s3cret-key")
    text = "\n".join(formatEvent(event) for event in logged)
    assert "request=" in text
    for shown in (text, (await product.get("/metrics")).body.decode()):
        assert "s3cret" not in shown
        assert "the-key" not in shown


@ensureDeferred
async def test_a_request_s_line_says_what_became_of_it(product: Product, logged: list[Any]) -> None:
    product.api.play(scenarios.error(503), scenarios.answer("Well."))
    reply = await product.ask(chat(stream=True))
    id = reply.headers["x-request-id"]
    (line,) = (formatEvent(e) for e in logged if f"request={id} " in formatEvent(e))
    for fact in (
        *("route=gemini", 'model="gemini-2.5-flash"', "stream=True", "status=200", "finish=stop"),
        *("duration=", "first_token=", "prompt_tokens=", "completion_tokens=", "retries=1"),
    ):
        assert f" {fact}" in line


@pytest.mark.cli
@ensureDeferred
async def test_debugging_shows_the_dialogue_with_texts_cut_short(
    tmp_path: Path, logged: list[Any]
) -> None:
    async with running(tmp_path, DEBUG="true") as product:
        assert (await product.ask(chat("the prompt " * 20))).status == 200
        await product.until_idle()
        lines = [formatEvent(e) for e in logged if e["log_level"] is LogLevel.debug]
    text = "\n".join(lines)
    assert "session/prompt" in text
    assert "end_turn" in text
    assert "the prompt " in text
    assert "the prompt the prompt the prompt" not in text
    assert "the-key" not in text


@ensureDeferred
async def test_without_a_given_signature_there_is_no_signature(
    product: Product, logged: list[Any]
) -> None:
    assert (await product.ask(chat())).status == 200
    assert not any("session/prompt" in formatEvent(event) for event in logged)


@ensureDeferred
async def test_sessions_are_those_that_are_open_and_leases_those_in_use(product: Product) -> None:
    await product.ask_all([chat(), chat(), chat()])
    await product.until_idle()
    lines = (await product.get("/metrics")).body.decode().split("\n")
    values = dict(line.rsplit(" ", 1) for line in lines if line[:1] not in ("", "#"))
    assert float(values["gemproxy_leases"]) == 0
    assert float(values["gemproxy_sessions"]) >= 1
    product.api.play(scenarios.hang("One ", "two ", "three", after=2))
    client = await product.begin(chat(stream=True))
    await client.until_received(b"One")
    lines = (await product.get("/metrics")).body.decode().split("\n")
    values = dict(line.rsplit(" ", 1) for line in lines if line[:1] not in ("", "#"))
    assert float(values["gemproxy_leases"]) == 1


def test_the_version_is_a_metric() -> None:
    assert b'gemproxy_build_info{version="1.2.3"} 1.0' in metrics.Metrics("1.2.3").render()
