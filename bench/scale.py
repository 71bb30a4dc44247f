"""
C{python -m bench.scale}: what some number of users needs, by calculation.

It also says what stops them, and at which number. What is assumed is an option of it, and what was
measured is in L{Figures}. docs/scale.md has the result, and explains it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import ceil
from typing import Any

from attrs import field, fields, frozen

from bench import simulation
from bench.tables import shown, table

USERS = (1_000, 50_000, 1_000_000)
_DAY = 86_400
_MILLION = 1_000_000


def _assumed(default: float, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@frozen
class Assumptions:
    """What nobody but its operator can know of a service. Each is an option of the command."""

    requests: float = _assumed(20, "requests of a user in a day")
    peak: float = _assumed(4, "requests in the busiest minutes, as a multiple of the day's mean")
    prompt: float = _assumed(2000, "tokens of a prompt, with the conversation so far")
    answer: float = _assumed(500, "tokens of an answer, with its thoughts")
    chunks: float = _assumed(80, "chunks of an answer")
    seconds: float = _assumed(6, "seconds from a request to the end of its answer")
    prompt_price: float = _assumed(1.5, "dollars for a million tokens of prompts")
    answer_price: float = _assumed(7.5, "dollars for a million tokens of answers")
    days: float = _assumed(30, "such days in a month")
    cap: float = _assumed(20_000, "dollars that Google lets an account spend in a month")
    spend: float = _assumed(200, "dollars that Google lets an account spend in ten minutes")
    busy: float = _assumed(0.5, "part of a core that a process may take at the peak")
    cores: float = _assumed(8, "cores of a machine")
    core_price: float = _assumed(0.04, "dollars for a core and an hour, with its memory")
    state_calls: float = _assumed(3, "calls of Valkey for a request")
    valkey: float = _assumed(20_000, "calls a second of one Valkey")


@frozen
class Figures:
    """
    What was measured of gemproxy: docs/performance.md says how, and when.

    @ivar answer_ms: CPU of an answer relayed, with its first chunks.
    @ivar chunk_us: CPU of a chunk relayed, of those that come one by one.
    @ivar direct_answer_ms: as C{answer_ms}, of Gemini's without the CLI.
    @ivar direct_chunk_us: as C{chunk_us}, of Gemini's without the CLI.
    @ivar cli_ms: what the CLI takes in addition.
    @ivar cli_mb: memory of a CLI process.
    @ivar cli_requests: that one process has at once (GEMINI_SESSIONS).
    @ivar cli_workers: processes at most (GEMINI_WORKERS).
    @ivar process_mb: memory of a process without requests.
    @ivar stream_kb: memory of an answer under way.
    @ivar chunk_bytes: on the wire.
    @ivar row_bytes: of a request in the file of the usage.
    @ivar usage_days: for which it keeps them (USAGE_DAYS).
    """

    answer_ms: float = 1.56
    chunk_us: float = 71
    direct_answer_ms: float = 1.63
    direct_chunk_us: float = 79
    cli_ms: float = 5
    cli_mb: float = 280
    cli_requests: int = 64
    cli_workers: int = 4
    process_mb: float = 68
    stream_kb: float = 23
    chunk_bytes: int = 260
    row_bytes: int = 161
    usage_days: int = 90


@frozen
class Needs:
    """What some users need. Rates are those of the peak, per second."""

    users: float
    assumed: Assumptions = Assumptions()
    figures: Figures = Figures()

    @property
    def a_day(self) -> float:
        """Requests."""
        return self.users * self.assumed.requests

    @property
    def rate(self) -> float:
        return self.a_day / _DAY * self.assumed.peak

    @property
    def streams(self) -> float:
        """Under way at the peak: as many as come in the time that one takes."""
        return self.rate * self.assumed.seconds

    @property
    def chunks(self) -> float:
        return self.rate * self.assumed.chunks

    def _cores(self, answer_ms: float, chunk_us: float) -> float:
        return self.rate * answer_ms / 1e3 + self.chunks * chunk_us / 1e6

    @property
    def relay_cores(self) -> float:
        return self._cores(self.figures.answer_ms, self.figures.chunk_us)

    @property
    def direct_cores(self) -> float:
        return self._cores(self.figures.direct_answer_ms, self.figures.direct_chunk_us)

    @property
    def cli_cores(self) -> float:
        return self.direct_cores + self.rate * self.figures.cli_ms / 1e3

    @property
    def processes(self) -> int:
        """Of gemproxy, with the engine that needs no CLI."""
        return max(1, ceil(self.direct_cores / self.assumed.busy))

    @property
    def machines(self) -> int:
        """One more than are needed, unless a single process is."""
        return 1 if self.processes == 1 else ceil(self.processes / self.assumed.cores) + 1

    @property
    def machines_a_month(self) -> float:
        """Dollars."""
        assumed = self.assumed
        return self.machines * assumed.cores * 24 * assumed.days * assumed.core_price

    @property
    def memory_mb(self) -> float:
        return (
            self.processes * self.figures.process_mb + self.streams * self.figures.stream_kb / 1e3
        )

    @property
    def burst_ms(self) -> float:
        """Until half of 200 clients that ask one machine at once have content."""
        costs = simulation.Costs(self.figures.direct_answer_ms / 1e3, 0.0, 0.0)
        cores = int(self.assumed.cores)
        return simulation.at_once(cores, min(cores, self.processes), costs) * 1e3

    @property
    def cli_processes(self) -> int:
        return ceil(self.streams / self.figures.cli_requests)

    @property
    def dollars_a_request(self) -> float:
        """Google's bill."""
        assumed = self.assumed
        return (
            assumed.prompt * assumed.prompt_price + assumed.answer * assumed.answer_price
        ) / _MILLION

    @property
    def dollars_a_month(self) -> float:
        return self.a_day * self.assumed.days * self.dollars_a_request

    @property
    def dollars_at_peak(self) -> float:
        """In ten minutes."""
        return self.rate * 600 * self.dollars_a_request

    @property
    def state_calls(self) -> float:
        return self.rate * self.assumed.state_calls

    @property
    def megabits(self) -> float:
        return self.chunks * self.figures.chunk_bytes * 8 / _MILLION

    @property
    def rows(self) -> list[tuple[str, str]]:
        """What it is, and how much."""
        assumed, figures = self.assumed, self.figures
        minute = self.rate * 60
        days = figures.usage_days
        return [
            ("requests a day", shown(self.a_day, 0)),
            ("requests a second at the peak", shown(self.rate, 1)),
            ("answers under way at the peak", shown(self.streams, 0)),
            ("chunks a second", shown(self.chunks, 0)),
            ("Mbit/s to clients", shown(self.megabits, 1)),
            ("cores busy, relay to an upstream", shown(self.relay_cores, 2)),
            ("cores busy, Gemini without the CLI", shown(self.direct_cores, 2)),
            ("cores busy, Gemini with the CLI", shown(self.cli_cores, 2)),
            ("processes of gemproxy, without the CLI", shown(self.processes, 0)),
            ("their memory with these answers, MB", shown(self.memory_mb, 0)),
            (f"machines of {assumed.cores:g} cores, one to spare", shown(self.machines, 0)),
            ("200 clients at once at a machine, first content, p50, ms", shown(self.burst_ms, 0)),
            ("CLI processes, where the CLI is used", shown(self.cli_processes, 0)),
            ("their memory, GB", shown(self.cli_processes * figures.cli_mb / 1e3, 1)),
            ("requests to Google a minute (RPM)", shown(minute, 0)),
            (
                "tokens of their prompts (TPM), millions",
                shown(minute * assumed.prompt / _MILLION, 1),
            ),
            ("Google's bill in ten minutes of the peak, $", shown(self.dollars_at_peak, 0)),
            ("Google's bill in a month, $", shown(self.dollars_a_month, 0)),
            ("that of the machines, $", shown(self.machines_a_month, 0)),
            ("calls of Valkey a second, with several machines", shown(self.state_calls, 0)),
            (f"usage of {days} days, GB", shown(self.a_day * days * figures.row_bytes / 1e9, 1)),
        ]


