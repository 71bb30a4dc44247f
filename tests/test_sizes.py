"""How many workers there are, and how large, for the memory and the CPU that there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.gemini.cli.sizes import MIB, WorkerSizes, worker_sizes

GIB = 1024 * MIB


def test_without_limits_it_is_as_many_as_any_traffic_needs():
    assert worker_sizes(None) == WorkerSizes(4, 512 * MIB, 450 * MIB)
    assert worker_sizes(64 * GIB, 16.0) == WorkerSizes(4, 512 * MIB, 450 * MIB)


@pytest.mark.parametrize(
    ("megabytes", "workers"),
    [(64, 1), (256, 1), (384, 1), (512, 1), (768, 1), (1024, 2), (1536, 3), (2048, 4), (8192, 4)],
)
def test_as_many_as_fit_into_memory(megabytes: int, workers: int):
    assert worker_sizes(megabytes * MIB).workers == workers


@pytest.mark.parametrize(
    ("cores", "workers"), [(0.1, 1), (0.5, 1), (0.51, 2), (1.0, 2), (1.5, 3), (2.0, 4), (64.0, 4)]
)
def test_two_for_a_core(cores: float, workers: int):
    assert worker_sizes(None, cores).workers == workers


def test_the_scarcer_of_both_decides():
    assert worker_sizes(GIB, 0.5).workers == 1
    assert worker_sizes(512 * MIB, 8.0).workers == 1


@pytest.mark.parametrize("wanted", [1, 3, 64])
def test_what_is_set_is_taken(wanted: int):
    assert worker_sizes(None, None, wanted).workers == wanted
    assert worker_sizes(512 * MIB, 0.5, wanted).workers == wanted


@pytest.mark.parametrize(
    ("wanted", "processes", "workers"), [(None, 2, 4), (None, 6, 6), (1, 3, 3), (8, 2, 8)]
)
def test_each_process_has_one_at_least(wanted: int | None, processes: int, workers: int):
    assert worker_sizes(None, None, wanted, processes).workers == workers
    assert worker_sizes(8 * GIB, None, wanted, processes).workers == workers


def test_processes_take_their_room():
    assert worker_sizes(1700 * MIB).workers == 4
    assert worker_sizes(1700 * MIB, None, None, 3).workers == 3


def test_little_memory_makes_small_workers():
    sizes = worker_sizes(512 * MIB)
    assert sizes.heap < 300 * MIB
    assert sizes.worn < 400 * MIB


@given(st.integers(0, 64 * GIB), st.none() | st.integers(1, 64))
def test_they_fit_or_are_as_small_as_is_of_use(memory: int, wanted: int | None):
    sizes = worker_sizes(memory, None, wanted)
    assert sizes.workers >= 1
    assert 192 * MIB <= sizes.heap <= 512 * MIB
    assert 300 * MIB <= sizes.worn <= 450 * MIB
    assert sizes.worn == 300 * MIB or sizes.workers * sizes.worn <= memory
    more = worker_sizes(memory + GIB, None, wanted)
    assert (more.workers, more.heap) >= (sizes.workers, sizes.heap)
