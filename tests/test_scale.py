"""What is calculated of processes and users: bench/simulation.py, and docs/scale.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import light_load, scale, scaling
from bench.contenders import Unavailable
from bench.scale import Assumptions, Figures, Needs, walls
from bench.simulation import Costs, at_once, throughput
from tests.support import ROOT
from tests.tables import each

PAGE = ROOT / "docs" / "scale.md"
MEASURED = ROOT / "docs" / "performance.md"
# A millisecond for an answer.
ALONE = Costs(0.001, 0.0, 0.0)
WITH_LOAD = Costs(0.001, 0.00005, 0.00005)


@each(
    ("cores", "processes", "costs", "expected"),
    [
        # Each process has a core, and is never idle.
        (8, 1, ALONE, 1000),
        (8, 4, ALONE, 4000),
        (8, 2, WITH_LOAD, 2000),
        # The cores are full, with clients and upstream beside.
        (2, 2, WITH_LOAD, 2 / 0.0011),
        (2, 4, WITH_LOAD, 2 / 0.0011),
        (0.5, 1, ALONE, 500),
        # Others have none to spare for the client.
        (8, 8, Costs(0.001, 0.0005, 0.0), 2000),
    ],
)
def test_processes_serve_as_much_as_the_cores_allow(
    cores: float, processes: int, costs: Costs, expected: float
):
    served = throughput(cores, processes, costs, answers=500)
    assert served == pytest.approx(expected, rel=0.1)


def test_no_more_is_served_at_once_than_connections_ask_for():
    # The one that waits for its upstream leaves the daemon idle.
    assert throughput(8, 1, Costs(0.001, 0.0, 0.001), connections=1, answers=10) == pytest.approx(
        500
    )


def test_a_burst_waits_for_half_of_itself_and_shorter_with_more_processes():
    one, two, four = (at_once(8, processes, ALONE) for processes in (1, 2, 4))
    assert one == pytest.approx(0.1, rel=0.05)
    assert two == pytest.approx(one / 2, rel=0.05)
    assert four == pytest.approx(one / 4, rel=0.15)
    assert at_once(2, 4, ALONE) > 1.8 * four


def test_what_users_need_grows_with_their_number():
    one, ten = Needs(10_000), Needs(100_000)
    assert ten.streams == pytest.approx(10 * one.streams)
    assert ten.direct_cores == pytest.approx(10 * one.direct_cores)
    # Each of six seconds and 8 ms of CPU.
    assert one.rate == pytest.approx(9.26, rel=0.01)
    assert one.streams == pytest.approx(55.6, rel=0.01)
    assert one.direct_cores == pytest.approx(one.rate * (0.00163 + 80 * 0.000079))
    assert (one.processes, one.machines) == (1, 1)
    assert Needs(1_000_000, Assumptions(busy=0.25)).processes == 30
    assert Needs(1_000_000, Assumptions(cores=4)).machines == 5


def test_a_wall_stands_where_what_is_needed_is_what_there_is():
    found = walls(Needs(1))
    assert found == sorted(found, key=lambda wall: wall.users)

    def at(meaning: str) -> Needs:
        [wall] = [wall for wall in found if meaning in wall.meaning]
        return Needs(wall.users)

    assert at("$20,000").dollars_a_month == pytest.approx(20_000)
    assert at("$200").dollars_at_peak == pytest.approx(200)
    assert at("CLI").streams == pytest.approx(256)
    assert at("one process").direct_cores == pytest.approx(0.5)
    assert at("8 processes").direct_cores == pytest.approx(4)
    assert at("Valkey").state_calls == pytest.approx(20_000)


def test_the_page_has_what_is_calculated():
    page = PAGE.read_text()
    for lines in (scale.assumptions_table(), scale.needs_table(scale.USERS), scale.walls_table()):
        assert "\n".join(lines) in page
    figures = Figures()
    for number in (
        f"{figures.answer_ms:g} ms",
        f"{figures.chunk_us:g} µs",
        f"{figures.direct_answer_ms:g} ms",
        f"{figures.direct_chunk_us:g} µs",
        f"{figures.cli_ms:g} ms",
        f"{figures.process_mb:g} MB",
        f"{figures.stream_kb:g} kB",
    ):
        assert number in page


def test_other_assumptions_are_calculated_with(capsys: pytest.CaptureFixture[str]):
    scale.main(["--users", "500", "--requests", "10", "--chunks", "40"])
    printed = capsys.readouterr().out
    assert "\n".join(scale.needs_table([500], Assumptions(requests=10, chunks=40))) in printed


def test_what_is_measured_has_its_place_in_the_page():
    page = MEASURED.read_text()
    changed = scaling.in_page(page, "| tables |\n")
    before, _, rest = changed.partition("<!-- processes -->\n")
    assert page.startswith(before)
    assert rest.startswith("\n| tables |\n\n<!-- end of processes -->\n")
    assert page.endswith(rest.partition("<!-- end of processes -->")[2])
    assert scaling.in_page(changed, "| tables |\n") == changed


def measures(processes: int, rate: float, wait: float = 60, **more: float) -> dict[str, float]:
    loads = ("document", "streamed", "gemini", "chunks")
    kinds = {"_s": rate, "_ms": 1.0, "_client_ms": 0.0, "_upstream_ms": 0.0}
    known = {f"{load}{kind}": value for load in loads for kind, value in kinds.items()}
    rest = ("load_ms", "uneven_at_once", "uneven_one_by_one", "memory_mb", "failed", "others")
    known |= dict.fromkeys(rest, 0.0) | {"uneven_under_load": 1.5, "at_once_ms": wait}
    return known | {"processes": processes} | more


@each(
    ("two", "missed"),
    [
        (measures(2, 185, 35), []),
        (measures(2, 175, 35), ["times the small answers"]),
        (measures(2, 185, 37), ["have content in 62% of the time"]),
        (measures(2, 185, 35, uneven_under_load=2.1), ["2.1 times the connections"]),
        (measures(2, 185, 35, others=0.2), ["not to be trusted"]),
    ],
)
def test_goals_that_are_missed_are_told(two: dict[str, float], missed: list[str]):
    known = {"1 process": measures(1, 100), "2 processes": two}
    told = scaling.lines({"cores": 2, "measured": known, "predicted": known})
    assert "2 processes would serve 2.00 times the small answers" in "\n".join(told)
    found = [line for line in told if "**" in line]
    assert len(found) == len(missed)
    assert all(words in line for words, line in zip(missed, found, strict=True))


def test_a_program_that_is_missing_is_named():
    with pytest.raises(Unavailable, match=r"no-such-program is not installed \(apt-get"):
        light_load.found("no-such-program")


@pytest.mark.slow
def test_answers_that_are_not_what_was_sent_are_counted(tmp_path: Path):
    load = light_load.Load("small", connections=2)
    try:
        light_load.found("wrk")
        nginx, port = light_load.start_nginx(tmp_path, [load])
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        right = light_load.run(load, port, 1, "#000019 the quick")
        wrong = light_load.run(load, port, 1, "#000020 the quick")
        missing = light_load.run(light_load.Load("other"), port, 1)
    finally:
        nginx.stop()
    assert right.failed == 0 < right.answers
    assert wrong.failed == wrong.answers > 0
    assert missing.failed == missing.answers > 0