@frozen
class Wall:
    """
    @ivar users: beyond whom it stands.
    @ivar meaning: what it is.
    @ivar way: what is done then.
    """

    users: float
    meaning: str
    way: str


def walls(one: Needs) -> list[Wall]:
    """
    What stops a growing service, the first one first.

    @param one: what a single user needs.
    """
    assumed, figures = one.assumed, one.figures
    half = f"{assumed.busy:.0%} of a core"
    more = "a higher limit from Google, or Vertex AI"
    found = [
        Wall(cap / one.dollars_a_month, f"Google's cap of ${cap:,.0f} in a month", way)
        for cap, way in ((250, "Tier 2"), (2_000, "Tier 3"), (assumed.cap, more))
    ]
    found += [
        Wall(
            assumed.spend / one.dollars_at_peak,
            f"Google's limit of ${assumed.spend:g} in ten minutes",
            more,
        ),
        Wall(
            figures.cli_workers * figures.cli_requests / one.streams,
            f"{figures.cli_workers} CLI processes with {figures.cli_requests} requests each",
            "`GEMINI_ENGINE=direct`, or `GEMINI_WORKERS`",
        ),
        Wall(assumed.busy / one.direct_cores, f"one process takes {half}", "`PROCESSES`"),
        Wall(
            assumed.busy * assumed.cores / one.direct_cores,
            f"{assumed.cores:g} processes take {half} each",
            "more machines, with `STATE_URL`",
        ),
        Wall(
            assumed.valkey / one.state_calls,
            f"one Valkey has {assumed.valkey:,.0f} calls a second",
            "users are shared out among several installations",
        ),
    ]
    return sorted(found, key=lambda wall: wall.users)


