"""Sessions of the real CLI: which are used again, and what of one conversation is in the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gemproxy.chat.jsontext import dumps
from gemproxy.gemini.cli import acp, session
from gemproxy.gemini.cli.home import WorkerHome
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.marks import Marks
from gemproxy.gemini.cli.session import Session
from gemproxy.gemini.cli.sessions import Sessions
from gemproxy.gemini.cli.worker import CallFailed, Worker, WorkerDied
from testing.google import scenarios
from tests.support import Product, chat, fresh_model, shared_daemon, until

shared_product = shared_daemon("module", ("cli",), GEMINI_WORKERS=1, MAX_RETRIES=0)


async def at_rest(product: Product) -> int:
    """How many sessions have been opened, once there is one that waits."""
    await product.until_idle()
    (member,) = product.daemon.pool._members
    await until(lambda: member.sessions._resting and not member.sessions._opening, "one waits")
    del member.sessions._resting[1:]
    return member.worker.opened


@ensureDeferred
async def test_one_conversation_after_the_other_is_had_in_one_session(product: Product) -> None:
    opened = await at_rest(product)
    for number in range(5):
        reply = await product.ask(chat(f"past {number}", "reply", f"question {number}"))
        assert reply.content.endswith(f"question {number}")
        await product.until_idle()
    assert await at_rest(product) == opened
    assert [asked.texts for asked in product.asked] == [
        [("user", f"past {n}"), ("model", "reply"), ("user", f"question {n}")] for n in range(5)
    ]
    assert product.session_files() == []


@ensureDeferred
async def test_the_next_conversation_may_have_another_model(product: Product) -> None:
    opened = await at_rest(product)
    models = ["gemini-2.5-pro", "gemini-2.0-flash", "gemini-2.5-pro", "gemini-2.5-flash"]
    for model in models:
        assert (await product.ask(chat(model=model))).status == 200
        await product.until_idle()
    assert [asked.model for asked in product.asked] == models
    assert await at_rest(product) == opened


@ensureDeferred
async def test_what_the_api_counted_is_not_held_against_the_next(product: Product) -> None:
    # More than any model takes.
    product.api.play(scenarios.answer("Yes.", usage={"promptTokenCount": 5_000_000}))
    opened = await at_rest(product)
    reply = await product.ask(chat("x" * 1000))
    assert reply.json["usage"]["prompt_tokens"] == 5_000_000
    await product.until_idle()
    assert (await product.ask(chat("y" * 1000))).status == 200
    assert await at_rest(product) == opened


@ensureDeferred
async def test_a_session_takes_a_long_conversation_however_much_is_in_it(product: Product) -> None:
    (member,) = product.daemon.pool._members
    member.sessions._resting.clear()
    # The CLI reckons with more than a token for such a character.
    sizes = [10, 150_000, 150_000, 198_000, 199_900]
    for size in sizes:
        product.api.play(scenarios.answer("Yes."))
        assert (await product.ask(chat("\U0001f600" * size))).content == "Yes."
        await product.until_idle()
    assert [len(asked.texts[0][1]) for asked in product.asked] == sizes


TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    "play",
    [
        scenarios.calls("f"),
        scenarios.blocked("SAFETY"),
        scenarios.error(400),
        scenarios.cut("One", " two", after=1),
    ],
    ids=["a call", "a blocked prompt", "an error", "half an answer"],
)
@ensureDeferred
async def test_after_answers_of_all_kinds_the_next_is_as_good_as_ever(
    product: Product, play: Any
) -> None:
    for _ in range(3):
        product.api.play(play, scenarios.answer("Fine."))
        await product.ask(chat("Hi", tools=TOOLS))
        await product.until_idle()
        reply = await product.ask(chat("How are you?"))
        assert (reply.status, reply.content) == (200, "Fine.")
        assert product.asked[-1].texts == [("user", "How are you?")]
        await product.until_idle()


@ensureDeferred
async def test_an_answer_that_is_not_needed_looks_complete_to_its_session(
    product: Product,
) -> None:
    opened = await at_rest(product)
    for number in range(3):
        product.api.play(scenarios.hang("Half", after=1))
        client = await product.begin(chat(stream=True))
        await client.until_received(b"Half")
        client.drop()
        await product.until_idle()
        product.api.play(scenarios.hang(f"One{number}<disclaimer>two", after=1))
        reply = await product.ask(chat(), product.stream_port)
        assert (reply.content, reply.json["choices"][0]["finish_reason"]) == (
            f"One{number}",
            "stop",
        )
        await product.until_idle()
    assert await at_rest(product) == opened


@pytest.mark.parametrize("after", [None, 0])
@ensureDeferred
async def test_a_session_that_is_left_before_it_has_said_anything_is_used_again(
    product: Product, after: int | None
) -> None:
    opened = await at_rest(product)
    product.api.play(scenarios.hang(after=after))
    client = await product.begin(chat(stream=True))
    await product.until_asked()
    client.drop()
    assert await at_rest(product) == opened
    assert (await product.ask(chat())).status == 200


REFUSALS = [
    *(scenarios.error(status) for status in (400, 403, 404, 429, 500, 503)),
    *(scenarios.rate_limited(), scenarios.daily_quota(), scenarios.invalid_key()),
    *(scenarios.cut(), scenarios.cut(after=0), scenarios.cut("One", " two", after=1)),
    *(scenarios.garbage(), scenarios.empty(), scenarios.blocked()),
]


@ensureDeferred
async def test_a_session_is_as_good_after_what_google_refuses_as_before(product: Product) -> None:
    opened = await at_rest(product)
    for play in REFUSALS:
        product.api.play(play)
        await product.ask(chat(model=fresh_model()))
        await product.until_idle()
        product.api._plays.clear()
    assert await at_rest(product) == opened
    assert (await product.ask(chat("How are you?"))).content.endswith("How are you?")
    assert product.asked[-1].texts == [("user", "How are you?")]


@ensureDeferred
async def test_a_session_forgets_a_conversation_when_it_has_ended(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at_rest(product)
    composed: list[str] = []
    monkeypatch.setattr(
        Marks, "check", lambda self, contents: composed.append(dumps(contents).decode())
    )
    plays = [
        scenarios.answer("Said 0."),
        scenarios.answer("Said 1.", finish_reason="MAX_TOKENS"),
        scenarios.error(400),
        scenarios.cut("Half", after=1),
        scenarios.answer("Said 4."),
    ]
    for number, play in enumerate(plays):
        product.api.play(play)
        await product.ask(chat(f"Question {number}."))
        product.api._plays.clear()
        await product.until_idle()
    assert len(composed) == len(plays)
    assert ["Question 0." in contents for contents in composed] == [True, *[False] * 4]
    assert not any("Said" in contents or "Half" in contents for contents in composed)
    assert "Question 4." in composed[4]


@ensureDeferred
async def test_a_worn_session_is_not_used_again(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    (member,) = product.daemon.pool._members
    member.sessions._resting.clear()
    assert (await product.ask(chat())).status == 200
    opened = await at_rest(product)
    member.sessions._resting[0]._prompts = 0
    monkeypatch.setattr(member.worker.limits, "prompts_per_session", 2)
    for _ in range(2):
        assert await at_rest(product) == opened
        assert (await product.ask(chat("a", "b", "c"))).status == 200
    assert await at_rest(product) == opened + 1


class Opener:
    """A worker whose sessions are opened when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.home = WorkerHome(folder / "home")
        self.home.create()
        self.limits = CliLimits()
        self.usable = True
        self.opened = 0
        self.asked: list[Deferred[dict[str, Any]]] = []
        self.given_up: list[str] = []

    def give_up(self, reason: str) -> None:
        self.given_up.append(reason)

    def call(self, method: str, params: dict[str, Any]) -> Deferred[dict[str, Any]]:
        assert method == "session/new"
        self.asked.append(Deferred())
        return self.asked[-1]

    def open_session(self, id: str) -> bool:
        return id != "11111111"

    def close_session(self, id: str) -> None: ...

    def open(self) -> None:
        self.asked[-1].callback({"sessionId": f"{len(self.asked):08}"})


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    return Opener(tmp_path)


