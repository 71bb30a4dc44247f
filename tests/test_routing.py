"""Who gets a model: the table, several upstreams, fallback, repeating, failing ones that rest."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import Clock

from gemproxy import command
from gemproxy.chat.errors import ChatError, upstream_failed
from gemproxy.config import SETTINGS, BadSetting, Config, read_config
from gemproxy.config_file import DIALECT_NAMES, BadFile, UpstreamConfig, parse_config_file
from gemproxy.routing.rest import FAILURES, LONGEST, SHORTEST, Rest
from gemproxy.routing.table import BadRoute, Member, RoutingTable, Target, as_text
from gemproxy.service import Daemon
from testing.fake_newapi import JSON, FakeNewApi, document, stream
from testing.processes import free_port
from testing.proxy import ProxyServer
from tests.support import Client, at_once, chat

ENV = [setting.env for setting in SETTINGS]

# The file


def parsed(text: str) -> Any:
    return parse_config_file(text, ENV, read_secret=str)


def test_every_setting_may_stand_in_the_file():
    file = parsed('max_retries = 3\nRETRY-DELAY = 0.5\nlenient = false\nstop_tags = ["a", "b"]\n')
    assert file.settings == {
        "MAX_RETRIES": "3",
        "RETRY_DELAY": "0.5",
        "LENIENT": "false",
        "STOP_TAGS": "a,b",
    }


def test_an_upstream_has_all_of_its_fields():
    file = parsed(
        """
        [[upstream]]
        name = "one"
        url = "http://one.example/v1/"
        key = "a"
        keys = ["b"]
        models = ["claude-*"]
        prefix = "o"
        convert = "off"
        timeout = 5
        proxy = "http://proxy.example:8080"
        headers = { X-Title = "x" }
        dialects = ["completions"]
        [[upstream]]
        name = "two"
        url = "https://two.example"
        [routes]
        "gpt-4o" = "one/gpt-4o"
        "best" = ["one/a", "gemini/gemini-3.8-flash"]
        """
    )
    one, two = file.upstreams
    assert one == UpstreamConfig(
        "one",
        "http://one.example/v1",
        ("b", "a"),
        ("claude-*",),
        "o",
        "off",
        5.0,
        "http://proxy.example:8080",
        (("X-Title", "x"),),
        ("completions",),
    )
    assert two == UpstreamConfig("two", "https://two.example", prefix="two")
    assert file.routes == {"gpt-4o": ("one/gpt-4o",), "best": ("one/a", "gemini/gemini-3.8-flash")}
    assert "keys" not in repr(one)


UPSTREAM = '[[upstream]]\nname = "a"\nurl = "http://a.example"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_retries = ", "not TOML"),
        ("max_retrys = 1", "did you mean 'max_retries'"),
        ("max_retries = [1]", "'max_retries' must be"),
        ("upstream = 1", "[[upstream]]"),
        ("[upstream]\nname = 'a'", "[[upstream]]"),
        ("[[upstream]]\nurl = 'http://a.example'", "upstream 1: 'name'"),
        ("[[upstream]]\nname = 'gemini'\nurl = 'http://a.example'", "upstream 1: 'name'"),
        ("[[upstream]]\nname = 'a'", "upstream 'a': 'url'"),
        ("[[upstream]]\nname = 'a'\nurl = 'ftp://x'", "upstream 'a': 'url'"),
        (UPSTREAM + UPSTREAM, "two upstreams have the name 'a'"),
        (UPSTREAM + "key = 1", "upstream 'a': 'key'"),
        (UPSTREAM + "key = 'a b'", "upstream 'a': 'key'"),
        (UPSTREAM + "models = 'x'", "upstream 'a': 'models'"),
        (UPSTREAM + "timeout = 0", "upstream 'a': 'timeout'"),
        (UPSTREAM + "timeout = true", "upstream 'a': 'timeout'"),
        (UPSTREAM + "convert = 'maybe'", "one of auto, on, off"),
        (UPSTREAM + "dialects = ['klingon']", f"may have {', '.join(DIALECT_NAMES)}"),
        (UPSTREAM + "proxy = 'x'", "upstream 'a': 'proxy'"),
        (UPSTREAM + "headers = { a = 1 }", "upstream 'a': 'headers'"),
        (UPSTREAM + "prefix = 'models'", "upstream 'a': 'prefix'"),
        (UPSTREAM + "time_out = 5", "did you mean 'timeout'"),
        ("routes = 1", "[routes]"),
        ("[routes]\na = []", "route 'a'"),
        ("[routes]\na = 1", "route 'a'"),
    ],
)
def test_a_bad_file_says_where_it_is_wrong(text: str, says: str):
    with pytest.raises(BadFile) as caught:
        parsed(text)
    assert says in str(caught.value)


def test_options_and_the_environment_win_over_the_file(tmp_path: Path):
    path = tmp_path / "gemproxy.toml"
    path.write_text("max_retries = 3\ntimeout = 7\ndrain = 1\n")
    environ = {"GEMINI_API_KEY": "k", "TIMEOUT": "8", "DRAIN": ""}
    config = read_config({"max-retries": "4"}, environ, path)
    assert (config.max_retries, config.timeout, config.drain) == (4, 8.0, 1.0)


@pytest.mark.parametrize("content", [b"max_retries = -1", b"\xff", b"x"])
def test_the_file_is_named_in_its_errors(tmp_path: Path, content: bytes):
    path = tmp_path / "gemproxy.toml"
    path.write_bytes(content)
    with pytest.raises(BadSetting, match=r"gemproxy\.toml"):
        read_config({}, {"GEMINI_API_KEY": "k"}, path)
    with pytest.raises(BadSetting, match=r"none\.toml: cannot be read"):
        read_config({}, {}, tmp_path / "none.toml")


def names(text: str, **environ: str) -> list[tuple[str, str]]:
    config = Config.load({}, {"GEMINI_API_KEY": "k"} | environ, file=parsed(text))
    return [(one.name, one.url) for one in config.upstreams]


def test_the_short_form_is_one_of_the_upstreams():
    assert names("") == [("newapi", "http://127.0.0.1:3001")]
    assert names(UPSTREAM) == [("a", "http://a.example")]
    both = [("newapi", "http://b.example"), ("a", "http://a.example")]
    assert names(UPSTREAM, UPSTREAM_URL="http://b.example") == both
    mine = UPSTREAM.replace('"a"', '"newapi"')
    assert names(mine, UPSTREAM_URL="http://b.example") == [("newapi", "http://a.example")]


# The table

TABLE = RoutingTable(
    (Member("newapi", "newapi"), Member("other", "o", ("claude-*",))),
    {
        "gpt-4o": ("newapi/gpt-4o-2024", "o/gpt-4o"),
        "mine-*": ("o/theirs-*",),
        "fast": ("gemini/Gemini-3.8-Flash",),
    },
)


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        ("gpt-4o", ["newapi/gpt-4o-2024", "other/gpt-4o"]),
        ("mine-7b", ["other/theirs-7b"]),
        ("fast", ["gemini/gemini-3.8-flash"]),
        ("newapi/gemini-2.5-flash", ["newapi/gemini-2.5-flash"]),
        ("o/x/y", ["other/x/y"]),
        ("claude-opus", ["other/claude-opus"]),
        ("gemini/X", ["gemini/x"]),
        ("gpt-4", []),
        ("gemini-2.5-flash", []),
        ("google/gemini-2.5-flash", []),
        ("newapi/", []),
        ("", []),
    ],
)
def test_what_is_explicit_needs_no_list(model: str, targets: list[str]):
    assert list(map(str, TABLE.explicit(model))) == targets


LISTS = {"newapi": {"vertex-gemini-2.5-pro", "google/gemini-2.5-pro:free", "gpt-x", "gemini-2.5"}}


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("gemini-3.8-flash", "gemini/gemini-3.8-flash"),
        ("models/Gemini-3.8-Flash", "gemini/gemini-3.8-flash"),
        ("gemma-3", "gemini/gemma-3"),
        ("vertex-gemini-2.5-pro", "newapi/vertex-gemini-2.5-pro"),
        ("google/gemini-2.5-pro:free", "newapi/google/gemini-2.5-pro:free"),
        ("gemini-2.5", "newapi/gemini-2.5"),
        ("my-gemini-tune", "gemini/my-gemini-tune"),
        ("gpt-x", "newapi/gpt-x"),
        ("unknown", "newapi/unknown"),
        ("org/unknown", "newapi/org/unknown"),
    ],
)
def test_the_lists_decide_what_is_not_explicit(model: str, target: str):
    assert str(TABLE.listed(model, {"gemini-3.8-flash", "gemma-3"}, LISTS)) == target


def test_a_route_to_nowhere_is_refused():
    for target in ("nowhere/x", "gpt-4o", "o/"):
        with pytest.raises(BadRoute, match="'bad'"):
            RoutingTable(TABLE.members, {"bad": (target,)}).check()
    TABLE.check()


def test_people_can_read_the_table():
    text = as_text(TABLE.rows())
    assert "gpt-4o" in text
    assert "newapi/gpt-4o-2024, then o/gpt-4o" in text
    assert text.splitlines()[-1].split() == ["*", "->", "newapi/*"]


@given(st.text(max_size=20), st.sets(st.text(max_size=8), max_size=3))
def test_every_name_has_a_target(model: str, listed: set[str]):
    for target in TABLE.explicit(model) or (TABLE.listed(model, listed, {"other": listed}),):
        assert isinstance(target, Target)
        assert target.upstream in ("gemini", "newapi", "other")


# The command


def test_the_command_checks_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "gemproxy.toml"
    path.write_text(UPSTREAM + '[routes]\nx = "a/y"\n')
    assert command.main(["check", "--config", str(path)], {}) == 0
    out = capsys.readouterr().out
    assert "is valid" in out
    assert "GEMINI_API_KEY is not set" in out
    assert command.main(["routes"], {"GEMPROXY_CONFIG": str(path)}) == 0
    assert "a/y" in capsys.readouterr().out
    path.write_text('[routes]\nx = "b/y"\n')
    assert command.main(["check", "--config", str(path)], {}) == 1
    assert "route 'x'" in capsys.readouterr().err


# An upstream that fails again and again


def test_an_upstream_that_fails_again_and_again_rests():
    clock = Clock()
    rest = Rest(clock, "a")
    for _ in range(FAILURES - 1):
        at_once(rest.check())
        rest.failed(upstream_failed("x"))
    assert rest.left() == 0
    rest.failed(upstream_failed("Refused."))
    with pytest.raises(ChatError, match=r"'a' has failed 5 times.*Refused"):
        at_once(rest.check())
    clock.advance(SHORTEST)
    at_once(rest.check())
    # One request tries it, and the others do not.
    with pytest.raises(ChatError):
        at_once(rest.check())
    rest.failed(upstream_failed("x"))
    assert rest.left() == 2 * SHORTEST
    clock.advance(2 * SHORTEST)
    at_once(rest.check())
    rest.abandoned()
    at_once(rest.check())
    rest.succeeded()
    at_once(rest.check())
    at_once(rest.check())
    for _ in range(30):
        rest.failed(upstream_failed("x"))
    assert rest.left() == LONGEST


# On sockets


class Routed(Client):
    """A Stream Proxy with three upstreams; the first stands for Gemini."""

    daemon: Any
    file: Path
    gemini: FakeNewApi
    one: FakeNewApi
    two: FakeNewApi


def listed(*ids: str) -> bytes:
    return json.dumps({"data": [{"id": id, "object": "model"} for id in ids]}).encode()


FILE = """
[[upstream]]
name = "one"
url = "{one}"
key = "key-of-one"
[[upstream]]
name = "two"
url = "{two}"
models = ["claude-*"]
[routes]
"fast" = "gemini/gemini-3.8-flash"
"best" = ["one/best-1", "two/best-2"]
"""


@asynccontextmanager
async def routed(tmp_path: Path, text: str = FILE, **settings: str) -> AsyncIterator[Routed]:
    gemini, one, two = (FakeNewApi() for _ in range(3))
    path = tmp_path / "gemproxy.toml"
    path.write_text(text.format(one=one.url, two=two.url))
    environ = {
        "GEMINI_PROXY_URL": gemini.url,
        "PORT": "off",
        "STREAM_PORT": str(free_port()),
        "RETRY_DELAY": "0.01",
        "DRAIN": "0",
        "LOG_DIR": "",
        "USAGE_DAYS": "0",
    } | settings

    def read() -> Config:
        return read_config({}, environ, path)

    daemon = Daemon(read(), None, reactor, environ, read_config=read)
    client = Routed(int(environ["STREAM_PORT"]))
    client.daemon, client.file = daemon, path
    client.gemini, client.one, client.two = gemini, one, two
    daemon.startService()
    try:
        yield client
    finally:
        client.drop_all()
        await daemon.stopService()
        for fake in (gemini, one, two):
            await fake.stop()


def chats(fake: FakeNewApi) -> list[str]:
    """The models that an upstream was asked for."""
    return [call.json["model"] for call in fake.calls if call.target == "/v1/chat/completions"]


@ensureDeferred
async def test_each_model_reaches_its_own(tmp_path: Path) -> None:
    async with routed(tmp_path) as client:
        for fake, says in ((client.gemini, "G"), (client.one, "1"), (client.two, "2")):
            fake.always(stream(says))
        for model, says in (
            ("gemini-3.8-flash", "G"),
            ("fast", "G"),
            ("claude-x", "2"),
            ("two/anything", "2"),
            ("one/gemini-2.5-flash", "1"),
            ("best", "1"),
        ):
            reply = await client.ask(chat(model=model))
            assert (model, reply.content) == (model, says)
        assert chats(client.gemini) == ["gemini-3.8-flash", "gemini-3.8-flash"]
        assert chats(client.two) == ["claude-x", "anything"]
        assert chats(client.one) == ["gemini-2.5-flash", "best-1"]
        [call] = [call for call in client.one.calls if call.json["model"] == "best-1"]
        assert dict(call.headers)["Authorization"] == "Bearer key-of-one"


@ensureDeferred
async def test_lists_tell_what_no_rule_does(tmp_path: Path) -> None:
    async with routed(tmp_path) as client:
        client.gemini.always(document(json.loads(listed("gemini-3.8-flash", "gemma-3"))))
        client.one.always(document(json.loads(listed("gpt-x"))))
        client.two.always(document(json.loads(listed("gpt-y", "gpt-x", "vertex-gemini-pro"))))
        models = (await client.get("/v1/models")).json["data"]
        assert [model["id"] for model in models] == [
            *("gemini-3.8-flash", "gemma-3", "gpt-x", "gpt-y", "vertex-gemini-pro"),
            *("fast", "best"),
        ]
        for fake, says in ((client.gemini, "G"), (client.one, "1"), (client.two, "2")):
            fake.always(stream(says))
        for model, says in (
            ("gemma-3", "G"),
            ("gpt-x", "1"),
            ("gpt-y", "2"),
            ("vertex-gemini-pro", "2"),
            ("my-gemini-tune", "G"),
            ("unknown", "1"),
        ):
            assert (model, (await client.ask(chat(model=model))).content) == (model, says)


@pytest.mark.parametrize("stream_it", [False, True])
@pytest.mark.parametrize("status", [429, 500, 503])
@ensureDeferred
async def test_the_next_one_is_asked_when_the_first_refuses(
    tmp_path: Path, status: int, stream_it: bool
) -> None:
    async with routed(tmp_path, MAX_RETRIES="0") as client:
        client.one.always(document({"error": {"message": "No.", "code": "c"}}, status))
        client.two.always(stream("2"))
        reply = await client.ask(chat(model="best", stream=stream_it))
        assert (reply.status, reply.content) == (200, "2")
        assert (chats(client.one), chats(client.two)) == (["best-1"], ["best-2"])
        client.two.always(document({"error": {"message": "Nor I.", "code": "c"}}, status))
        reply = await client.ask(chat(model="best", stream=stream_it))
        assert (reply.status, reply.error["message"]) == (status, "Nor I.")


@ensureDeferred
async def test_the_next_one_is_not_asked_for_a_bad_request_or_after_content(
    tmp_path: Path,
) -> None:
    async with routed(tmp_path, MAX_RETRIES="0") as client:
        client.one.always(document({"error": {"message": "Bad.", "code": "c"}}, 400))
        assert (await client.ask(chat(model="best"))).error["message"] == "Bad."
        client.one.always(stream("Half", then="cut"))
        reply = await client.ask(chat(model="best", stream=True))
        assert reply.content == "Half"
        assert chats(client.two) == []


@ensureDeferred
async def test_requests_that_were_not_answered_are_repeated(tmp_path: Path) -> None:
    text = FILE.split('[[upstream]]\nname = "two"')[0]
    async with routed(tmp_path, text) as client:
        client.one.play(*[document({"error": {"message": "Wait.", "code": "c"}}, 429)] * 3)
        client.one.always(stream("At last."))
        reply = await client.ask(chat(model="x"))
        assert (reply.status, reply.content) == (200, "At last.")
        assert len(chats(client.one)) == 4
        assert [dict(call.headers)["Authorization"] for call in client.one.calls] == [
            "Bearer key-of-one"
        ] * 4


@ensureDeferred
async def test_an_upstream_that_is_not_there_rests_and_health_says_so(tmp_path: Path) -> None:
    text = FILE.replace("{one}", f"http://127.0.0.1:{free_port()}")
    async with routed(tmp_path, text, MAX_RETRIES="0") as client:
        for _ in range(FAILURES):
            reply = await client.ask(chat(model="one/x"))
            assert reply.status == 502
        reply = await client.ask(chat(model="one/x"))
        assert (reply.status, reply.error["code"]) == (503, "overloaded")
        assert "'one' has failed" in reply.error["message"]
        health = (await client.get("/health")).json
        assert health["status"] == "degraded"
        assert [one["upstream"] for one in health["upstreams_resting"]] == ["one"]
        client.two.always(stream("2"))
        assert (await client.ask(chat(model="best"))).content == "2"


@ensureDeferred
async def test_the_file_is_read_anew_without_dropping_a_request(tmp_path: Path) -> None:
    async with routed(tmp_path) as client:
        client.one.always(stream("One", " and on", then="hang"))
        running = await client.begin(chat(model="one/x", stream=True))
        await running.when(lambda: b" and on" in running.received)
        good = client.file.read_text()
        client.file.write_text(good.replace('"fast" = "gemini/', '"fast" = "nowhere/'))
        client_reply = await (await client.send("POST", "/admin/reload")).reply()
        assert (client_reply.status, client_reply.error["code"]) == (422, "bad_configuration")
        assert "nowhere" in client_reply.error["message"]
        assert "gemini/gemini-3.8-flash" in (await client.get("/admin/routes")).body.decode()
        client.file.write_text(good.replace("gemini/gemini-3.8-flash", "two/z"))
        reply = await (await client.send("POST", "/admin/reload")).reply()
        assert reply.json == {"changed": ["routes"]}
        client.two.always(stream("2"))
        assert (await client.ask(chat(model="fast"))).content == "2"
        assert not running.closed
        assert running.text_so_far() == "One and on"


@ensureDeferred
async def test_an_upstream_that_has_changed_takes_the_place_of_the_one_before(
    tmp_path: Path,
) -> None:
    async with routed(tmp_path) as client:
        good = client.file.read_text()
        client.two.always(stream("2"))
        # In whatever order they are looked at.
        for number in range(8):
            client.file.write_text(good.replace("url =", f"timeout = {number + 1}\nurl ="))
            reply = await (await client.send("POST", "/admin/reload")).reply()
            assert reply.json == {"changed": ["upstreams"]}
            assert (await client.ask(chat(model="two/x"))).content == "2"


@ensureDeferred
async def test_admin_needs_its_key_where_there_is_one(tmp_path: Path) -> None:
    async with routed(tmp_path, ADMIN_KEY="boss", PROXY_API_KEYS="guest") as client:
        for key, status in (("guest", 401), ("boss", 200), ("", 401)):
            sent = await client.send("GET", "/admin/routes", Authorization=f"Bearer {key}")
            assert (await sent.reply()).status == status
        sent = await client.send(
            "GET", "/admin/routes", Accept="application/json", x_api_key="boss"
        )
        rows = (await sent.reply()).json["routes"]
        assert {"model": "fast", "target": "gemini/gemini-3.8-flash"} in rows
    async with routed(tmp_path, PROXY_API_KEYS="guest") as client:
        sent = await client.send("GET", "/admin/routes", Authorization="Bearer guest")
        assert (await sent.reply()).status == 403


@ensureDeferred
async def test_an_upstream_gets_its_own_headers(tmp_path: Path) -> None:
    text = FILE.replace('name = "one"', 'name = "one"\nheaders = {{ X-Title = "ours" }}')
    async with routed(tmp_path, text) as client:
        client.one.always(stream("1"))
        await client.ask(chat(model="one/x"), X_Title="theirs")
        assert client.one.calls[0].all_headers("x-title") == ["ours"]
        client.one.always(document({"data": []}))
        sent = await client.send("POST", "/v1/embeddings", {"model": "one/y", "input": "x"})
        assert (await sent.reply()).json == {"data": []}
        call = client.one.calls[1]
        assert call.all_headers("x-title") == ["ours"]
        assert call.json["model"] == "y"


@pytest.mark.parametrize("kept", [("x-gemproxy-via",), ("accept", "content-type")])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@ensureDeferred
async def test_a_loop_ends_after_the_first_turn(
    tmp_path: Path, kept: tuple[str, ...], path: str
) -> None:
    """An upstream that has this proxy among its channels; New-API passes two headers on."""
    async with routed(tmp_path, MAX_RETRIES="0") as client:
        turns: list[Any] = []

        async def ask_back(call: Any) -> None:
            await call.when(lambda: call.complete)
            turns.append(call)
            known = {name: call.all_headers(name) for name in kept}
            headers = {
                name.replace("-", "_"): values[0] for name, values in known.items() if values
            }
            again = await client.send("POST", call.target, bytes(call.body), **headers)
            reply = await again.reply()
            await document(reply.json, reply.status)(call)

        client.one.always(ask_back)
        reply = await (await client.send("POST", path, chat(model="one/x"))).reply()
        assert (reply.status, reply.error["code"]) == (508, "loop_detected")
        assert len(turns) == 1


@pytest.mark.parametrize(
    ("status", "headers", "tries"),
    [
        (503, [("Retry-After", "0")], 3),
        (502, [("Retry-After", "0")], 3),
        (503, [], 1),
        (500, [("Retry-After", "0")], 1),
        (503, [("Retry-After", "9999")], 1),
        (400, [("Retry-After", "0")], 1),
    ],
)
@ensureDeferred
async def test_errors_are_repeated_where_the_upstream_says_when(
    tmp_path: Path, status: int, headers: Any, tries: int
) -> None:
    async with routed(tmp_path, MAX_RETRIES="2") as client:
        error = {"error": {"message": "No.", "code": "c"}}
        client.one.always(document(error, status, [JSON, *headers]))
        reply = await client.ask(chat(model="one/x"))
        assert (reply.status, reply.error["message"]) == (status, "No.")
        assert len(chats(client.one)) == tries


@ensureDeferred
async def test_an_upstream_has_a_proxy_of_its_own(tmp_path: Path) -> None:
    proxy = ProxyServer()
    text = FILE.replace('"{one}"', f'"http://upstream.test"\nproxy = "http://{proxy.address}"')
    try:
        async with routed(tmp_path, text) as client:
            proxy.targets["upstream.test:80"] = client.one._number
            client.one.always(stream("1"))
            client.two.always(stream("2"))
            assert (await client.ask(chat(model="one/x"))).content == "1"
            assert (await client.ask(chat(model="two/x"))).content == "2"
            assert len(proxy.asked) == 1
    finally:
        await proxy.stop()


@ensureDeferred
async def test_an_upstream_that_begins_to_answer_is_back(tmp_path: Path) -> None:
    async with routed(tmp_path, MAX_RETRIES="0") as client:
        rest = client.daemon._router._upstreams["one"].rest
        rest.failed(upstream_failed("x"))
        rest._failures, rest._seconds, rest._until = FAILURES, SHORTEST, reactor.seconds()
        client.one.play(stream("Slow", then="hang"))
        slow = await client.begin(chat(model="one/x", stream=True))
        await slow.when(lambda: b"Slow" in slow.received)
        client.one.play(stream("1"))
        assert (await client.ask(chat(model="one/x"))).content == "1"