def needs_table(users: Sequence[float], assumed: Assumptions = Assumptions()) -> list[str]:
    columns = [Needs(number, assumed).rows for number in users]
    head = ["Users", *(shown(number, 0) for number in users)]
    body = [
        [title, *(rows[number][1] for rows in columns)]
        for number, (title, _) in enumerate(columns[0])
    ]
    return table([head, *body])


def walls_table(assumed: Assumptions = Assumptions()) -> list[str]:
    lines = [("Users", "what stops them", "what is done then")]
    for wall in walls(Needs(1, assumed)):
        lines.append((shown(_rounded(wall.users), 0), wall.meaning, wall.way))
    return table(lines, words_from=1)


def _rounded(number: float) -> float:
    """To two digits: the rest says nothing."""
    return float(f"{number:.1e}")


def assumptions_table(assumed: Assumptions = Assumptions()) -> list[str]:
    lines = [("Option", "assumed", "meaning")]
    for known in fields(Assumptions):
        value = shown(getattr(assumed, known.name), 2).rstrip("0").rstrip(".")
        lines.append((f"`{_option(known.name)}`", value, known.metadata["meaning"]))
    return table(lines, words_from=2)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--users", type=float, nargs="+", default=USERS, help="that ask on a day")
    for known in fields(Assumptions):
        meaning = f"{known.metadata['meaning']}; default: {known.default:g}"
        parser.add_argument(_option(known.name), type=float, default=known.default, help=meaning)
    given = vars(parser.parse_args(arguments))
    users = given.pop("users")
    assumed = Assumptions(**given)
    tables = (assumptions_table(assumed), needs_table(users, assumed), walls_table(assumed))
    print("\n\n".join("\n".join(lines) for lines in tables))


if __name__ == "__main__":
    main()
