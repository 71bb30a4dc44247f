"""Several processes: what each is told, what is its share, and when it is started again. Pure."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.processes.balance import FILE, Balance, Counts
from gemproxy.processes.count import count_for
from gemproxy.processes.parent import restart_delay
from gemproxy.processes.place import ALONE, VARIABLE, Place
from gemproxy.processes.process import Program

MIB = 1 << 20
PLACE = Place(2, 3, Path("/run/x y"), "2-7", {"Gemini Proxy": 4}, "s" * 64, 60.0)


@given(st.integers(1, 64), st.integers(0, 1000))
def test_shares_add_up_and_nobody_has_none(count: int, total: int):
    shares = [Place(number, count).share(total) for number in range(1, count + 1)]
    assert sum(shares) == max(total, count)
    assert max(shares) - min(shares) <= 1


def test_a_process_is_told_its_place():
    environ = {"WATCHDOG_USEC": "1", "NOTIFY_SOCKET": "/x", "LISTEN_FDS": "2", "OTHER": "kept"}
    told = Program((), (), environ, shares_output=True).environment(PLACE)
    assert Place.in_environ(told) == PLACE
    assert told.keys() == {VARIABLE, "PYTHONPATH", "OTHER"}
    assert Place.in_environ({}) == ALONE
    assert PLACE.secret not in repr(PLACE)


def test_what_they_have_in_common_is_theirs_and_for_one_purpose():
    assert ALONE.derived("seal") is None
    assert PLACE.derived("seal") == evolve(PLACE, number=1, name="1-8").derived("seal")
    others = [PLACE.derived("loop"), evolve(PLACE, secret="t" * 64).derived("seal")]
    assert PLACE.derived("seal") not in others


@pytest.mark.parametrize(
    ("cores", "quota", "memory", "count"),
    [
        (1, None, None, 1),
        (8, None, None, 8),
        (8, 2.5, None, 2),
        (2, 16.0, None, 2),
        (8, 0.5, None, 1),
        (8, None, 1024 * MIB, 4),
        (8, 3.0, 1024 * MIB, 3),
        (8, None, 64 * MIB, 1),
    ],
)
def test_as_many_as_there_are_cores_and_room(
    cores: int, quota: float | None, memory: int | None, count: int
):
    assert count_for(cores, quota, memory) == count


def test_the_delay_grows_up_to_a_minute():
    assert [restart_delay(number) for number in (0, 1, 2, 3, 7, 50)] == [0, 1, 2, 4, 60, 60]


def test_who_has_more_leaves_the_next_connection_to_others(tmp_path: Path):
    path = tmp_path / FILE
    parent = Counts.made(path, 3)
    first, second = (Balance(Place(number, 3, tmp_path)) for number in (1, 2))
    # The others are not there yet: nobody waits for them.
    first.tell(7)
    assert not first.is_for_others()
    second.tell(0)
    assert first.is_for_others()
    assert not second.is_for_others()
    first.tell(25)
    second.tell(20)
    assert not first.is_for_others()
    assert not second.is_for_others()
    first.tell(26)
    assert first.is_for_others()
    # The one that takes the place of another has its number.
    second.leave()
    second.tell(30)
    assert first.is_for_others()
    parent.forget(2)
    assert not first.is_for_others()
    gone = Balance(Place(1, 2, tmp_path / "gone"))
    gone.tell(9)
    assert not gone.is_for_others()
