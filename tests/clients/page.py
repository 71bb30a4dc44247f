"""docs/clients.md: the tests run what it gives its readers to copy."""

from __future__ import annotations

import re

from tests.support import ROOT

PAGE = ROOT / "docs" / "clients.md"
ADDRESS = "http://127.0.0.1:3002"
"""The address that the page speaks of."""

MODEL = "gemini-3.8-flash"
"""The model that the page speaks of."""

_BLOCK = re.compile(r"(?ms)^```(\w+)\n(.*?)^```$")


def blocks(title: str) -> dict[str, str]:
    """The blocks of the section of a client, by their languages."""
    for section in re.split(r"(?m)^### ", PAGE.read_text())[1:]:
        heading, _, text = section.partition("\n")
        if heading == title:
            found = _BLOCK.findall(text)
            assert len(dict(found)) == len(found), f"two blocks of one language: {title}"
            return dict(found)
    raise LookupError(f"{PAGE} has no section {title!r}")


def configuration(title: str, language: str, port: int) -> str:
    """What the page gives to copy, for a port under test."""
    block = blocks(title)[language]
    assert ADDRESS in block, f"{title} does not name {ADDRESS}"
    return block.replace(ADDRESS, f"http://127.0.0.1:{port}")


def environment(title: str, port: int) -> dict[str, str]:
    """The variables that a block of shell commands exports."""
    return dict(re.findall(r"(?m)^export (\w+)=(\S+)", configuration(title, "sh", port)))
