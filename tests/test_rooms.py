"""The direction of imports: what docs/architecture.md says of each room is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "gemproxy"
TABLE = (ROOT / "docs" / "architecture.md").read_text().partition("### Where is it?")[0]


def allowed() -> dict[str, set[str]]:
    """What each room may import, by the rows of the table."""
    rooms: dict[str, set[str]] = {}
    for row in re.findall(r"(?m)^\| (`gemproxy/.*?) \|$", TABLE):
        names, _, imports = row.split(" | ")
        for name in re.findall(r"`gemproxy/([\w/]+?)/?(?:\.py)?`", names):
            rooms[name] = set(imports.split(", "))
    return rooms


ROOMS = allowed()


def room_of(module: str) -> str:
    """The most special room of a path such as C{gemini/cli/acp}."""
    return max((room for room in ROOMS if f"{module}/".startswith(f"{room}/")), key=len)


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gemproxy."):
            module = (node.module or "").removeprefix("gemproxy.").replace(".", "/")
            for name in node.names:
                deeper = f"{module}/{name.name}"
                found.add(deeper if (PACKAGE / f"{deeper}.py").exists() else module)
    return found


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_what_it_may(path: Path):
    module = str(path.relative_to(PACKAGE).with_suffix(""))
    room = room_of(module)
    may = ROOMS[room]
    if "everything" in may:
        return
    for other in imported(path):
        target = room_of(other)
        assert target == room or target in may or target.startswith(f"{room}/"), (
            f"{room} may not import {other}"
        )


@pytest.mark.parametrize("room", ["chat", "dialects", "gemini/translate"])
def test_pure_rooms_have_neither_twisted_nor_io(room: str):
    for path in (PACKAGE / room).rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"(?m)^\s*(?:from|import) (?:twisted|os|socket|time|asyncio)\b", text)
