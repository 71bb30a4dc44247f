"""The documentation says what is so: settings, parameters, files, links, versions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gemproxy import __version__
from gemproxy.config import SETTINGS, Setting
from gemproxy.gemini.translate import messages, parameters
from gemproxy.gemini.translate.families import FAMILIES, Family
from gemproxy.gemini.translate.thinking import EFFORTS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
COMPATIBILITY = ROOT / "docs" / "compatibility.md"
IN_DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *IN_DOCS])
README_LINES = 200

_FENCED = re.compile(r"(?ms)^( *)```.*?^\1```$")
_FOLDERS = r"\.ci|bench|docker|docs|gemproxy|testing|tests|twisted"
_AT_THE_TOP = r"[A-Z]+\.md|[a-z.-]+\.(?:cfg|toml|yml)|package[a-z-]*\.json|Dockerfile|Makefile"
_FILE = re.compile(rf"`((?:{_FOLDERS})/[\w./-]*|{_AT_THE_TOP})`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")


def text_of(page: Path) -> str:
    """A page without its blocks of code: what looks like a link or a heading there is none."""
    return _FENCED.sub("", page.read_text())


def section(page: Path, title: str) -> str:
    """The text below a heading, up to the next one."""
    [body] = re.findall(rf"(?ms)^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", page.read_text())
    assert isinstance(body, str)
    return body


def rows(page: Path, title: str) -> list[str]:
    """The rows of a section's only table, without its head."""
    lines = [line for line in section(page, title).splitlines() if line.startswith("|")]
    return lines[2:]


def as_row(setting: Setting) -> str:
    if setting.default is None:
        default = "(required)"
    else:
        default = f"`{setting.default}`" if setting.default else "(none)"
    return f"| `{setting.env}` | `--{setting.option}` | {default} | {setting.meaning} |"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", text_of(page))
    plain = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def relative_links(page: Path) -> list[str]:
    return [link for link in _LINK.findall(text_of(page)) if not re.match(r"[a-z]+:", link)]


def resolves(link: str, page: Path) -> bool:
    """Whether the file of a relative link exists, and the heading that it names in it."""
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def test_the_table_of_settings_is_that_of_the_code():
    table = rows(ROOT / "docs" / "settings.md", "All settings")
    assert table == [as_row(setting) for setting in SETTINGS]


def test_the_table_of_parameters_names_each_that_is_known():
    table = rows(COMPATIBILITY, "Parameters")
    named = {name for row in table for name in re.findall(r"`(\w+)`", row)}
    assert named >= parameters._UNDERSTOOD


def in_words(is_so: bool) -> str:
    return "yes" if is_so else "no"


def as_family_row(family: Family) -> str:
    thinking = f"levels {', '.join(family.levels)}" if family.levels else "none"
    if family.budget is not None:
        off = " or 0" if family.budget.can_be_off else ""
        thinking = f"budget {family.budget.low} to {family.budget.high}{off}"
    facts = [
        family.model_turn_last,
        family.sampling,
        family.penalties,
        family.functions,
        family.functions and family.json and family.functions_with_json,
        family.functions and family.functions_with_search,
        family.pictures,
    ]
    return f"| {' | '.join([family.title, thinking, *map(in_words, facts)])} |"


def test_the_table_of_families_is_that_of_the_code():
    table = rows(COMPATIBILITY, "Families of models")
    assert table == [as_family_row(family) for family in FAMILIES]


def test_the_table_of_messages_names_each_role():
    table = "".join(rows(COMPATIBILITY, "Messages"))
    assert [role for role in messages._ROLES if f"`{role}`" not in table] == []


def test_the_efforts_are_those_of_the_code():
    [row] = [row for row in rows(COMPATIBILITY, "Parameters") if "`reasoning_effort`" in row]
    assert re.findall(r"`(\w+)`", row)[1:] == list(EFFORTS)


@every_page
def test_every_file_that_is_named_exists(page: Path):
    named = set(_FILE.findall(text_of(page)))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@every_page
def test_every_relative_link_resolves(page: Path):
    assert [link for link in relative_links(page) if not resolves(link, page)] == []


def test_the_readme_links_every_page():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in relative_links(README)}
    assert {name_of(page) for page in PAGES if page.resolve() not in linked} == {"README.md"}


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= README_LINES


def test_the_versions_are_those_of_the_code():
    package = json.loads((ROOT / "package.json").read_text())
    cli = package["dependencies"]["@google/gemini-cli"]
    node = package["engines"]["node"].removeprefix(">=")
    [python] = re.findall(r"python_requires = >=([\d.]+)", (ROOT / "setup.cfg").read_text())
    readme = README.read_text()
    assert set(re.findall(r"@google/gemini-cli@([\d.]+)", readme)) == {cli}
    for page in (README, ROOT / "CONTRIBUTING.md"):
        assert f"Node {node} or later" in page.read_text()
        assert f"Python {python} or later" in page.read_text()
    assert f"gemproxy {__version__} is running" in readme


def test_the_compose_files_are_named():
    named = "".join(page.read_text() for page in PAGES)
    for path in ROOT.glob("docker-compose*.yml"):
        assert f"`{path.name}`" in named


def test_the_guide_to_the_tests_names_each_file():
    guide = (ROOT / "tests" / "README.md").read_text()
    there = {path.name for path in (ROOT / "tests").glob("test_*.py")}
    assert set(re.findall(r"test_\w+\.py", guide)) == there
