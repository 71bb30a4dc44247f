"""The limits of cgroups, in folders like those of containers, services and bare machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemproxy.util.cgroup import CgroupLimits, cgroup_limits, machine_memory

MB = 1024 * 1024
UNLIMITED_V1 = "9223372036854771712"

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"
V1_MOUNTS = (
    "31 30 0:27 {inside} /sys/fs/cgroup/memory ro,nosuid master:9 - cgroup cgroup rw,memory\n"
    "32 30 0:28 {inside} /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
    "33 30 0:29 {inside} /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n"
)
V1_PATHS = "5:pids:{path}\n4:memory:{path}\n3:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/\n"


def machine(root: Path, paths: str, mounts: str, files: dict[str, str]) -> Path:
    """The folders of a machine as far as they say something about cgroups."""
    other_mounts = "22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/a"
    files = {
        "proc/self/cgroup": paths,
        "proc/self/mountinfo": f"{mounts}{other_mounts}\n",
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_container_of_version_2(tmp_path: Path):
    files = {"memory.max": f"{512 * MB}\n", "memory.high": "max\n", "cpu.max": "150000 100000\n"}
    root = machine(tmp_path, "0::/\n", V2_MOUNT, files)
    assert cgroup_limits(root) == CgroupLimits(512 * MB, 1.5)


def test_a_service_of_version_2_has_the_lowest_limits_of_all_above_it(tmp_path: Path):
    files = {
        "system.slice/memory.max": f"{800 * MB}\n",
        "system.slice/cpu.max": "50000 100000\n",
        "system.slice/a.service/memory.max": f"{900 * MB}\n",
        "system.slice/a.service/cpu.max": "max 100000\n",
        "system.slice/other.service/memory.max": f"{MB}\n",
    }
    root = machine(tmp_path, "0::/system.slice/a.service\n", V2_MOUNT, files)
    assert cgroup_limits(root) == CgroupLimits(800 * MB, 0.5)


def test_its_own_limit_counts_where_it_is_lower(tmp_path: Path):
    files = {"a/memory.max": f"{900 * MB}\n", "a/b/memory.max": f"{100 * MB}\n"}
    root = machine(tmp_path, "0::/a/b\n", V2_MOUNT, files)
    assert cgroup_limits(root).memory == 100 * MB


def test_the_mark_from_which_on_processes_are_slowed_down_is_a_limit(tmp_path: Path):
    files = {"memory.max": f"{512 * MB}\n", "memory.high": f"{400 * MB}\n"}
    assert cgroup_limits(machine(tmp_path, "0::/\n", V2_MOUNT, files)).memory == 400 * MB


@pytest.mark.parametrize("inside", ["/", "/docker/1f"])
def test_a_container_of_version_1(tmp_path: Path, inside: str):
    """Docker shows the container its own part; with a shared namespace, the whole."""
    below = "docker/1f/" if inside == "/" else ""
    files = {
        f"memory/{below}memory.limit_in_bytes": f"{1024 * MB}\n",
        f"cpu,cpuacct/{below}cpu.cfs_quota_us": "200000\n",
        f"cpu,cpuacct/{below}cpu.cfs_period_us": "100000\n",
    }
    paths, mounts = V1_PATHS.format(path="/docker/1f"), V1_MOUNTS.format(inside=inside)
    root = machine(tmp_path, paths, mounts, files)
    assert cgroup_limits(root) == CgroupLimits(1024 * MB, 2.0)


def test_version_1_without_limits(tmp_path: Path):
    files = {
        "memory/memory.limit_in_bytes": UNLIMITED_V1,
        "memory/user.slice/memory.limit_in_bytes": UNLIMITED_V1,
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    paths, mounts = V1_PATHS.format(path="/user.slice"), V1_MOUNTS.format(inside="/")
    assert cgroup_limits(machine(tmp_path, paths, mounts, files)) == CgroupLimits()


def test_version_1_counts_what_is_above_too(tmp_path: Path):
    files = {
        "memory/memory.limit_in_bytes": UNLIMITED_V1,
        "memory/pod/memory.limit_in_bytes": f"{300 * MB}\n",
        "memory/pod/1f/memory.limit_in_bytes": UNLIMITED_V1,
    }
    paths, mounts = V1_PATHS.format(path="/pod/1f"), V1_MOUNTS.format(inside="/")
    assert cgroup_limits(machine(tmp_path, paths, mounts, files)).memory == 300 * MB


def test_both_versions_side_by_side(tmp_path: Path):
    mounts = V1_MOUNTS.format(inside="/") + (
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    files = {
        "unified/a/cpu.max": "25000 100000\n",
        "memory/b/memory.limit_in_bytes": f"{700 * MB}\n",
    }
    paths = "4:memory:/b\n3:cpu,cpuacct:/b\n0::/a\n"
    root = machine(tmp_path, paths, mounts, files)
    assert cgroup_limits(root) == CgroupLimits(700 * MB, 0.25)


@pytest.mark.parametrize("path", ["/../../other", "/../1f", "/gone"])
def test_a_cgroup_that_is_not_seen_leaves_what_is(tmp_path: Path, path: str):
    """So it is for a process that entered another namespace, or whose cgroup was removed."""
    root = machine(tmp_path, f"0::{path}\n", V2_MOUNT, {"memory.max": f"{512 * MB}\n"})
    (tmp_path / "sys/memory.max").write_text("1\n")
    assert cgroup_limits(root).memory == 512 * MB


def test_a_mount_point_with_a_space(tmp_path: Path):
    mount = V2_MOUNT.replace("/sys/fs/cgroup", r"/sys/fs/cgroup/my\040groups")
    root = machine(tmp_path, "0::/\n", mount, {"my groups/memory.max": f"{MB}\n"})
    assert cgroup_limits(root).memory == MB


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"memory.max": "max\n", "cpu.max": "max 100000\n"},
        {"memory.max": "", "cpu.max": ""},
        {"memory.max": "many\n", "cpu.max": "a b\n"},
        {"memory.max": "0\n", "cpu.max": "100000 0\n"},
        {"cpu.max": "100000\n"},
        {"memory.max/file": "a folder"},
    ],
)
def test_what_says_nothing_sets_no_limit(tmp_path: Path, files: dict[str, str]):
    assert cgroup_limits(machine(tmp_path, "0::/\n", V2_MOUNT, files)) == CgroupLimits()


@pytest.mark.parametrize("paths", ["", "nonsense\n", "::\n", "0::\n\n"])
@pytest.mark.parametrize("mounts", ["", "nonsense\n", "1 2 3 - cgroup2\n", " - \n"])
def test_a_system_without_cgroups_sets_no_limit(tmp_path: Path, paths: str, mounts: str):
    assert cgroup_limits(machine(tmp_path, paths, mounts, {})) == CgroupLimits()


def test_a_system_without_proc_sets_no_limit(tmp_path: Path):
    assert cgroup_limits(tmp_path) == CgroupLimits()


def test_the_memory_of_the_machine(tmp_path: Path):
    meminfo = "MemTotal:       16384000 kB\nMemFree:         1234567 kB\n"
    root = machine(tmp_path, "", "", {})
    assert machine_memory(root) is None
    (root / "proc/meminfo").write_text(meminfo)
    assert machine_memory(root) == 16384000 * 1024
