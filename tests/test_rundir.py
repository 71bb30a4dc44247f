"""The run directory, and what is left of one whose daemon was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gemproxy.util import rundir
from gemproxy.util.rundir import RunDirectory, roots_for_user


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def directory(root: Path) -> Iterator[RunDirectory]:
    directory = RunDirectory(lambda: [root])
    yield directory
    directory.release()


KILLED_DAEMON = """
import os, pathlib, signal, sys
from gemproxy.util.rundir import RunDirectory
path = RunDirectory(lambda: [pathlib.Path(sys.argv[1])]).acquire()
(path / "worker-1").mkdir()
(path / "worker-1" / "secret").write_text("a conversation")
print(path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def orphan(root: Path) -> Path:
    """The directory of a daemon that was killed."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_DAEMON, str(root)], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    path = Path(killed.stdout.strip())
    assert (path / "worker-1" / "secret").exists()
    return path


def sleeper(home: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["sleep", "60"], env={"HOME": str(home), "PATH": os.environ["PATH"]})
    # Its environment shows a moment after it was started.
    while not Path(f"/proc/{process.pid}/environ").read_bytes():
        time.sleep(0.001)
    return process


def test_it_is_private(root: Path, directory: RunDirectory):
    path = directory.acquire()
    assert path == directory.path
    assert path.parent == root
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_release_removes_it_with_all_that_is_in_it(root: Path, directory: RunDirectory):
    path = directory.acquire()
    (path / "worker-1").mkdir()
    (path / "worker-1" / "file").write_text("x")
    directory.release()
    assert directory.path is None
    assert list(root.iterdir()) == []
    directory.release()


def test_release_removes_what_is_made_again_where_it_was_removed(
    root: Path, directory: RunDirectory
):
    """A worker that still runs may do so: it has its home there."""
    first = directory.acquire()
    shutil.rmtree(first)
    assert directory.ensure() != first
    (first / "worker-1" / "tmp").mkdir(parents=True)
    directory.release()
    assert list(root.iterdir()) == []


def test_it_can_be_taken_again(directory: RunDirectory):
    first = directory.acquire()
    directory.release()
    assert directory.acquire() != first


def test_what_a_killed_daemon_left_is_cleared(root: Path, directory: RunDirectory):
    left = orphan(root)
    worker = sleeper(left / "worker-1")
    bystander = sleeper(Path(f"{left}x"))
    try:
        path = directory.acquire()
        assert worker.wait(10) == -signal.SIGKILL
        assert bystander.poll() is None
    finally:
        for process in (worker, bystander):
            process.kill()
            process.wait()
    assert list(root.iterdir()) == [path]


def test_a_living_daemon_is_left_alone(root: Path, directory: RunDirectory):
    living = RunDirectory(lambda: [root])
    path = living.acquire()
    worker = sleeper(path / "worker-1")
    try:
        assert directory.acquire() != path
        assert path.is_dir()
        assert worker.poll() is None
    finally:
        worker.kill()
        worker.wait()
        living.release()
    assert directory.path is not None
    assert directory.path.is_dir()


def test_a_new_directory_is_not_taken_for_an_orphan(
    root: Path, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
):
    lock = fcntl.flock

    def lock_after_another_daemon_looked(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        other = RunDirectory(lambda: [root])
        other.acquire()
        other.release()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_after_another_daemon_looked)
    assert directory.acquire().is_dir()


def test_strange_things_in_the_root_are_left_alone(root: Path, directory: RunDirectory):
    root.mkdir(mode=0o700)
    (root / "file").write_text("x")
    (root / "folder").mkdir()
    (root / "link").symlink_to("/")
    directory.acquire()
    assert {"file", "folder", "link"} < {path.name for path in root.iterdir()}


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o1777])
def test_a_root_that_others_can_enter_is_refused(root: Path, directory: RunDirectory, mode: int):
    root.mkdir()
    root.chmod(mode)
    with pytest.raises(PermissionError, match="not a private directory"):
        directory.acquire()
    assert list(root.iterdir()) == []
    assert directory.path is None


def test_a_root_of_another_user_is_refused(
    root: Path, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
):
    root.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: root.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="not a private directory"):
        directory.acquire()


def test_a_root_that_is_a_link_is_refused(tmp_path: Path, root: Path, directory: RunDirectory):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    root.symlink_to("elsewhere")
    with pytest.raises(PermissionError, match="not a private directory"):
        directory.acquire()


def test_a_root_that_is_a_file_is_refused(root: Path, directory: RunDirectory):
    root.write_text("x")
    with pytest.raises(FileExistsError):
        directory.acquire()


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    temp = tmp_path / "temp"
    temp.mkdir()
    monkeypatch.setattr(rundir.tempfile, "tempdir", str(temp))
    return temp


def test_the_root_is_in_the_users_runtime_directory(tmp_path: Path):
    assert next(roots_for_user({"XDG_RUNTIME_DIR": str(tmp_path)})) == tmp_path / "gemproxy"


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "/none"}])
def test_without_one_each_user_has_a_root_of_its_own(environ: dict[str, str], temp: Path):
    assert next(roots_for_user(environ)) == temp / f"gemproxy-{os.getuid()}"
    assert list(temp.iterdir()) == []


def squat(temp: Path, how: str) -> Path:
    """Take the place of this user's root, as any other user can."""
    place = temp / f"gemproxy-{os.getuid()}"
    match how:
        case "a directory of others":
            place.mkdir(mode=0o777)
            place.chmod(0o777)
        case "a link":
            (temp / "trap").mkdir(mode=0o700)
            place.symlink_to("trap")
        case "a link to nowhere":
            place.symlink_to("nowhere")
        case "a file":
            place.write_text("x")
    return place


@pytest.mark.parametrize("how", ["a directory of others", "a link", "a link to nowhere", "a file"])
def test_a_root_that_somebody_else_made_is_left_alone_and_another_taken(temp: Path, how: str):
    place = squat(temp, how)
    before = sorted(temp.rglob("*"))
    first, second = (RunDirectory(lambda: roots_for_user({})) for _ in range(2))
    path = first.acquire()
    try:
        root = path.parent
        assert root.parent == temp
        assert root not in (place, temp / "trap")
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        # The next one finds it, so orphans in it are found too.
        assert second.acquire().parent == root
        first.release()
        second.release()
        assert sorted(temp.rglob("*")) == sorted([*before, root])
    finally:
        first.release()
        second.release()


def test_another_root_that_somebody_else_made_is_not_taken_either(temp: Path):
    squat(temp, "a file")
    trap = temp / f"gemproxy-{os.getuid()}-aaaaaaaa"
    trap.mkdir(mode=0o755)
    directory = RunDirectory(lambda: roots_for_user({}))
    try:
        assert directory.acquire().parent != trap
        assert list(trap.iterdir()) == []
    finally:
        directory.release()


def test_it_stays_while_it_is_there(directory: RunDirectory):
    assert directory.acquire() == directory.ensure() == directory.ensure()


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_it_is_made_anew_when_it_was_removed(temp: Path, tmp_path: Path, levels: int):
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    directory = RunDirectory(lambda: roots_for_user({"XDG_RUNTIME_DIR": str(runtime)}))
    try:
        first = directory.acquire()
        shutil.rmtree([first, first.parent, runtime][levels])
        second = directory.ensure()
        assert second.is_dir()
        assert second != first
        # Whoever looks for orphans finds it locked.
        other = RunDirectory(lambda: [second.parent])
        other.acquire()
        other.release()
        assert second.is_dir()
        assert second.parent == (
            temp / f"gemproxy-{os.getuid()}" if levels == 2 else runtime / "gemproxy"
        )
    finally:
        directory.release()


def test_one_that_somebody_else_put_in_its_place_is_not_used(root: Path, directory: RunDirectory):
    first = directory.acquire()
    shutil.rmtree(first)
    first.mkdir()
    first.chmod(0o777)
    assert directory.ensure() != first
    assert list(first.iterdir()) == []


def test_without_a_temporary_folder_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_folder() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(rundir.tempfile, "gettempdir", no_folder)
    with pytest.raises(FileNotFoundError, match="--tmpfs /tmp"):
        next(roots_for_user({}))
