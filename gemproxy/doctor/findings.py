"""What a check has found, and how that is shown. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from attrs import evolve, frozen

_WIDTH = 100


class State(Enum):
    """
    How a check ended.

    @cvar WARNING: gemproxy works, but perhaps not as it is meant to.
    @cvar FAILED: something does not work.
    @cvar SKIPPED: it is of no use here, or cannot be found out because of something else.
    """

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@frozen
class Finding:
    """
    What one check has found.

    @ivar check: its name.
    @ivar message: in a sentence or two.
    @ivar fix: what mends it, with the command in backticks; empty if there is nothing to mend.
    """

    check: str
    state: State
    message: str
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "state": self.state.value,
            "message": self.message,
            "fix": self.fix,
        }

    def masked(self, mask: Callable[[str], str]) -> Finding:
        return evolve(self, message=mask(self.message), fix=mask(self.fix))


def ok(check: str, message: str) -> Finding:
    return Finding(check, State.OK, message)


def warning(check: str, message: str, fix: str) -> Finding:
    return Finding(check, State.WARNING, message, fix)


def failed(check: str, message: str, fix: str) -> Finding:
    return Finding(check, State.FAILED, message, fix)


def skipped(check: str, message: str) -> Finding:
    return Finding(check, State.SKIPPED, message)


def exit_status(findings: Iterable[Finding]) -> int:
    """0 if nothing has failed, else 1."""
    return int(any(finding.state is State.FAILED for finding in findings))


# Of terminals (ECMA-48, SGR).
_COLOURS = {State.OK: "32", State.WARNING: "33", State.FAILED: "31", State.SKIPPED: "2"}


def as_text(findings: Sequence[Finding], is_colourful: bool = False) -> str:
    """
    The findings for a terminal, with their number at the end.

    @param is_colourful: whether the terminal shows colours.
    """
    column = max((len(finding.check) for finding in findings), default=0)
    lines: list[str] = []
    for finding in findings:
        state = finding.state.value.ljust(len(State.SKIPPED.value))
        if is_colourful:
            state = f"\x1b[{_COLOURS[finding.state]}m{state}\x1b[0m"
        indent = " " * (len(State.SKIPPED.value) + column + 4)
        text = _wrapped(finding.message, indent)
        lines.append(f"{state}  {_printable(finding.check).ljust(column)}  {text}")
        if finding.fix:
            lines.append(f"{indent}-> {_wrapped(finding.fix, f'{indent}   ')}")
    counts = [(state, sum(one.state is state for one in findings)) for state in State]
    summary = ", ".join(f"{count} {state.value}" for state, count in counts if count)
    return "".join(f"{line}\n" for line in (*lines, "", summary))


def _wrapped(text: str, indent: str) -> str:
    """The text in lines that go on below their beginning. Commands stay whole, to be copied."""
    pieces = _printable(text).split("`")
    pieces[1::2] = [piece.replace(" ", "\0") for piece in pieces[1::2]]
    lines = textwrap.wrap(
        "`".join(pieces),
        max(40, _WIDTH - len(indent)),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"\n{indent}".join(lines).replace("\0", " ")


def _printable(text: str) -> str:
    """Without control characters, which the words of others may have for the terminal."""
    return "".join(one if one.isprintable() else " " for one in text)
