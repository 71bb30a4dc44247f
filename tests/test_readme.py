"""The README says what is so."""

from __future__ import annotations

import re

import pytest

from gemproxy import __version__
from gemproxy.config import SETTINGS, Setting
from gemproxy.gemini import parameters
from gemproxy.gemini.cli import NODE_MAJOR, PINNED_VERSION
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def section(title: str) -> str:
    """What stands below a heading, up to the next one."""
    [body] = re.findall(rf"(?ms)^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", README)
    assert isinstance(body, str)
    return body


def rows(title: str) -> list[str]:
    """The rows of a section's only table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return lines[2:]


def as_row(setting: Setting) -> str:
    if setting.default is None:
        default = "(required)"
    else:
        default = f"`{setting.default}`" if setting.default else "(none)"
    return f"| `{setting.env}` | `--{setting.option}` | {default} | {setting.meaning} |"


def test_the_table_of_settings_is_that_of_the_code():
    assert rows("Settings") == [as_row(setting) for setting in SETTINGS]


def test_the_table_of_parameters_names_each_that_is_known():
    named = {name for row in rows("Parameters") for name in re.findall(r"`(\w+)`", row)}
    assert named >= parameters._UNDERSTOOD


@pytest.mark.parametrize("text", [README, ARCHITECTURE], ids=["README", "architecture"])
def test_every_file_that_is_named_is_there(text: str):
    named = set(re.findall(r"`((?:gemproxy|tests|docs|docker|twisted)/[\w./-]*)`", text))
    named |= set(re.findall(r"\]\(([^)#:]+)\)", text))
    # Links of docs/architecture.md go from there.
    there = (ROOT, ROOT / "docs")
    missing = [name for name in named if not any((base / name).exists() for base in there)]
    assert missing == []


def test_the_versions_are_those_of_the_code():
    assert set(re.findall(r"@google/gemini-cli@([\d.]+)", README)) == {PINNED_VERSION}
    assert f"Node {NODE_MAJOR}" in README
    required = re.findall(r"python_requires = >=([\d.]+)", (ROOT / "setup.cfg").read_text())
    assert f"Python {required[0]}" in README
    assert f"gemproxy {__version__} is running" in README


def test_the_compose_files_are_named():
    for path in ROOT.glob("docker-compose*.yml"):
        assert path.name in README
