"""C{gemproxy doctor --cli}: its terms hold for the pinned CLI, and can be seen to be broken."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from gemproxy.doctor.contract.run import START, VERSION, Contract
from gemproxy.doctor.contract.terms import TERMS
from gemproxy.doctor.findings import Finding, State
from gemproxy.gemini.cli.install import PINNED_VERSION, Cli
from testing.processes import processes_at_home_in
from tests.support import CLI, ROOT
from tests.test_untrusted_cli import LITTLE_PATIENCE, Fakes

pytestmark = pytest.mark.cli
GEMPROXY = str(Path(sys.executable).with_name("gemproxy"))


def test_the_pinned_cli_keeps_it(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "GEMINI_CLI": CLI, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [GEMPROXY, "doctor", "--cli"], env=environ, capture_output=True, timeout=100
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    assert done.stderr == b""
    held = re.findall(r"(?m)^ok +([a-z]+(?: [a-z]+)*)  ", said)
    assert held == [START, VERSION, *(term.name for term in TERMS)]
    assert f"The Gemini CLI {PINNED_VERSION} is the tested one." in said
    assert list((tmp_path / "gemproxy").iterdir()) == []


async def findings_of(tmp_path: Path, how: str, *terms: str) -> dict[str, Finding]:
    """What is found of some terms if the CLI behaves in a way."""
    fakes = Fakes(tmp_path)
    is_from_the_start = " " in how
    if is_from_the_start:
        fakes.behave(how)
    contract = Contract(
        reactor,
        Cli(str(fakes.cli), os.environ["PATH"]),
        {"XDG_RUNTIME_DIR": str(tmp_path)},
        "gemini-well" if is_from_the_start else f"gemini-{how}",
        term_limit=0.5 if how == "stalls" else 10.0,
        limits=evolve(LITTLE_PATIENCE, start_timeout=30.0),
    )
    found = await contract.examine([term for term in TERMS if term.name in terms])
    assert processes_at_home_in(tmp_path) == []
    assert list((tmp_path / "gemproxy").iterdir()) == []
    return {finding.check: finding for finding in found}


BREACHES = {
    "silent": ("one request", "nothing was asked of the API"),
    "asks-twice": ("one request", "asked of the API twice"),
    "another-conversation": ("sessions", "The conversation was altered"),
    "offers-tools": ("no tools", "It offered run_shell_command."),
    "shows-a-key": ("no key", "It sent a key."),
    "writes-it-down": ("nothing written", "It is in its files history."),
    "cancels-late": ("sessions", "The prompt ended with cancelled."),
    "dies": ("sessions", "the death of the process"),
    "stalls": ("one request", "Nothing came of it in 0.5 s."),
    "speaks another protocol": ("protocol", "It speaks version 2."),
    "refuses session/new": ("one request", "It refused a call: -32000: No."),
}


@ensureDeferred
async def test_a_cli_that_does_as_it_should_keeps_them(tmp_path: Path) -> None:
    found = await findings_of(tmp_path, "well", *(term for term, _ in BREACHES.values()))
    assert found.pop(VERSION).state is State.WARNING
    assert {finding.state for finding in found.values()} == {State.OK}, found


@pytest.mark.parametrize("how", BREACHES)
@ensureDeferred
async def test_each_term_can_be_broken(tmp_path: Path, how: str) -> None:
    term, said = BREACHES[how]
    # What is tried afterwards is tried with another process.
    others = {"protocol", "end"} - {term} if how == "writes-it-down" else set()
    found = await findings_of(tmp_path, how, term, *others)
    assert found[term].state is State.FAILED
    assert said in found[term].message
    assert "`export GEMINI_ENGINE=direct`" in found[term].fix
    assert [one.check for one in found.values() if one.state is State.FAILED] == [term]


@pytest.mark.parametrize("how", ["dies in initialize", "refuses authenticate"])
@ensureDeferred
async def test_one_that_does_not_start_is_one_finding(tmp_path: Path, how: str) -> None:
    found = await findings_of(tmp_path, how, "protocol", "end")
    assert [(name, one.state) for name, one in found.items()] == [
        (START, State.FAILED),
        ("protocol", State.SKIPPED),
        ("end", State.SKIPPED),
    ]
    assert "`export GEMINI_ENGINE=direct`" in found[START].fix


def test_nothing_is_left_if_it_is_interrupted(tmp_path: Path) -> None:
    fakes = Fakes(tmp_path)
    fakes.behave("stalls in session/new")
    environ = {
        "PATH": os.environ["PATH"],
        "GEMINI_CLI": str(fakes.cli),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    with subprocess.Popen(
        [GEMPROXY, "doctor", "--cli"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        until_true(lambda: processes_at_home_in(tmp_path))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 1
    assert processes_at_home_in(tmp_path) == []
    assert list((tmp_path / "gemproxy").iterdir()) == []


def until_true(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_each_term_is_in_the_documentation() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.partition("\n| what | term | where |\n")[2].partition("\n\n")[0]
    named = [
        name for row in table.splitlines() for name in re.split(", ", row.split("|")[2].strip())
    ]
    assert {name for name in named if name.strip("- ")} == {term.name for term in TERMS}
