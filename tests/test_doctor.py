"""C{gemproxy doctor}: what is wrong is found, side by side, and its fix is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gemproxy.config import Config, read_config
from gemproxy.doctor import gather, verdicts
from gemproxy.doctor.checks import Doctor
from gemproxy.doctor.examination import Check, examine
from gemproxy.doctor.facts import Listener, Unanswered
from gemproxy.doctor.findings import Finding, State, as_text, exit_status, ok
from gemproxy.gemini.cli.install import INSTALL_CLI, PINNED_VERSION
from testing.fake_newapi import JSON, FakeNewApi, document, hang, verbatim
from testing.google import refusals
from testing.google.app import StandIn
from testing.processes import free_port
from testing.proxy import ProxyServer
from tests.support import deaf_port, running_relay

GEMPROXY = str(Path(sys.executable).with_name("gemproxy"))
KEY, TOKEN = "AIza-the-key-of-the-tests", "sk-token-of-the-tests"


def program(path: Path, says: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


@define
class Machine:
    """
    A machine on which all is well, until a test breaks something.

    @ivar environ: the variables of gemproxy.
    """

    folder: Path
    environ: dict[str, str]
    google: StandIn
    newapi: FakeNewApi

    def config(self, demo: bool = False) -> Config:
        return read_config({}, self.environ, demo=demo, allow_no_key=True)

    async def examined(self, demo: bool = False) -> dict[str, Finding]:
        config = self.config(demo)
        found = await Doctor(reactor, lambda: config, self.environ).examine()
        # Whatever it is: no secret is shown, and what is wrong comes with a command.
        assert KEY not in str(found)
        assert TOKEN not in str(found)
        for finding in found:
            is_wrong = finding.state in (State.WARNING, State.FAILED)
            assert bool(re.search("`[^`]+`", finding.fix)) is is_wrong, finding
        return {finding.check: finding for finding in found}

    async def troubles(self, demo: bool = False) -> dict[str, Finding]:
        """What is not well."""
        found = await self.examined(demo)
        return {name: one for name, one in found.items() if one.state is not State.OK}


@pytest_twisted.async_yield_fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    package = tmp_path / "lib" / "gemini-cli"
    program(package / "gemini.js", "")
    (package / "package.json").write_text(
        json.dumps({"name": "@google/gemini-cli", "version": PINNED_VERSION})
    )
    program(tmp_path / "bin" / "node", "v22.1.0")
    (tmp_path / "bin" / "gemini").symlink_to(package / "gemini.js")
    google = StandIn(reactor, keys=[KEY])
    port = reactor.listenTCP(0, google.site(), interface="127.0.0.1")
    newapi = FakeNewApi()
    newapi.always(document({"object": "list", "data": [{"id": "gpt-x"}]}))
    environ = {
        "PATH": str(tmp_path / "bin"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "GEMINI_API_KEY": KEY,
        "GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{port.getHost().port}",
        "UPSTREAM_URL": newapi.url,
        "FIXED_API_KEY": TOKEN,
        "PORT": str(free_port()),
        "STREAM_PORT": str(free_port()),
        "LOG_DIR": str(tmp_path / "to be made" / "logs"),
        "DATA_DIR": str(tmp_path),
    }
    yield Machine(tmp_path, environ, google, newapi)
    await port.stopListening()
    await google.stop()
    await newapi.stop()


@ensureDeferred
async def test_where_all_is_well_each_is_asked_once(machine: Machine) -> None:
    before = sorted(machine.folder.rglob("*"))
    found = await machine.examined()
    assert list(found) == [
        *("node", "cli", "network", "key", "clock", "upstream newapi"),
        *(f"port {machine.environ['PORT']}", f"port {machine.environ['STREAM_PORT']}"),
        *("folder LOG_DIR", "folder DATA_DIR", "folder TMPDIR", "demo"),
    ]
    assert {one.state for one in found.values()} == {State.OK}, found
    assert exit_status(found.values()) == 0
    assert [asked.method for asked in machine.google.requests] == ["list"]
    [call] = machine.newapi.calls
    assert (call.target, call.header("authorization")) == ("/v1/models", f"Bearer {TOKEN}")
    assert sorted(machine.folder.rglob("*")) == before


# --- The CLI and its node.


@ensureDeferred
async def test_without_node_and_without_a_cli(machine: Machine) -> None:
    machine.environ["PATH"] = str(machine.folder / "nothing")
    troubles = await machine.troubles()
    assert {one.state for one in troubles.values()} == {State.FAILED}
    assert list(troubles) == ["node", "cli"]
    assert "`nvm install 20`" in troubles["node"].fix
    assert f"`{INSTALL_CLI}`" in troubles["cli"].fix


@ensureDeferred
async def test_an_old_node_and_another_cli(machine: Machine) -> None:
    program(machine.folder / "bin" / "node", "v18.0.0")
    (machine.folder / "lib" / "gemini-cli" / "package.json").unlink()
    program(machine.folder / "lib" / "gemini-cli" / "gemini.js", "0.99.0-nightly.1")
    troubles = await machine.troubles()
    assert "is v18.0.0" in troubles["node"].message
    assert troubles["cli"].state is State.WARNING
    assert "0.99.0-nightly.1" in troubles["cli"].message
    assert "`gemproxy doctor --cli`" in troubles["cli"].fix
    assert list(troubles) == ["node", "cli"]
    program(machine.folder / "lib" / "gemini-cli" / "gemini.js", "hello")
    assert "does not tell its version" in (await machine.troubles())["cli"].message


@ensureDeferred
async def test_programs_that_hang_are_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "PATIENCE", 0.4)
    package = machine.folder / "lib" / "gemini-cli"
    (package / "package.json").unlink()
    pids = machine.folder / "pids"
    pids.touch()
    for path in (package / "gemini.js", machine.folder / "bin" / "node"):
        program(path, f"'; echo $$ >> {pids}; exec /bin/sleep 60; echo '")
    troubles = await machine.troubles()
    assert "timed out" in troubles["node"].message
    assert "does not tell its version" in troubles["cli"].message
    for pid in pids.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


# --- Google.


@ensureDeferred
async def test_without_a_key(machine: Machine) -> None:
    del machine.environ["GEMINI_API_KEY"]
    troubles = await machine.troubles()
    assert list(troubles) == ["key"]
    assert "`export GEMINI_API_KEY=your-key`" in troubles["key"].fix
    assert "--demo" in troubles["key"].fix


@pytest.mark.parametrize(
    ("refusal", "state", "words"),
    [
        (None, State.FAILED, "API key not valid"),
        (refusals.error(401), State.FAILED, "GEMINI_API_KEY"),
        (
            refusals.error(400, "User location is not supported for the API use."),
            State.FAILED,
            "region",
        ),
        (refusals.error(503), State.WARNING, "does not say"),
    ],
)
@ensureDeferred
async def test_a_key_that_google_does_not_take(
    machine: Machine, refusal: refusals.Refusal | None, state: State, words: str
) -> None:
    machine.google.list_refusal = refusal
    if refusal is None:
        machine.environ["GEMINI_API_KEY"] = "a-wrong-key"
    troubles = await machine.troubles()
    assert list(troubles) == ["key"]
    assert troubles["key"].state is state
    assert words in troubles["key"].message


@ensureDeferred
async def test_the_first_of_several_keys_is_tried(machine: Machine) -> None:
    machine.environ["GEMINI_API_KEY"] = f"{KEY},another-key,a-third-key"
    found = await machine.examined()
    assert "The first of 3 keys" in found["key"].message
    assert len(machine.google.requests) == 1


@ensureDeferred
async def test_an_address_that_is_not_googles(machine: Machine) -> None:
    for answer in (document(b"<html>", headers=()), document({}, status=404)):
        machine.newapi.play(answer)
        machine.environ["GOOGLE_GEMINI_BASE_URL"] = machine.newapi.url
        troubles = await machine.troubles()
        assert "not as the Gemini API does" in troubles["network"].message
        assert "`unset GOOGLE_GEMINI_BASE_URL`" in troubles["network"].fix
        assert troubles["key"].state is State.SKIPPED


@pytest.mark.parametrize("how", ["refused", "deaf", "no answer", "no http", "no such host"])
@ensureDeferred
async def test_without_a_network(
    machine: Machine, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "_CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(gather, "PATIENCE", 0.3)
    with deaf_port() as deaf:
        hosts = {
            "refused": f"http://127.0.0.1:{free_port()}",
            "deaf": f"http://127.0.0.1:{deaf}",
            "no such host": "http://no-such-host.invalid",
        }
        machine.newapi.play(hang() if how == "no answer" else verbatim(b"\0\0\r\n", "close"))
        machine.environ["GOOGLE_GEMINI_BASE_URL"] = hosts.get(how, machine.newapi.url)
        if how in hosts:
            machine.newapi._scripts.clear()
        del machine.environ["FIXED_API_KEY"]
        machine.environ["STREAM_PORT"] = "off"
        troubles = await machine.troubles()
    assert [(name, one.state) for name, one in troubles.items()] == [
        ("network", State.FAILED),
        ("key", State.SKIPPED),
        ("clock", State.SKIPPED),
    ]
    assert "`curl -sSI http://" in troubles["network"].fix
    assert "`export HTTPS_PROXY=" in troubles["network"].fix


@ensureDeferred
async def test_a_proxy_on_the_way(machine: Machine) -> None:
    machine.environ["GOOGLE_GEMINI_BASE_URL"] = "http://google.test"
    proxy = ProxyServer(user="user:pass-of-the-proxy")
    try:
        proxy.targets["google.test:80"] = machine.newapi._number
        machine.environ["http_proxy"] = f"http://user:pass-of-the-proxy@{proxy.address}"
        found = await machine.examined()
        assert f"answers through the proxy http://{proxy.address}" in found["network"].message
        machine.environ["http_proxy"] = f"http://user:pass-of-before@{proxy.address}"
        troubles = await machine.troubles()
        assert troubles["network"].state is State.FAILED
        assert "asks for a user" in troubles["network"].message
    finally:
        await proxy.stop()
    machine.environ["HTTP_PROXY"] = machine.environ.pop("http_proxy")
    troubles = await machine.troubles()
    assert f"http://{proxy.address} cannot be reached" in troubles["network"].message
    assert "`unset HTTP_PROXY`" in troubles["network"].fix
    assert "pass-of" not in str(troubles)
    assert troubles["key"].state is State.SKIPPED
    machine.environ["HTTP_PROXY"] = "gopher://127.0.0.1"
    troubles = await machine.troubles()
    assert "gopher:// are not served" in troubles["network"].message
    assert troubles["network"].state is State.FAILED


@pytest.mark.parametrize(
    ("ahead", "state"),
    [(0, State.OK), (-100, State.WARNING), (3600, State.FAILED), (-86_400, State.FAILED)],
)
@ensureDeferred
async def test_a_wrong_clock(machine: Machine, ahead: float, state: State) -> None:
    date = [("Date", formatdate(time() - ahead, usegmt=True))]
    machine.newapi.play(document({"models": []}, headers=[JSON, *date]))
    machine.environ["GOOGLE_GEMINI_BASE_URL"] = machine.newapi.url
    machine.environ["STREAM_PORT"] = "off"
    found = (await machine.examined())["clock"]
    assert found.state is state
    if ahead:
        assert ("ahead of" if ahead > 0 else "behind") in found.message
        assert "`sudo timedatectl set-ntp true`" in found.fix


# --- Upstreams.


@ensureDeferred
async def test_an_upstream_that_is_away(machine: Machine) -> None:
    machine.environ["UPSTREAM_URL"] = f"http://127.0.0.1:{free_port()}"
    troubles = await machine.troubles()
    assert list(troubles) == ["upstream newapi"]
    assert troubles["upstream newapi"].state is State.FAILED
    assert f"`curl -sSi {machine.environ['UPSTREAM_URL']}`" in troubles["upstream newapi"].fix


def test_the_upstream_that_nobody_has_set_is_not_missed() -> None:
    away = Unanswered("It is away.")
    found = verdicts.upstream("newapi", "http://x", "FIXED_API_KEY", 0, False, away)
    assert found.state is State.WARNING


@pytest.mark.parametrize("status", [401, 403])
@ensureDeferred
async def test_a_token_that_new_api_does_not_take(machine: Machine, status: int) -> None:
    refusal = document({"error": {"message": f"Invalid token: {TOKEN}"}}, status=status)
    machine.newapi.always(refusal)
    troubles = await machine.troubles()
    assert list(troubles) == ["upstream newapi"]
    found = troubles["upstream newapi"]
    assert found.state is State.FAILED
    assert "Invalid token: [secret]" in found.message
    assert "`export FIXED_API_KEY=your-token`" in found.fix
    # Where each client has one of its own, that is as it should be.
    del machine.environ["FIXED_API_KEY"]
    assert await machine.troubles() == {}


@ensureDeferred
async def test_each_upstream_of_the_file_is_asked(machine: Machine) -> None:
    path = machine.folder / "gemproxy.toml"
    path.write_text(
        f'[[upstream]]\nname = "one"\nurl = "{machine.newapi.url}/v1"\nkey = "{TOKEN}"\n'
        f'[[upstream]]\nname = "two"\nurl = "http://127.0.0.1:{free_port()}"\nkey = "{TOKEN}"\n'
        f'[[upstream]]\nname = "three"\nurl = "{machine.newapi.url}"\n'
    )
    machine.newapi.always(document(b"<html>", headers=()))
    config = read_config({}, machine.environ | {"UPSTREAM_URL": ""}, path)
    found = await Doctor(reactor, lambda: config, machine.environ).examine()
    states = {one.check: one.state for one in found if one.check.startswith("upstream")}
    assert states == {
        "upstream one": State.WARNING,
        "upstream two": State.FAILED,
        "upstream three": State.WARNING,
    }


# --- This machine: ports, folders, the demo.


@ensureDeferred
async def test_a_port_that_is_taken(machine: Machine) -> None:
    machine.environ["PORT"] = str(machine.newapi._number)
    [found] = (await machine.troubles()).values()
    assert found.check == f"port {machine.environ['PORT']}"
    assert found.state is State.FAILED
    assert f"`ss -ltnp 'sport = :{machine.environ['PORT']}'`" in found.fix
    assert "`export PORT=...`" in found.fix


@ensureDeferred
async def test_a_port_of_a_daemon_that_runs_is_as_it_should_be(machine: Machine) -> None:
    async with running_relay() as relay:
        machine.environ["STREAM_PORT"] = str(relay.port)
        found = await machine.examined()
        assert found[f"port {relay.port}"] == ok(f"port {relay.port}", "gemproxy listens there.")


@pytest.mark.parametrize(
    ("number", "host", "listener"),
    [
        (0, "127.0.0.1", Listener.UNKNOWN),
        (18_080, "192.0.2.1", Listener.FORBIDDEN),
        ("systemd:domain=INET:index=0", "127.0.0.1", Listener.UNKNOWN),
        ("unix:/nowhere/at/all", "127.0.0.1", Listener.UNKNOWN),
    ],
)
def test_ports_that_cannot_be_tried(number: int | str, host: str, listener: Listener) -> None:
    assert gather.port(number, host).listener is listener


@ensureDeferred
async def test_folders_that_cannot_be_written(machine: Machine) -> None:
    (machine.folder / "file").write_text("")
    machine.environ["LOG_DIR"] = str(machine.folder / "file" / "logs")
    machine.environ["DATA_DIR"] = "/proc/gemproxy"
    troubles = await machine.troubles()
    assert list(troubles) == ["folder LOG_DIR", "folder DATA_DIR"]
    assert {one.state for one in troubles.values()} == {State.FAILED}
    assert "Not a directory" in troubles["folder LOG_DIR"].message
    assert '`sudo install -d -o "$(id -un)" /proc/gemproxy`' in troubles["folder DATA_DIR"].fix
    machine.environ["LOG_DIR"] = ""
    assert "folder LOG_DIR" not in await machine.examined()


@ensureDeferred
async def test_the_demo_needs_neither_key_nor_network(machine: Machine) -> None:
    found = await machine.examined(demo=True)
    assert {name for name, one in found.items() if one.state is State.SKIPPED} == {
        *("network", "key", "clock")
    }
    assert found["demo"].state is State.WARNING
    assert machine.google.requests == []


@ensureDeferred
async def test_the_cli_is_not_missed_by_who_does_without(machine: Machine) -> None:
    machine.environ |= {"GEMINI_ENGINE": "direct", "PATH": str(machine.folder)}
    found = await machine.examined()
    assert {name for name, one in found.items() if one.state is State.SKIPPED} == {"node", "cli"}
    assert "folder TMPDIR" not in found


# --- All of them together.


@ensureDeferred
async def test_what_hangs_or_breaks_is_its_own_finding() -> None:
    clock = Clock()

    def broken() -> Any:
        raise LookupError("no such thing")

    async def fine() -> list[Finding]:
        return [ok("fine", "It is.")]

    stuck: Deferred[Any] = Deferred()
    checks = [
        Check(("stuck", "stuck as well"), lambda: stuck),
        Check(("broken",), broken),
        Check(("fine",), fine),
    ]
    examining = examine(clock, checks, 5.0)
    clock.advance(4.9)
    assert not examining.called
    clock.advance(0.1)
    found = await examining
    assert [one.check for one in found] == ["stuck", "stuck as well", "broken", "fine"]
    assert [one.state for one in found] == [State.FAILED] * 3 + [State.OK]
    assert "more than 5 s" in found[0].message
    assert "no such thing" in found[2].message


@ensureDeferred
async def test_slow_ones_are_waited_for_together(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "PATIENCE", 0.5)
    machine.newapi.always(hang())
    machine.environ["GOOGLE_GEMINI_BASE_URL"] = machine.newapi.url
    examining = Deferred.fromCoroutine(machine.troubles())
    calls = [await machine.newapi.when_asked(number) for number in range(2)]
    assert [call.closed for call in calls] == [None, None]
    assert {"network", "upstream newapi"} <= (await examining).keys()


@ensureDeferred
async def test_the_daemon_tells_those_who_run_it(tmp_path: Path) -> None:
    async with running_relay(PROXY_API_KEYS="guest-key-1", ADMIN_KEY="boss-key-1") as relay:
        assert (await relay.get("/admin/checks")).status == 401
        asked = await relay.send("GET", "/admin/checks", Authorization="Bearer boss-key-1")
        checks = (await asked.reply()).json["checks"]
    states = {one["check"]: one["state"] for one in checks}
    assert all(set(one) == {"check", "state", "message", "fix"} for one in checks)
    assert states[f"port {relay.port}"] == "ok"
    assert states["node"] == states["key"] == "skipped"
    assert states["upstream newapi"] == "warning"


def test_the_command_prints_it_and_its_status_is_that_of_the_findings(tmp_path: Path) -> None:
    environ = {
        "PATH": str(tmp_path),
        "GEMINI_PROXY_URL": f"http://127.0.0.1:{free_port()}",
        "PORT": "off",
        "STREAM_PORT": str(free_port()),
        "UPSTREAM_URL": f"http://user-less.localhost:{free_port()}",
        "FIXED_API_KEY": TOKEN,
        "LOG_DIR": "",
        "USAGE_DAYS": "0",
        "DATA_DIR": str(tmp_path),
    }
    done = subprocess.run([GEMPROXY, "doctor"], env=environ, capture_output=True, timeout=60)
    said = done.stdout.decode()
    assert done.returncode == 1
    assert done.stderr == b""
    assert re.search(r"(?m)^failed   upstream gemproxy +http://127", said)
    assert re.search(r"(?m)^ +-> ", said)
    assert said.endswith("2 failed, 5 skipped\n")
    assert "\x1b" not in said
    assert TOKEN not in said


@pytest.mark.parametrize("variable", ["MAX_RETRIES", "PORT"])
def test_settings_that_are_none_are_its_only_finding(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gemproxy import command

    assert command.main(["doctor"], {variable: "many"}) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"failed   settings  {variable}: 'many' is not allowed")
    assert "`gemproxy check`" in said


findings = st.builds(
    Finding, st.text(), st.sampled_from(State), st.text(), st.text() | st.just("`a b  c`")
)


@settings(max_examples=30)
@given(st.lists(findings, max_size=4))
def test_whatever_it_says_the_terminal_stays_as_it_is(found: list[Finding]) -> None:
    said = as_text(found)
    assert all(one.isprintable() or one == "\n" for one in said)
    assert exit_status(found) == any(one.state is State.FAILED for one in found)
    colourful = as_text(found, is_colourful=True)
    assert re.sub(r"\x1b\[[0-9]*m", "", colourful) == said


def test_commands_stay_in_one_piece_to_be_copied() -> None:
    command = "`" + "word " * 40 + "end`"
    said = as_text([Finding("x", State.FAILED, "Something " * 30, f"Do this: {command} at once.")])
    assert command in said
    assert max(len(line) for line in said.splitlines() if command not in line) <= 100
