"""What is tried again, when, and what a client is told when that is no use."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from testing.google import refusals, scenarios
from testing.processes import free_port
from tests.support import (
    Product,
    chat,
    fresh_model,
    running,
    running_relay,
    shared_daemon,
    until,
)

pytestmark = pytest.mark.both_engines(quick=False)

RETRIES = 2
DELAY = 0.1

# The longest delay that Google may ask for.
MAX_WAIT = 20

shared_product = shared_daemon(
    "module", MAX_RETRIES=RETRIES, RETRY_DELAY=DELAY, MAX_RETRY_WAIT=MAX_WAIT
)

TRANSIENT = {
    "429 of a minute": scenarios.rate_limited(0.2),
    "bare 429": scenarios.bare_rate_limited(),
    "500": scenarios.error(500, "Internal error."),
    "502": scenarios.error(502, "Bad gateway."),
    "503": scenarios.error(503, "The model is overloaded."),
    "503 in place of an answer": scenarios.answer(scenarios.error(503).refusal.body),
    "connection reset": scenarios.cut(),
    "connection closed": scenarios.cut(reset=False),
    "reset after the headers": scenarios.cut(after=0),
    "empty answer": scenarios.empty(),
    "answer of an empty text": scenarios.answer(""),
    "end without a word": scenarios.empty(finish_reason=None),
    "malformed function call": scenarios.empty(finish_reason="MALFORMED_FUNCTION_CALL"),
    "no JSON": scenarios.garbage(),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("play", TRANSIENT.values(), ids=TRANSIENT.keys())
@ensureDeferred
async def test_what_may_pass_is_tried_again(
    product: Product, play: scenarios.Scenario, stream: bool
) -> None:
    product.api.play(play, scenarios.answer("at last"))
    reply = await product.ask(chat("Hi", stream=stream))
    assert reply.status == 200, reply
    assert reply.content == "at last"
    assert len(product.asked) == 2
    assert product.asked[0].raw == product.asked[1].raw


@ensureDeferred
async def test_the_delay_grows_from_try_to_try(product: Product) -> None:
    product.api.play(scenarios.error(503), scenarios.error(503), scenarios.answer("at last"))
    assert (await product.ask(chat())).content == "at last"
    first, second, third = (asked.time for asked in product.asked)
    assert second - first >= DELAY
    assert third - second >= 2 * DELAY


@ensureDeferred
async def test_the_delay_that_the_api_asks_for_is_kept(product: Product) -> None:
    product.api.play(scenarios.rate_limited(1.5), scenarios.answer("at last"))
    assert (await product.ask(chat())).content == "at last"
    first, second = (asked.time for asked in product.asked)
    assert 1.5 <= second - first < 5


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "code"), [(429, "rate_limit_exceeded"), (503, "upstream_error")]
)
@ensureDeferred
async def test_a_longer_delay_is_the_client_s(
    product: Product, status: int, code: str, stream: bool
) -> None:
    seconds = MAX_WAIT + 1
    busy = refusals.error(status, "Busy.", details=[refusals.retry_info(seconds)])
    product.api.play(scenarios.refuse(busy))
    reply = await product.ask(chat("Hi", stream=stream))
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.headers["retry-after"] == str(seconds)
    assert len(product.asked) == 1


@pytest.mark.cli
@ensureDeferred
async def test_retries_end_while_the_status_can_still_tell_of_the_error(tmp_path: Path) -> None:
    settings = {
        "MAX_RETRIES": 5,
        "RETRY_DELAY": 0.2,
        "HEARTBEAT_INTERVAL": 0.05,
        "JSON_HEARTBEAT_DELAY": 3,
    }
    async with running(tmp_path, **settings) as product:
        lasting = [scenarios.bare_rate_limited()] * 100
        for port in (product.port, product.stream_port):
            product.begin_test()
            product.api.play(*lasting)
            reply = await product.ask(chat(), port=port)
            assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
            assert reply.headers["retry-after"] == "10"
            first, last = product.asked[0].time, product.asked[-1].time
            assert len(product.asked) >= 3
            assert last - first < 3 * 2 / 3
        # A delay of Google's that is too long for the status is the client's.
        product.begin_test()
        product.api.play(scenarios.rate_limited(2.5))
        reply = await product.ask(chat())
        assert (reply.status, reply.headers["retry-after"]) == (429, "3")
        assert len(product.asked) == 1


@pytest.mark.cli
@ensureDeferred
async def test_a_proxy_in_a_second_container_knows_when_the_first_commits_its_status(
    tmp_path: Path,
) -> None:
    settings = {"HEARTBEAT_INTERVAL": 0.05, "JSON_HEARTBEAT_DELAY": 3}
    async with running(tmp_path, MAX_RETRIES=5, RETRY_DELAY=0.2, **settings) as product:
        url = f"http://127.0.0.1:{product.port}"
        async with running_relay(GEMINI_PROXY_URL=url, **settings) as front:
            product.api.play(*[scenarios.bare_rate_limited()] * 100)
            reply = await front.ask(chat())
            assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
            assert reply.headers["retry-after"] == "10"
            assert len(product.asked) >= 3
            # A client that streams hears of each retry, and of the error in the end.
            product.begin_test()
            product.api.play(scenarios.error(503), scenarios.answer("One", delay=0.5))
            reply = await front.ask(chat("Hi", stream=True))
            assert reply.content == "One"
            assert reply.comments


BEATS: dict[str, Any] = {"HEARTBEAT_INTERVAL": 0.05, "JSON_HEARTBEAT_DELAY": 0.05}


@pytest.mark.cli
@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        (BEATS, b"\n"),
        (BEATS | {"JSON_HEARTBEAT_DELAY": "off"}, b"{"),
        (BEATS | {"HEARTBEAT_INTERVAL": "off"}, b"{"),
        # There may be white space after the first data.
        (BEATS | {"EARLY_HEARTBEATS": "false"}, b""),
    ],
    ids=["committed", "no white space", "no heartbeats", "no early heartbeats"],
)
@ensureDeferred
async def test_retries_go_on_where_no_heartbeat_will_commit_the_status(
    tmp_path: Path, settings: dict[str, Any], begins: bytes
) -> None:
    async with running(tmp_path, **settings) as product:
        late = scenarios.error(503, "Busy.", delay=0.4)
        product.api.play(late, scenarios.error(503), scenarios.answer("at last"))
        reply = await product.ask(chat())
        assert reply.content == "at last"
        assert reply.body.startswith(begins)
        assert len(product.asked) == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("play", "status", "type", "code", "retry_after"),
    [
        (scenarios.rate_limited(0.2), 429, "rate_limit_error", "rate_limit_exceeded", "1"),
        (scenarios.bare_rate_limited(), 429, "rate_limit_error", "rate_limit_exceeded", "10"),
        (scenarios.error(500, "Internal error."), 500, "server_error", "upstream_error", None),
        (scenarios.error(502, "Bad gateway."), 502, "server_error", "upstream_error", None),
        (scenarios.error(503, "Overloaded."), 503, "server_error", "upstream_error", "10"),
        (scenarios.cut(after=0), 502, "server_error", "upstream_error", None),
        (scenarios.empty(), 502, "server_error", "upstream_error", None),
        (scenarios.garbage(), 502, "server_error", "upstream_error", None),
    ],
)
@ensureDeferred
async def test_the_last_error_is_reported_when_the_attempts_are_used_up(
    product: Product,
    play: scenarios.Scenario,
    status: int,
    type: str,
    code: str,
    retry_after: str | None,
    stream: bool,
) -> None:
    product.api.play(*[scenarios.error(500, "not the last")] * RETRIES, play)
    reply = await product.ask(chat("Hi", stream=stream))
    assert (reply.status, reply.error["type"], reply.error["code"]) == (status, type, code)
    assert reply.headers.get("retry-after") == retry_after
    assert len(product.asked) == 1 + RETRIES
    if play.refusal is not None:
        assert reply.error["message"].encode() in play.refusal.body.replace(b"\\n", b"\n")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("play", "status"),
    [
        (scenarios.daily_quota(), 429),
        (scenarios.daily_quota(0.1), 429),
        (scenarios.invalid_key(), 502),
        (scenarios.error(401, "No."), 502),
        (scenarios.error(403, "Your API key was reported as leaked."), 502),
        (scenarios.error(400, "User location is not supported for the API use."), 502),
        (scenarios.error(403, "Not you."), 403),
        (scenarios.error(400, "Bad value."), 400),
        (scenarios.error(404, "No such model."), 404),
        (scenarios.blocked(), 200),
        (scenarios.empty(finish_reason="SAFETY"), 200),
        (scenarios.empty(finish_reason="MAX_TOKENS"), 200),
    ],
)
@ensureDeferred
async def test_what_would_fail_again_is_not_tried_again(
    product: Product, play: scenarios.Scenario, status: int, stream: bool
) -> None:
    product.api.play(play)
    reply = await product.ask(chat("Hi", stream=stream, model=fresh_model()))
    assert reply.status == status
    assert len(product.asked) == 1
    if status in (403, 502) or reply.headers.get("x-should-retry"):
        assert reply.headers["x-should-retry"] == "false"
        assert "retry-after" not in reply.headers


@ensureDeferred
async def test_a_daily_quota_says_what_google_said_and_to_leave_it(product: Product) -> None:
    product.api.play(scenarios.daily_quota())
    reply = await product.ask(chat(model=fresh_model()))
    assert (reply.status, reply.error["type"]) == (429, "insufficient_quota")
    assert reply.error["message"].startswith("You exceeded your current quota")
    assert reply.reason.startswith("You exceeded your current quota")
    assert reply.headers["x-should-retry"] == "false"


AFTER_CONTENT = {
    "reset": scenarios.cut("Half", " of it", after=1),
    "closed": scenarios.cut("Half", " of it", after=1, reset=False),
    "no finish reason": scenarios.answer("Half", finish_reason=None),
    "error": scenarios.answer("Half", scenarios.rate_limited(0.1).refusal.body),
    "no JSON": scenarios.garbage("Half"),
}


@pytest.mark.parametrize("play", AFTER_CONTENT.values(), ids=AFTER_CONTENT.keys())
@ensureDeferred
async def test_nothing_is_tried_again_once_content_went_out(
    product: Product, play: scenarios.Scenario
) -> None:
    product.api.play(play, scenarios.answer("a second answer"))
    reply = await product.ask(chat("Hi", stream=True))
    assert reply.content == "Half"
    assert reply.data[-1]["error"]["message"]
    assert "[DONE]" not in reply.data
    assert len(product.asked) == 1


@pytest.mark.cli
@ensureDeferred
async def test_an_unreachable_api_is_tried_again_and_then_reported(tmp_path: Path) -> None:
    port = free_port()
    settings: dict[str, Any] = {"GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{port}"}
    async with running(tmp_path, MAX_RETRIES=1, RETRY_DELAY=0.5, **settings) as product:
        client = await product.begin(chat("Hi", stream=True))
        reply = await client.reply()
        assert (reply.status, reply.error["type"]) == (502, "server_error")
        assert "cannot be reached" in reply.reason

        # The API comes back between two tries.
        retried = product.daemon._metrics._retries.labels("upstream_error")._value
        before = retried.get()
        client = await product.begin(chat("Hi", stream=True))
        await until(lambda: retried.get() > before, "the first try has failed")
        listening = reactor.listenTCP(port, product.api.site(), interface="127.0.0.1")
        try:
            assert (await client.reply()).status == 200
        finally:
            await listening.stopListening()


def kill(product: Product) -> None:
    """As a system that is out of memory would."""
    (pid,) = product.worker_pids()
    os.kill(pid, signal.SIGKILL)


@pytest.mark.of_workers
@pytest.mark.parametrize("stream", [False, True])
@ensureDeferred
async def test_requests_of_a_killed_worker_are_tried_in_the_next(
    product: Product, stream: bool
) -> None:
    # The tests before this one have killed theirs.
    await until(lambda: product.daemon.pool.warm, "a worker is warm", 60)
    product.api.play(scenarios.answer("One"), scenarios.answer("Two"))
    (member,) = product.daemon.pool._members
    os.kill(member.worker.pid, signal.SIGSTOP)
    clients = [await product.begin(chat("Hi", stream=stream)) for _ in range(2)]
    await until(lambda: member.leases == 2, "it is to ask for both")
    kill(product)
    contents = {(await client.reply()).content for client in clients}
    assert contents == {"One", "Two"}
    assert len(product.asked) == 2


@pytest.mark.of_workers
@ensureDeferred
async def test_a_worker_that_dies_while_a_session_is_set_up_fails_its_request(
    product: Product,
) -> None:
    await until(lambda: product.daemon.pool.warm, "a worker is warm", 60)
    (member,) = product.daemon.pool._members
    member.sessions._resting.clear()
    os.kill(member.worker.pid, signal.SIGSTOP)
    client = await product.begin(chat("Hi"))
    await until(lambda: member.worker._calls, "a session is asked for")
    kill(product)
    assert (await client.reply()).status == 200
    assert len(product.asked) == 1