@pytest.fixture
def sessions(opener: Opener) -> Sessions:
    return Sessions(Clock(), cast("Worker", opener))


def test_a_home_that_takes_no_files_is_given_up(
    opener: Opener, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session.records, "keep_off_disk", full)
    waiting = sessions.acquire("m")
    opener.open()
    failures: list[Failure] = []
    waiting.addErrback(failures.append)
    assert failures[0].check(WorkerDied) is WorkerDied
    assert opener.given_up == [
        "its home directory cannot be used: [Errno 28] No space left on device"
    ]


def test_sessions_are_opened_one_by_one_and_only_while_requests_wait(
    opener: Opener, sessions: Sessions
) -> None:
    got: list[Session] = []
    for _ in range(4):
        sessions.acquire("m").addCallback(got.append)
    assert len(opener.asked) == 1
    opener.open()
    assert len(got) == 1
    assert len(opener.asked) == 2
    # A session that comes back is for the one who has waited longest.
    sessions.release(got[0])
    assert got[1] is got[0]
    opener.open()
    assert len(opener.asked) == 3
    sessions.release(got[1])
    assert got[3] is got[1]
    # What was begun is for the next.
    opener.open()
    assert len(opener.asked) == 3
    sessions.acquire("m").addCallback(got.append)
    assert [session.id for session in got] == [f"{n:08}" for n in (1, 1, 2, 1, 3)]
    assert len(opener.asked) == 3


def test_a_request_fails_if_its_session_cannot_be_opened(
    opener: Opener, sessions: Sessions
) -> None:
    waiting = [sessions.acquire("m") for _ in range(2)]
    refusal = CallFailed(acp.ErrorResponse(1, -32000, "No."))
    opener.asked[-1].errback(refusal)
    failures: list[Failure] = []
    waiting[0].addErrback(failures.append)
    assert [failure.value for failure in failures] == [refusal]
    opener.open()
    assert waiting[1].called


@pytest.mark.parametrize(
    "id", [None, 5, "", "short", "../../../../x", "*" * 20, "a" * 200, "1" * 8]
)
def test_a_session_has_a_name_of_its_own_that_is_no_path(
    opener: Opener, sessions: Sessions, id: Any
) -> None:
    waiting = sessions.acquire("m")
    opener.asked[-1].callback({"sessionId": id})
    failures: list[Failure] = []
    waiting.addErrback(failures.append)
    assert failures[0].check(WorkerDied) is WorkerDied
    assert opener.given_up == ["it returned an invalid session id"]
