"""What several processes serve beside one, in tables and in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bench.tables import shown, table

Results = Mapping[str, Any]

_LOADS = ("document", "streamed", "gemini", "chunks")
# What is measured, with how many digits after the point.
_RATES = {
    "document_s": ("small answers a second, not streamed", 0),
    "streamed_s": ("the same, streamed", 0),
    "gemini_s": ("Gemini's, streamed, without the CLI", 0),
    "chunks_s": ("chunks a second, as fast as they go", 0),
}
_WAIT = {"at_once_ms": ("200 clients at once, first content, p50, ms", 1)}
_REST = {
    "document_ms": ("CPU of a small answer, not streamed, ms", 2),
    "streamed_ms": ("the same, streamed", 2),
    "gemini_ms": ("Gemini's, streamed, without the CLI", 2),
    "load_ms": ("CPU of client and upstream for a small answer, streamed, ms", 2),
    "uneven_at_once": ("most connections of a process over fewest, 200 at once", 1),
    "uneven_one_by_one": ("the same, 200 one by one", 1),
    "uneven_under_load": ("the same, 200 one by one while others ask without a pause", 1),
    "memory_mb": ("memory, MB", 0),
    "failed": ("wrong or missing answers", 0),
    "others": ("cores that other programs took meanwhile", 2),
}
# Of two processes on two cores beside one.
_MORE, _WAIT_AT_MOST = 1.8, 0.6
# Of any number of processes, under load.
_UNEVEN_AT_MOST = 2.0
# Cores, beyond which all this says little.
_OTHERS_AT_MOST = 0.1


def lines(results: Results) -> list[str]:
    """
    @param results: C{measured} and C{predicted}, by the name of each daemon, the first of which has
        one process; and the C{cores} of the machine.
    """
    measured, predicted = results["measured"], results["predicted"]
    return [
        *_measured(measured),
        "",
        *_predicted(measured, predicted),
        "",
        *_goals(measured, results["cores"]),
    ]


def in_page(page: str, text: str) -> str:
    """A page with this text at the place that it has for it."""
    place = r"(?s)(?<=<!-- processes -->\n).*?(?=<!-- end of processes -->\n)"
    return re.sub(place, lambda _: f"\n{text}\n", page)


def _measured(measured: Mapping[str, Any]) -> list[str]:
    body = [
        [title, *(shown(own[key], digits) for own in measured.values())]
        for key, (title, digits) in (_RATES | _WAIT | _REST).items()
    ]
    return table([["Several processes, clients and upstream beside them", *measured], *body])


def _predicted(measured: Mapping[str, Any], predicted: Mapping[str, Any]) -> list[str]:
    """The simulation beside what came."""
    lines = [("What a simulation expects", "processes", "expected", "measured", "off by")]
    for key, (title, digits) in (_RATES | _WAIT).items():
        for name, own in measured.items():
            came, expected = own[key], predicted[name][key]
            numbers = (shown(expected, digits), shown(came, digits), f"{expected / came - 1:+.0%}")
            lines.append((title, shown(own["processes"], 0), *numbers))
    return table(lines)


def _goals(measured: Mapping[str, Any], cores: int) -> list[str]:
    [(_, one), *others] = measured.items()
    found = []
    for name, several in others:
        is_goal = several["processes"] == cores == 2
        times = {load: several[f"{load}_s"] / one[f"{load}_s"] for load in _LOADS}
        wait = several["at_once_ms"] / one["at_once_ms"]
        uneven = several["uneven_under_load"]
        # Each process with a core of its own, and what it takes then.
        used = min(cores, several["processes"])
        alone = {load: used * one[f"{load}_ms"] / several[f"{load}_ms"] for load in _LOADS}
        few = min(times["document"], times["streamed"], times["chunks"]) < _MORE
        found += [
            f"- {name} serve {_each(times)}{_goal(is_goal, f'{_MORE}', few)}",
            f"- {name} would serve {_each(alone)} if clients and upstream took nothing of the"
            f" {cores} cores",
            f"- with {name}, 200 clients at once have content in {wait:.0%} of the time"
            f"{_goal(is_goal, f'{_WAIT_AT_MOST:.0%}', wait > _WAIT_AT_MOST)}",
            f"- of {name}, under load, one has {uneven:.1f} times the connections of another"
            f"{_goal(True, f'{_UNEVEN_AT_MOST:g}', uneven > _UNEVEN_AT_MOST)}",
        ]
    busy = max(own["others"] for own in measured.values())
    if busy > _OTHERS_AT_MOST:
        found.append(
            f"- **not to be trusted**: other programs took {busy:.2f} of the {cores} cores"
        )
    return found


def _each(times: Mapping[str, float]) -> str:
    return (
        "{document:.2f} times the small answers (streamed {streamed:.2f}, Gemini's {gemini:.2f})"
        " and {chunks:.2f} times the chunks"
    ).format(**times)


def _goal(is_one: bool, goal: str, missed: bool) -> str:
    return f" (goal: {goal}){' **missed**' if missed else ''}" if is_one else ""
