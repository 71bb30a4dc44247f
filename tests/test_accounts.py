"""Who the clients are: by what they show, and what is recorded of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent

from gemproxy.accounts.account import Account, accounts_of_keys
from gemproxy.accounts.budget import Spent
from gemproxy.accounts.file import FILE
from gemproxy.accounts.known_keys import KnownKeys, key_digest
from gemproxy.accounts.limiter import Permit
from gemproxy.accounts.refusals import too_many_at_once
from gemproxy.command import main
from gemproxy.config_file import PriceConfig, PriceListConfig
from gemproxy.usage.prices import Prices
from gemproxy.web.credentials import Credentials
from testing.fake_newapi import EVENT_STREAM, answer, document, events, hang, stream
from tests.support import Relay, Reply, gpt, running_relay, until
from tests.test_websockets import accepted, open_websocket, switch

ACCOUNTS = accounts_of_keys(["first-key", "second-key"])
KNOWN = KnownKeys({key_digest(key): account for key, account in ACCOUNTS.items()})


def shown(query: bytes = b"", **headers: str | list[str]) -> Credentials:
    values = {name.replace("_", "-"): value for name, value in headers.items()}

    def of(name: bytes) -> list[str]:
        value = values.get(name.decode(), [])
        return [value] if isinstance(value, str) else value

    return Credentials.of(of, query)


@pytest.mark.parametrize(
    ("credentials", "name"),
    [
        (shown(authorization="Bearer first-key"), "key-1"),
        (shown(authorization="bearer second-key"), "key-2"),
        (shown(authorization="BEARER  second-key "), "key-2"),
        (shown(x_api_key="first-key"), "key-1"),
        (shown(api_key=" second-key "), "key-2"),
        (shown(x_goog_api_key="first-key"), "key-1"),
        (shown(b"alt=sse&key=first%2Dkey"), "key-1"),
        (shown(sec_websocket_protocol="realtime, openai-insecure-api-key.first-key"), "key-1"),
        (shown(sec_websocket_protocol=["a, b", "openai-insecure-api-key.second-key"]), "key-2"),
        # Each of them is enough: the other may be for the upstream.
        (shown(authorization="Bearer sk-for-the-upstream", x_api_key="first-key"), "key-1"),
        (shown(authorization="Bearer first-key", x_api_key="sk-for-the-upstream"), "key-1"),
        (shown(authorization=["Basic eDp5", "Bearer first-key"]), "key-1"),
        (shown(), None),
        (shown(b"key=&monkey=first-key", authorization="Bearer "), None),
        (shown(authorization="Bearer first-key second-key"), None),
        (shown(authorization="first-key"), None),
        (shown(authorization="Basic first-key"), None),
        (shown(x_api_key="Bearer first-key"), None),
        (shown(x_api_key=["x", "", "FIRST-KEY", "\udc80", "first-ke", "first-keyy"]), None),
        (shown(b"key=x&" * 20, authorization="Bearer first-key"), None),
    ],
)
def test_the_account_is_that_of_the_key(credentials: Credentials, name: str | None) -> None:
    found = KNOWN.find(credentials.keys())
    assert (found and found.name) == name


@given(st.text(), st.text(), st.binary())
def test_nothing_that_a_client_may_show_is_too_much(one: str, other: str, query: bytes) -> None:
    credentials = shown(query, authorization=one, api_key=other, sec_websocket_protocol=other)
    assert KNOWN.find(credentials.keys()) is None
    assert len(credentials.owner()) == 64


def test_the_owner_is_whoever_shows_the_same_however_it_is_shown() -> None:
    owners = {
        shown(authorization="Bearer k").owner(),
        shown(x_api_key="k").owner(),
        shown(b"key=k").owner(),
        shown(b"key=j").owner(),
        shown().owner(),
    }
    assert len(owners) == 4


def test_names_of_keys_show_nothing_of_them() -> None:
    assert list(accounts_of_keys(["a-secret", "b"]).values()) == [
        Account("key-1"),
        Account("key-2"),
    ]


@ensureDeferred
async def test_the_account_is_in_the_log_and_in_the_journal(tmp_path: Path) -> None:
    settings = {"PROXY_API_KEYS": "first-key,second-key", "LOG_DIR": tmp_path}
    async with running_relay(**settings) as relay:
        assert (await relay.ask(gpt(), x_api_key="second-key")).status == 200
        lines = [formatEvent(event) for event in relay.logged]
        assert any("account=key-2 route=" in line for line in lines)
        # Its output is written last.
        await until(lambda: list(tmp_path.glob("*_output.txt")), "the journal is written")
        (request,) = [json.loads(path.read_text()) for path in tmp_path.glob("*_input.json")]
        (answer,) = [path.read_text() for path in tmp_path.glob("*_output.txt")]
    assert request["account"] == "key-2"
    assert "account: key-2\n" in answer


@ensureDeferred
async def test_a_key_in_the_query_is_as_good_as_one_in_a_header(tmp_path: Path) -> None:
    """It is masked, and it says whose a response is, as others are."""
    key = "AKeyThatLooksLikeNone"
    async with running_relay(RESPONSES_KEEP=1, DATA_DIR=tmp_path) as relay:
        relay.upstream.always(document({"error": {"message": f"no {key}"}}, status=400))
        for path in ("/v1/chat/completions", "/v1/embeddings"):
            reply = await (await relay.send("POST", f"{path}?key={key}", gpt())).reply()
            assert reply.error["message"].startswith("no [secret]")
        relay.upstream.play(stream("Hi"))
        asked = {"model": "gemini-x", "input": "Hello"}
        reply = await (await relay.send("POST", f"/v1/responses?key={key}", asked)).reply()
        at = f"/v1/responses/{reply.json['id']}"
        assert (await relay.get(f"{at}?key={key}")).status == 200
        assert (await relay.get(f"{at}?key=another")).status == 400


# A running daemon

ADMIN = {"Authorization": "Bearer the-key-of-the-admin"}


@define
class Office:
    """A daemon, and who runs it."""

    relay: Relay
    folder: Path

    async def admin(self, method: str, path: str = "", body: Any = None) -> Reply:
        sent = await self.relay.send(method, f"/admin/keys{path}", body, **ADMIN)
        return await sent.reply()

    async def account(self, name: str, **limits: Any) -> dict[str, str]:
        """What a client with a new account shows."""
        reply = await self.admin("POST", body={"name": name} | limits)
        assert reply.status == 201, reply.body
        return {"Authorization": f"Bearer {reply.json['secret']}"}

    async def spent(self, name: str) -> dict[str, Any]:
        return (await self.admin("GET", f"/{name}")).json["spent"]["month"]

    def keys(self, *arguments: str) -> int:
        """The command."""
        return main(["keys", *arguments], {"DATA_DIR": str(self.folder)})


@async_yield_fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with running_relay(DATA_DIR=tmp_path, ADMIN_KEY="the-key-of-the-admin") as relay:
        relay.upstream.always(stream("Hello", usage=True))
        yield Office(relay, tmp_path)


@pytest.mark.slow
@ensureDeferred
async def test_the_command_and_a_running_daemon(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    relay = office.relay
    assert (await relay.ask(gpt())).status == 200
    assert office.keys("add", "bob", "--budget", "5USD/month", "--models", "gpt-*,o?") == 0
    key, told = capsys.readouterr()
    assert "need a key" in told
    assert "ADMIN_KEY" in told
    assert "has no prices" in told
    await until(lambda: relay.daemon._accounts.are_needed, "the daemon knows of it", 5)
    shown = {"x_api_key": key.strip()}
    assert (await relay.ask(gpt())).status == 401
    assert (await relay.ask(gpt(), **shown)).status == 200
    lines = [formatEvent(event) for event in relay.logged]
    assert any("account=bob route=" in line for line in lines)
    # It is nobody else's business.
    assert not relay.upstream.calls[-1].header("x-api-key")
    assert office.keys("limit", "bob", "--off") == 0
    await relay.daemon._accounts.look()
    assert (await relay.ask(gpt(), **shown)).error["code"] == "api_key_disabled"
    office.keys("list")
    office.keys("show", "bob")
    out, _ = capsys.readouterr()
    assert "off, 5USD/month, models gpt-* o?" in out
    assert key.strip() not in out
    assert office.keys("revoke", "bob") == 0
    await relay.daemon._accounts.look()
    # Nobody is let in because the last account is gone.
    for headers in (shown, {}):
        assert (await relay.ask(gpt(), **headers)).error["code"] == "invalid_api_key"
    for wrong in (
        ("revoke", "bob"),
        ("add", "key-1"),
        ("add", "eve", "--budget", "much"),
        ("add", "eve", "--expires", "x"),
    ):
        assert office.keys(*wrong) == 1
        assert capsys.readouterr().err.startswith("gemproxy: ")
    assert [record.account.name for record in relay.daemon._accounts.records] == ["bob"]


@ensureDeferred
async def test_accounts_over_http(office: Office) -> None:
    bob = await office.account("bob", requests_per_minute=9, budgets=["100 tokens/day"])
    (shown,) = (await office.admin("GET")).json["data"]
    assert shown == (await office.admin("GET", "/bob")).json
    assert shown["requests_per_minute"] == 9
    assert shown["key"] == f"...{bob['Authorization'][-4:]}"
    assert "secret" not in shown
    assert shown["notes"] == []
    changed = await office.admin("PATCH", "/bob", {"requests_per_minute": None, "expires": 1})
    assert (changed.json["requests_per_minute"], changed.json["budgets"]) == (
        None,
        ["100 tokens/day"],
    )
    assert (await office.relay.ask(gpt(), **bob)).error["code"] == "api_key_expired"
    assert (await office.admin("DELETE", "/bob")).json == {"name": "bob", "revoked": True}
    for method, path, body, status, code in (
        ("POST", "", {"name": "<b>"}, 400, None),
        ("POST", "", {"name": "eve", "rpm": 1}, 400, None),
        ("POST", "", {}, 400, None),
        ("POST", "", b"[", 400, None),
        ("GET", "/bob", None, 404, "no_such_account"),
        ("PATCH", "/bob", {}, 404, "no_such_account"),
        ("DELETE", "/bob", None, 404, "no_such_account"),
    ):
        reply = await office.admin(method, path, body)
        assert (reply.status, reply.error["code"]) == (status, code), (method, body)
    await office.account("eve")
    reply = await office.admin("POST", body={"name": "eve"})
    assert (reply.status, reply.error["code"]) == (409, "account_exists")
    assert (await office.relay.get("/admin/keys")).status == 401


@ensureDeferred
async def test_nobody_locks_themselves_out_of_admin(tmp_path: Path) -> None:
    async with running_relay(DATA_DIR=tmp_path) as relay:
        reply = await (await relay.send("POST", "/admin/keys", {"name": "bob"})).reply()
        assert (reply.status, reply.error["code"]) == (409, "admin_key_needed")
    async with running_relay(DATA_DIR=tmp_path, PROXY_API_KEYS="k,l", ADMIN_KEY="boss") as relay:
        reply = await (await relay.send("GET", "/admin/keys", x_api_key="boss")).reply()
        assert [(one["name"], one["is_setting"]) for one in reply.json["data"]] == [
            ("key-1", True),
            ("key-2", True),
        ]


@ensureDeferred
async def test_who_may_see_the_metrics(office: Office) -> None:
    async def status(**headers: str) -> int:
        return (await (await office.relay.send("GET", "/metrics", **headers)).reply()).status

    assert await status() == 200
    shown = await office.account("bob", models=["o3"])
    assert [await status(**headers) for headers in ({}, shown, ADMIN)] == [401, 200, 200]
    # It opens nothing else that is for clients.
    sent = await office.relay.send("GET", "/v1/models", **ADMIN)
    assert (await sent.reply()).status == 401


MESSAGES = {"model": "gpt-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
ASKED = (
    ("/v1/chat/completions", gpt(), lambda error: error["code"]),
    ("/v1/embeddings", {"model": "gpt-x", "input": "x"}, lambda error: error["code"]),
    ("/v1/images/generations", {"model": "gpt-x", "prompt": "x"}, lambda error: error["code"]),
    ("/v1/responses", {"model": "gpt-x", "input": "x"}, lambda error: error["code"]),
    ("/v1/messages", MESSAGES, lambda error: error["type"]),
    (
        "/v1beta/models/gpt-x:generateContent",
        {"contents": [{"parts": [{"text": "Hi"}]}]},
        lambda error: error["status"],
    ),
)


@ensureDeferred
async def test_limits_answer_as_each_dialect_does(office: Office) -> None:
    shown = await office.account("bob", requests_per_minute=1)
    reply = await office.relay.ask(gpt(), **shown)
    assert (reply.status, reply.headers["x-ratelimit-limit-requests"]) == (200, "1")
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    codes = []
    for path, body, code_of in ASKED:
        reply = await (await office.relay.send("POST", path, body, **shown)).reply()
        assert reply.status == 429, path
        assert 50 < float(reply.headers["retry-after"]) <= 60
        assert reply.headers["x-ratelimit-remaining-requests"] == "0"
        codes.append(code_of(reply.error))
    assert codes == [*["rate_limit_exceeded"] * 4, "rate_limit_error", "RESOURCE_EXHAUSTED"]
    # Each was refused before anybody was asked. What only reads is not counted.
    assert len(office.relay.upstream.calls) == 1
    office.relay.upstream.play(document({"data": []}))
    assert (await (await office.relay.send("GET", "/v1/models", **shown)).reply()).status == 200


@ensureDeferred
async def test_what_is_refused_is_not_received(office: Office) -> None:
    shown = await office.account("bob", requests_per_minute=1)
    assert (await office.relay.ask(gpt(), **shown)).status == 200
    client = await office.relay.connect()
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Length: 1000000"]
    lines.append(f"Authorization: {shown['Authorization']}")
    client.transport.write("\r\n".join([*lines, "", ""]).encode())
    assert (await client.reply()).status == 429


@ensureDeferred
async def test_a_budget_ends_nothing_that_runs_and_lasts_over_a_restart(tmp_path: Path) -> None:
    settings = {"DATA_DIR": tmp_path, "ADMIN_KEY": "the-key-of-the-admin"}
    async with running_relay(**settings) as relay:
        office = Office(relay, tmp_path)
        shown = await office.account("bob", budgets=["10 tokens/month"])
        relay.upstream.play(stream("Hello", usage=True))
        first = await relay.begin(gpt(stream=True), **shown)
        reply = await first.reply()
        assert (reply.status, reply.content) == (200, "Hello")
        reply = await relay.ask(gpt(), **shown)
        assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")
        assert reply.error["type"] == "insufficient_quota"
        assert reply.headers["x-should-retry"] == "false"
        assert (await office.spent("bob"))["tokens"] == 11
    async with running_relay(**settings) as relay:
        assert (await relay.ask(gpt(), **shown)).error["code"] == "insufficient_quota"
        assert await Office(relay, tmp_path).spent("bob") == {
            "requests": 1,
            "tokens": 11,
            "cost": 0.0,
        }


@ensureDeferred
async def test_whoever_goes_before_the_usage_is_known_is_charged(office: Office) -> None:
    shown = await office.account("bob")

    text = "x" * 4000
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text * 100}"}}
    seen = gpt(stream=True, messages=[{"role": "user", "content": [image]}])
    for play, is_left, asked, expected in (
        (stream(text), False, gpt(stream=True), 1000),
        (stream(text, then="hang"), True, gpt(stream=True), 1000),
        (stream(text, then="hang"), True, seen, 26_000),
    ):
        before = (await office.spent("bob"))["tokens"]
        office.relay.upstream.play(play)
        client = await office.relay.begin(asked, **shown)
        if is_left:
            await client.until_received(b"xxxx")
            client.drop()
            await until(lambda: not office.relay.daemon._admission.open, "it has ended")
        else:
            await client.reply()
        assert 0 <= (await office.spent("bob"))["tokens"] - before - expected < 100

    # All prompts count, and not just the first.
    before = (await office.spent("bob"))["tokens"]
    office.relay.upstream.play(stream("x"), stream(text, then="hang"))
    prompts = {"model": "gemini-x", "prompt": ["x", text], "stream": True}
    client = await office.relay.send("POST", "/v1/completions", prompts, **shown)
    await client.until_received(b"xxxx")
    client.drop()
    await until(lambda: not office.relay.daemon._admission.open, "it has ended")
    assert 2000 < (await office.spent("bob"))["tokens"] - before < 2100


@ensureDeferred
async def test_what_passes_as_it_comes_is_charged_however_it_ends(office: Office) -> None:
    """Though its end, where the counts are, was not asked for, or not waited for."""
    shown, relay = await office.account("bob"), office.relay
    text = "words " * 40
    begun = {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}}
    image = {"image_url": f"data:image/png;base64,{'A' * 10**6}"}
    for path, body, chunks, is_left, expected in (
        ("completions", {"prompt": text}, [{"choices": [{"text": text}]}] * 200, False, 12_080),
        ("responses", {"input": [image]}, [{"delta": text}] * 200, True, 37_000),
        ("messages", MESSAGES, [begun, *[{"delta": {"text": text}}] * 200], True, 12_007),
    ):
        before = (await office.spent("bob"))["tokens"]
        relay.upstream.play(
            events(*chunks, {"is": "the end"}, **({"then": "hang"} if is_left else {}))
        )
        asked = body | {"model": "gpt-x", "stream": True}
        client = await relay.send("POST", f"/v1/{path}", asked, **shown)
        if is_left:
            await client.until_received(b"the end")
            client.drop()
            await until(lambda: not relay.daemon._admission.open, "it has ended")
        else:
            await client.reply()
        charged = (await office.spent("bob"))["tokens"] - before
        assert charged == pytest.approx(expected, rel=0.03), path


@ensureDeferred
async def test_counts_are_not_hidden_in_what_is_compressed(office: Office) -> None:
    """Not even in the answer to an upload, of which nobody has read the model."""
    shown, relay = await office.account("bob"), office.relay
    relay.upstream.play(document({"usage": {"input_tokens": 3, "output_tokens": 4}}))
    form = {"Content_Type": "multipart/form-data; boundary=x", "Accept_Encoding": "gzip"}
    sent = await relay.send("POST", "/v1/images/edits", b"--x--", **form, **shown)
    assert (await sent.reply()).status == 200
    assert relay.upstream.calls[-1].header("accept-encoding") == "identity"
    assert (await office.spent("bob"))["tokens"] == 7


@ensureDeferred
async def test_requests_at_once_are_those_that_are_under_way(office: Office) -> None:
    shown = await office.account("bob", concurrent=1)
    office.relay.upstream.play(hang())
    running = await office.relay.begin(gpt(stream=True), **shown)
    await office.relay.upstream.when_asked()
    reply = await office.relay.ask(gpt(), **shown)
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    running.drop()
    await until(lambda: not office.relay.daemon._admission.open, "it has ended")
    assert (await office.relay.ask(gpt(), **shown)).status == 200


@ensureDeferred
async def test_an_open_websocket_is_under_way(office: Office) -> None:
    shown = await office.account("bob", concurrent=1)
    office.relay.upstream.play(switch())
    client = await open_websocket(office.relay, **shown)
    await accepted(office.relay, client)
    assert (await office.relay.ask(gpt(), **shown)).status == 429
    client.drop()
    await until(lambda: not office.relay.daemon._admission.open, "it has ended")
    assert (await office.relay.ask(gpt(), **shown)).status == 200


@ensureDeferred
async def test_a_budget_of_money_goes_by_the_prices(office: Office) -> None:
    price = PriceConfig("gpt-*", input=100_000.0, output=500_000.0)
    office.relay.daemon._meter.prices = Prices(PriceListConfig(per_million=(price,)))
    shown = await office.account("bob", budgets=["2USD/day"])
    for number in (1, 2):
        assert (await office.relay.ask(gpt(), **shown)).status == 200
        assert (await office.spent("bob"))["cost"] == pytest.approx(number * 1.9)
    reply = await office.relay.ask(gpt(), **shown)
    assert (reply.status, reply.error["code"]) == (429, "insufficient_quota")


@ensureDeferred
async def test_the_limits_of_an_upstream_are_not_those_of_the_account(office: Office) -> None:
    theirs = (EVENT_STREAM, ("x-ratelimit-remaining-tokens", "999"))
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        for limits, told in ({}, "999"), ({"requests_per_minute": 5}, None):
            shown = await office.account(f"bob{len(limits)}{path[4:7]}", **limits)
            office.relay.upstream.play(events(*answer("Hi"), headers=theirs))
            reply = await (await office.relay.send("POST", path, gpt(stream=True), **shown)).reply()
            assert reply.headers.get("x-ratelimit-remaining-tokens") == told, path


class SharedLimiter:
    """One that asks somebody, who answers when a test says so."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Permit]] = []
        self.released = 0

    def begin(self, account: Account) -> Deferred[Permit]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def charge(self, name: str, spent: Spent) -> None:
        pass

    def headers(self, account: Account) -> list[tuple[str, str]]:
        return [("x-ratelimit-limit-requests", "7")]

    def keep_only(self, names: set[str]) -> None:
        pass

    def release(self) -> None:
        self.released += 1


