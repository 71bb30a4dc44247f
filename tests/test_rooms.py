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
MODULES = {
    str(path.relative_to(PACKAGE).with_suffix(""))
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


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
                found.add(deeper if deeper in MODULES else module)
    return found


def test_a_room_imports_what_it_may():
    wrong = []
    for module in sorted(MODULES):
        room = room_of(module)
        may = ROOMS[room]
        if "everything" in may:
            continue
        for other in imported(PACKAGE / f"{module}.py"):
            target = room_of(other)
            if target != room and target not in may and not target.startswith(f"{room}/"):
                wrong.append(f"{module}: {room} may not import {other}")
    assert wrong == []


@pytest.mark.parametrize("room", ["chat", "dialects", "gemini/translate"])
def test_pure_rooms_have_neither_twisted_nor_io(room: str):
    for path in (PACKAGE / room).rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"(?m)^\s*(?:from|import) (?:twisted|os|socket|time|asyncio)\b", text)
