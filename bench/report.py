"""The results as one table, and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from attrs import frozen

from bench import accounts, scaling, tables
from bench.tables import shown

Results = dict[str, Any]


@frozen
class Row:
    """
    @ivar key: C{load.measure} of the results.
    @ivar over: the measure is shown less that of the upstream alone.
    @ivar goal: for gemproxy; its sign says on which side of the number it is good to be.
    """

    title: str
    key: str
    digits: int = 1
    over: bool = False
    goal: str = ""
    in_picture: bool = False


RELAY = (
    Row("CPU of a small answer, not streamed, ms", "small.answer_ms", 2, goal="≤ 1.0"),
    Row(
        "CPU of a small answer, streamed, ms",
        "small.streamed_answer_ms",
        2,
        goal="≤ 1.0",
        in_picture=True,
    ),
    Row(
        "CPU of a chunk, 200 streams of 20/s, µs",
        "streams_200.chunk_us",
        0,
        goal="≤ 55",
        in_picture=True,
    ),
    Row("added to a chunk at 200 streams, p50, ms", "streams_200.p50_ms", 2, over=True),
    Row("added to a chunk at 200 streams, p99, ms", "streams_200.p99_ms", 1, over=True),
    Row("whole answers of 200 streams", "streams_200.held", 0, goal="≥ 200"),
    Row("CPU of a chunk, 1,000 streams of 20/s, µs", "streams_1000.chunk_us", 0),
    Row("added to a chunk at 1,000 streams, p50, ms", "streams_1000.p50_ms", 1, over=True),
    Row("added to a chunk at 1,000 streams, p99, ms", "streams_1000.p99_ms", 1, over=True),
    Row("whole answers of 1,000 streams", "streams_1000.held", 0, goal="≥ 1000"),
    Row("first content added, one client, ms", "first.alone_ms", 2, over=True, goal="≤ 1.0"),
    Row(
        "first content added, 200 clients at once, p50, ms",
        "first.together_p50_ms",
        1,
        over=True,
        goal="≤ 70",
        in_picture=True,
    ),
    Row("first content added, 200 clients at once, p99, ms", "first.together_p99_ms", 1, over=True),
    Row("memory idle, MB", "memory.idle_mb", 0),
    Row("memory of a stream, kB", "memory.stream_kb", 1, goal="≤ 25", in_picture=True),
    Row("slow streams side by side", "memory.slow_streams", 0),
    Row("of these failed", "memory.slow_streams_failed", 0, goal="≤ 0"),
    Row("large answer, MB", "large.megabytes", 0),
    Row("streamed, MB/s", "large.streamed_mb_s", 1, goal="≥ 100", in_picture=True),
    Row("streamed, CPU of a MB, ms", "large.streamed_cpu_ms_mb", 2),
    Row("a quarter of it streamed, CPU of a MB, ms", "large.quarter_cpu_ms_mb", 2),
    Row("streamed, memory above idle at most, MB", "large.streamed_peak_mb", 1),
    Row("to a reader of 10 MB/s, memory above idle at most, MB", "large.slow_reader_peak_mb", 1),
    Row("not streamed, MB/s", "large.document_mb_s", 1),
    Row("not streamed, memory above idle at most, MB", "large.document_peak_mb", 1),
)

GEMINI = (
    Row(
        "first content over the API's own, one client, ms",
        "one_client_ms",
        0,
        goal="≤ 60",
        in_picture=True,
    ),
    Row("the same, p99", "one_client_p99_ms", 0),
    Row("with settings that no request had before, over the usual, ms", "unusual_settings_ms", 1),
    Row("10 clients with answers of 4 s, ms", "ten_clients_ms", 0),
    Row("40 clients with answers of 4 s, ms", "forty_clients_ms", 0, goal="≤ 150"),
    Row("the same, p99", "forty_clients_p99_ms", 0),
    Row("40 clients with short answers, without a pause, ms", "forty_at_once_ms", 0),
    Row("requests per second, of these", "forty_at_once_requests_s", 1),
    Row("requests per second, one client", "one_client_requests_s", 1),
    Row("CPU of a request, daemon, ms", "one_client_daemon_cpu_ms", 1),
    Row("CPU of a request, CLI, ms", "one_client_cli_cpu_ms", 0, goal="≤ 95", in_picture=True),
    Row("CPU of a request at 40 clients, daemon, ms", "forty_at_once_daemon_cpu_ms", 1),
    Row("CPU of a request at 40 clients, CLI, ms", "forty_at_once_cli_cpu_ms", 0),
    Row("CPU of an answer of 80 chunks, daemon, ms", "forty_clients_daemon_cpu_ms", 1),
    Row("CPU of an answer of 80 chunks, CLI, ms", "forty_clients_cli_cpu_ms", 0),
    Row("bytes sent to the API", "api_bytes", 0),
    Row("CLI processes", "workers", 0),
    Row("memory of a CLI process, MB", "worker_mb", 0),
    Row("memory of the daemon, MB", "daemon_mb", 0),
)


CONSOLE = (
    Row("requests under way", "requests", 0),
    Row("CPU of the daemon for the page, %", "daemon_share", 1, goal="≤ 2"),
    Row("CPU of the page's thread, %", "page_share", 1),
    Row("tasks of the page that take 50 ms or more", "long_tasks", 0, goal="≤ 0"),
    Row("the longest of them, ms", "longest_ms", 0),
    Row("memory of the page's objects, MB", "heap_mb", 1),
)


LIMITS = (
    Row("requests a second, of all replicas", "asked_s", 0, goal="≥ 1000"),
    Row("requests let through", "let_through", 0),
    Row("what the limit allows in that time", "allowed", 0),
    Row("bursts let through beyond that", "over", 2, goal="≤ 1"),
    Row("CPU of a request, all replicas, ms", "request_ms", 2),
    Row("CPU of a request, Redis server, ms", "server_ms", 3),
)


DIALECTS = (
    Row("CPU of a small answer, not streamed, ms", "answer_ms", 2),
    Row("CPU of a small answer, streamed, ms", "streamed_answer_ms", 2),
    Row("CPU of a chunk, one client, µs", "chunk_us", 1),
    Row("first content, one client, ms", "first_ms", 2),
)
# How much more of them a translated dialect may need than chat completions.
_MOST_CPU = 1.25
_MOST_WAIT_MS = 0.3


USAGE = (
    Row("90 days, ms", "days_ms", 0, goal="≤ 300"),
    Row("90 days by model, ms", "days_by_model_ms", 0, goal="≤ 300"),
    Row("90 days by account, ms", "days_by_account_ms", 0, goal="≤ 300"),
    Row("sums of 90 days by account and model, ms", "totals_ms", 0, goal="≤ 300"),
    Row("24 hours by model, ms", "hours_ms", 0),
    Row("60 minutes by model, ms", "minutes_ms", 0),
)
# How much more CPU usage, accounts and console together may take, shared limits, and traces.
_MOST_FOR_USAGE = 1.08
_MOST_FOR_SHARED = 1.3
_MOST_FOR_TRACES = 1.1


def usage_goals(measured: Results) -> list[str]:
    """What recording costs, in words."""
    ratios = _ratios(measured["recorded"], measured["not recorded"])
    return [f"- recorded, {_cost_of(ratios, _MOST_FOR_USAGE, ' with accounts and console')}"]


def tracing_goals(measured: Results) -> list[str]:
    """What traces cost, in words."""
    ratios = _ratios(measured["traced"], measured["not traced"])
    return [f"- traced, {_cost_of(ratios, _MOST_FOR_TRACES)}"]


def account_goals(measured: Results) -> list[str]:
    """What accounts cost, in words."""
    none, *others = measured
    return [
        f"- {name}, {_cost_of(_ratios(measured[name], measured[none]), most)}"
        for name in others
        for most in (_MOST_FOR_SHARED if name == accounts.SHARED else _MOST_FOR_USAGE,)
    ]


def _ratios(one: Results, other: Results) -> dict[str, float]:
    return {key: one[key] / other[key] for key in other}


def _times(ratios: dict[str, float]) -> str:
    return (
        f"a small answer takes {ratios['answer_ms']:.3f} times the CPU"
        f" (streamed: {ratios['streamed_answer_ms']:.3f}), and a chunk"
        f" {ratios['chunk_us']:.3f} times"
    )


def _cost_of(ratios: dict[str, float], most: float, of_what: str = "") -> str:
    missed = "" if ratios["answer_ms"] <= most else " **missed**"
    return f"{_times(ratios)} (goal: {most}{of_what}){missed}"


WATCHED = (
    Row("CPU of a small answer, not streamed, ms", "answer_ms", 2),
    Row("CPU of a small answer, streamed, ms", "streamed_answer_ms", 2),
    Row("CPU of a chunk, 200 streams of 20/s, µs", "chunk_us", 1),
    Row("CPU while 1,000 requests get a chunk a second, %", "thousand_percent", 2),
)
# Percent of a core that a page may take while 1,000 requests are under way.
_MOST_FOR_A_PAGE = 2.0


def watched_goals(measured: Results) -> list[str]:
    """What a page costs, in words."""
    without, with_it = measured.values()
    share = with_it["thousand_percent"] - without["thousand_percent"]
    return [
        f"- with a page, {_times(_ratios(with_it, without))}; with 1,000 requests under way a page"
        f" takes {share:.2f} % of a core (goal: {_MOST_FOR_A_PAGE:g} %)"
        f"{'' if share <= _MOST_FOR_A_PAGE else ' **missed**'}"
    ]


def dialect_goals(measured: Results) -> list[str]:
    """What each dialect needs beside chat completions, in words."""
    chat = measured["chat"]
    lines = []
    for name, own in measured.items():
        if name == "chat":
            continue
        ratios = {key: own[key] / chat[key] for key in ("streamed_answer_ms", "chunk_us")}
        later = own["first_ms"] - chat["first_ms"]
        good = max(ratios.values()) <= _MOST_CPU and later <= _MOST_WAIT_MS
        lines.append(
            f"- {name}: {ratios['streamed_answer_ms']:.2f} times the CPU of a streamed answer and"
            f" {ratios['chunk_us']:.2f} of a chunk, first content {later:+.2f} ms"
            f" (goals: {_MOST_CPU}, {_MOST_WAIT_MS} ms){'' if good else ' **missed**'}"
        )
    return lines


ENGINES = (
    Row("first content over the API's own, one client, ms", "first_ms", 1),
    Row("CPU of a short answer, ms", "short_cpu_ms", 2),
    Row("of that, the daemon's", "short_daemon_cpu_ms", 2),
    Row("CPU of an answer of 80 chunks, ms", "long_cpu_ms", 1),
    Row("of that, the daemon's", "long_daemon_cpu_ms", 1),
    Row("memory of the daemon after 1,000 more requests, MB more", "grown_mb", 1),
    Row("first content over the API's own then, ms", "later_first_ms", 1),
    Row("CPU of a short answer then, ms", "later_short_cpu_ms", 2),
    Row("CPU of a small answer, streamed, as a relay has it, ms", "answer_ms", 2),
    Row("CPU of a chunk, 200 streams of 20/s, likewise, µs", "chunk_us", 0),
    Row("first content added, 200 clients at once, likewise, p50, ms", "at_once_p50_ms", 0),
    Row(
        "60 clients at once before a process is ready: the first has content after ms",
        "cold_first_ms",
        0,
    ),
    Row("half of them", "cold_p50_ms", 0),
    Row("the last", "cold_last_ms", 0),
    Row("CPU of the processes until then, s", "cold_cli_cpu_s", 2),
    Row("CLI processes then", "cold_workers", 0),
    Row("memory of a CLI process, MB", "worker_mb", 0),
    Row("the same, shared pages by share", "worker_own_mb", 0),
)
# How much more the CLI may cost than none.
_LATER_MS = 3.0
_TIMES_LONG = 3.0
_TIMES_SHORT = 4.0
# What is asked of the daemon without it.
_ALONE = {
    "a small answer without the CLI takes {:.2f} ms of CPU": ("answer_ms", 1.5),
    "a chunk without the CLI takes {:.0f} µs of CPU": ("chunk_us", 45.0),
    "200 clients at once have content {:.0f} ms after the upstream's own": ("at_once_p50_ms", 60.0),
    "1,000 more requests take {:.1f} MB of memory": ("grown_mb", 3.0),
}


def engine_goals(with_cli: Results, without: Results) -> list[str]:
    """What the CLI costs over none, in words."""

    def line(text: str, number: float, most: float) -> str:
        return f"- {text} (goal: ≤ {most:g}){'' if number <= most else ' **missed**'}"

    later = with_cli["first_ms"] - without["first_ms"]
    afterwards = with_cli["later_first_ms"] - without["later_first_ms"]
    long, short, compiled = (
        with_cli[key] / without[key]
        for key in ("long_cpu_ms", "short_cpu_ms", "later_short_cpu_ms")
    )
    return [
        line(f"first content comes {later:.1f} ms later with the CLI", later, _LATER_MS),
        line(f"an answer of 80 chunks takes {long:.1f} times the CPU", long, _TIMES_LONG),
        line(f"a short answer takes {short:.1f} times the CPU", short, _TIMES_SHORT),
        line(
            f"after 2,000 more requests, first content comes {afterwards:.1f} ms later",
            afterwards,
            _LATER_MS,
        ),
        line(f"a short answer takes {compiled:.1f} times the CPU then", compiled, _TIMES_SHORT),
        *(
            line(text.format(without[key]), without[key], most)
            for text, (key, most) in _ALONE.items()
        ),
    ]


def value(row: Row, contender: Results, direct: Results | None) -> float | None:
    load, _, name = row.key.rpartition(".")

    def find(results: Results | None) -> float | None:
        found = (results or {}).get(load, {}) if load else (results or {})
        measured: float | None = found.get(name)
        return measured

    measured = find(contender)
    if not row.over or measured is None:
        return measured
    own = find(direct)
    return None if own is None else max(0.0, measured - own)


def meets(number: float, goal: str) -> bool:
    sign, _, limit = goal.partition(" ")
    return number <= float(limit) if sign == "≤" else number >= float(limit)


def _table(rows: Sequence[Row], part: Results, first: str) -> list[str]:
    names = [name for name in part if name != "direct"]
    lines = [[first, *names, "goal"]]
    for row in rows:
        numbers = [value(row, part[name], part.get("direct")) for name in names]
        if all(number is None for number in numbers):
            continue
        cells = [shown(number, row.digits) for number in numbers]
        own = numbers[names.index("gemproxy")] if "gemproxy" in names else None
        missed = row.goal and own is not None and not meets(own, row.goal)
        lines.append([row.title, *cells, row.goal + (" **missed**" if missed else "")])
    return tables.table(lines, words_from=len(names) + 1)


def table(results: Results) -> str:
    """All results, as Markdown that can be read as it is."""
    lines = [f"Measured on {results['date']}; {results['machine']}.", ""]
    if "relay" in results:
        lines += [*_table(RELAY, results["relay"], "Relay to an OpenAI-compatible upstream"), ""]
    if "dialects" in results:
        measured = results["dialects"]
        lines += [*_table(DIALECTS, measured, "Dialects, translated for an upstream"), ""]
        lines += [*dialect_goals(measured), ""]
    if "usage" in results:
        measured = results["usage"]
        cpu = {name: measured[name] for name in ("recorded", "not recorded")}
        lines += [*_table(DIALECTS, cpu, "Usage of an upstream, recorded or not"), ""]
        lines += [*usage_goals(measured), ""]
        lines += [*_table(USAGE, {"gemproxy": measured["plots"]}, "A million rows of usage"), ""]
    if "watched" in results:
        measured = results["watched"]
        lines += [*_table(WATCHED, measured, "A page that watches"), ""]
        lines += [*watched_goals(measured), ""]
    if "accounts" in results:
        measured = results["accounts"]
        lines += [*_table(DIALECTS, measured, "Accounts, an upstream's answers"), ""]
        lines += [*account_goals(measured), ""]
    if results.get("limits"):
        lines += [*_table(LIMITS, results["limits"], "A limit shared by three replicas"), ""]
    if "tracing" in results:
        measured = results["tracing"]
        lines += [*_table(DIALECTS, measured, "Traces of an upstream's answers, sent or not"), ""]
        lines += [*tracing_goals(measured), ""]
    if results.get("processes"):
        lines += [*scaling.lines(results["processes"]), ""]
    if "gemini" in results:
        lines += [*_table(GEMINI, results["gemini"], "Gemini, through its CLI"), ""]
    if results.get("console"):
        lines += [*_table(CONSOLE, results["console"], "The console, one page open"), ""]
    if "engines" in results:
        measured = results["engines"]
        lines += [*_table(ENGINES, measured, "Gemini, with its CLI and without"), ""]
        lines += [*engine_goals(measured["CLI"], measured["no CLI"]), ""]
    lines += [f"- {note}" for note in results.get("notes", ())]
    return "\n".join(lines).rstrip() + "\n"


def with_processes(page: str, results: Results) -> str:
    """A page with what several processes serve at the place that it has for that."""
    only = {name: results[name] for name in ("date", "machine", "processes")}
    return scaling.in_page(page, table(only))


_COLOURS = ("#2563eb", "#94a3b8", "#f59e0b", "#10b981")
_WIDTH, _LABEL, _BAR, _LINE = 760, 330, 300, 18


def picture(results: Results) -> str:
    """The main rows as bars, each row to a scale of its own, as an SVG."""
    y = 46
    drawn: list[str] = []
    for rows, part in ((RELAY, results.get("relay")), (GEMINI, results.get("gemini"))):
        if part is None:
            continue
        names = [name for name in part if name != "direct"]
        for row in (row for row in rows if row.in_picture):
            numbers = [value(row, part[name], part.get("direct")) for name in names]
            most = max((number for number in numbers if number is not None), default=0) or 1
            drawn.append(_text(_LABEL - 12, y + 13, row.title, "end", "label"))
            for name, number in zip(names, numbers, strict=True):
                if number is None:
                    continue
                width = max(1.5, _BAR * number / most)
                colour = _COLOURS[_colour_of(name)]
                drawn.append(
                    f'<rect x="{_LABEL}" y="{y + 2}" width="{width:.1f}" height="{_LINE - 5}" '
                    f'rx="2" fill="{colour}"/>'
                )
                label = f"{shown(number, row.digits)} {name}"
                drawn.append(_text(_LABEL + width + 6, y + 13, label, "start", "value"))
                y += _LINE
            y += 12
    title = f"gemproxy beside its alternatives, {results['date']}"
    style = (
        "text{font-family:system-ui,sans-serif;fill:#0f172a}.title{font-size:16px;"
        "font-weight:600}.label{font-size:12px}.value{font-size:11px;fill:#475569}"
    )
    body = "\n".join([_text(16, 26, title, "start", "title"), *drawn])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" '
        f'viewBox="0 0 {_WIDTH} {y}">\n<style>{style}</style>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _colour_of(name: str) -> int:
    order: Callable[[str], int] = {"gemproxy": 0, "nginx": 1, "LiteLLM": 2}.get  # type: ignore[assignment]
    found = order(name)
    return 3 if found is None else found


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