@ensureDeferred
async def test_a_limiter_may_take_its_time(office: Office) -> None:
    shown = await office.account("bob", concurrent=1)
    relay, limiter = office.relay, SharedLimiter()
    relay.daemon._accounts.limiter = limiter
    allowed, refused, gone = [await relay.begin(gpt(), **shown) for _ in range(3)]
    await until(lambda: len(limiter.asked) == 3, "all wait")
    assert relay.upstream.calls == []
    gone.drop()
    await until(lambda: len(relay.daemon._admission.open) == 2, "one has gone")
    limiter.asked[2].callback(Permit(limiter.release))
    assert limiter.released == 1
    limiter.asked[0].callback(Permit(limiter.release))
    limiter.asked[1].errback(too_many_at_once("bob", 1))
    reply = await allowed.reply()
    assert (reply.status, reply.headers["x-ratelimit-limit-requests"]) == (200, "7")
    assert (await refused.reply()).status == 429
    assert (len(relay.upstream.calls), limiter.released) == (1, 2)


@ensureDeferred
async def test_models_that_are_for_others(office: Office) -> None:
    shown = await office.account("bob", models=["gpt-*", "gemini-2.5-flash"])
    relay = office.relay

    async def status(method: str, path: str, body: Any = None, **headers: str) -> int:
        reply = await (await relay.send(method, path, body, **(shown | headers))).reply()
        if reply.status == 403 and path.startswith("/v1/"):
            assert "bob" in reply.body.decode()
        return reply.status

    for path, model, expected in (
        ("/v1/chat/completions", "gpt-x", 200),
        ("/v1/chat/completions", "models/Gemini-2.5-flash", 200),
        ("/v1/chat/completions", "o3", 403),
        ("/v1/chat/completions", "newapi/gpt-x", 403),
        ("/v1/embeddings", "gpt-x", 200),
        ("/v1/embeddings", "o3", 403),
        ("/v1/images/generations", "o3", 403),
        ("/v1/responses", "o3", 403),
    ):
        body = gpt(prompt="x", input="x", model=model)
        assert await status("POST", path, body) == expected, (path, model)
    assert await status("POST", "/v1/messages", MESSAGES | {"model": "claude-x"}) == 403
    assert await status("POST", "/v1beta/models/o3:generateContent", {"contents": []}) == 403
    assert await status("POST", "/v1beta/models/o3:countTokens", {"contents": []}) == 403
    # Servers in Go take both for the model.
    assert await status("POST", "/v1/embeddings", {"model": "gpt-x", "MODEL": "o3"}) == 403
    assert await status("POST", "/v1/chat/completions", gpt(models=["gpt-y", "o3"])) == 403
    # So do others with what they fall back to, with tools and with sessions.
    for beside in (
        {"fallbacks": [{"model": "o3"}]},
        {"tools": [{"type": "image_generation", "model": "o3"}]},
        {"session": {"model": "o3"}},
    ):
        assert await status("POST", "/v1/responses", gpt(input="x") | beside) == 403, beside
    # These paths are for models of their own, whatever the body says.
    for path in ("/mj/submit/imagine", "/v1/engines/o3/embeddings", "/v1/batches"):
        assert await status("POST", path, {"model": "gpt-x"}) == 403, path
    # What names no model may be for any.
    assert await status("POST", "/v1/audio/transcriptions", b"x", content_type="audio/wav") == 403
    websocket = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert await status("GET", "/v1/realtime?model=o3", **websocket) == 403
    assert await status("GET", "/v1/realtime", **websocket) == 403
    assert await status("GET", "/v1/realtime?model=gpt-x&model=o3", **websocket) == 403
    asked = len(relay.upstream.calls)
    models = [{"id": name, "object": "model"} for name in ("gpt-1", "o3", "gemini-2.5-flash")]
    relay.upstream.always(document({"object": "list", "data": models}))
    listed = await (await relay.send("GET", "/v1/models", **shown)).reply()
    assert {model["id"] for model in listed.json["data"]} == {"gpt-1", "gemini-2.5-flash"}
    assert await status("GET", "/v1/models/gpt-1") == 200
    assert await status("GET", "/v1/models/o3") == 403
    assert await status("GET", "/v1beta/models/o3") == 403
    assert all(b"o3" not in call.body for call in relay.upstream.calls[:asked])


@ensureDeferred
async def test_a_file_that_cannot_be_read_lets_nobody_in(tmp_path: Path) -> None:
    file = tmp_path / FILE
    # A link to itself leads nowhere, as a folder that is somebody else's.
    for make in (lambda: file.write_bytes(b"no database" * 1000), lambda: file.symlink_to(file)):
        make()
        with pytest.raises(OSError, match=r"^The accounts cannot be read \(DATA_DIR\): "):
            async with running_relay(DATA_DIR=tmp_path):
                pass
        file.unlink()
    async with running_relay(DATA_DIR=tmp_path, ADMIN_KEY="the-key-of-the-admin") as relay:
        await Office(relay, tmp_path).account("bob")
        for path in tmp_path.glob(f"{FILE}*"):
            path.unlink()
        await relay.daemon._accounts.look()
        assert (await relay.ask(gpt())).status == 401
