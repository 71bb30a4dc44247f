"""
The daemon's run directory, and the removal of directories left behind by killed daemons.

All run directories are in one root directory. A daemon holds a lock on its directory until it ends,
for whatever reason; a directory whose lock is free is an orphan.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gemproxy.util.log import make_logger

_LOCK = "lock"


def root_for_user(environ: Mapping[str, str]) -> Path:
    """The root of this user's run directories."""
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir() and os.access(runtime, os.W_OK):
        return Path(runtime) / "gemproxy"
    return Path(tempfile.gettempdir()) / f"gemproxy-{os.getuid()}"


class RunDirectory:
    """
    A private directory that exists while the daemon does.

    @ivar path: the directory, mode 0700; None if it is not acquired.
    """

    log = make_logger()

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock: int | None = None
        self.path: Path | None = None

    def acquire(self) -> Path:
        """
        Create the directory, and remove those of dead daemons.

        @raise OSError: the directory cannot be created, or the root belongs to another user.
        """
        self._root.mkdir(mode=0o700, exist_ok=True)
        status = self._root.lstat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(f"{self._root} is not a private directory of this user")
        self._clear_orphans()
        self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._root))
        # The lock file is renamed once it is locked: an unlocked one marks an orphan.
        unnamed = self.path / f"{_LOCK}.new"
        self._lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self.path / _LOCK)
        return self.path

    def release(self) -> None:
        """Remove the directory."""
        if self.path is not None and self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
        self.path = self._lock = None

    def _clear_orphans(self) -> None:
        for path in self._root.iterdir():
            try:
                lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                # Incomplete, or being removed: another daemon may be working on it.
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                self.log.info("clearing {path}, left behind by a killed daemon", path=str(path))
                _kill_processes_of(path)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _kill_processes_of(directory: Path) -> None:
    """Kill the processes with a HOME in a run directory; only workers have one."""
    home = b"HOME=" + os.fsencode(directory) + b"/"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            if any(variable.startswith(home) for variable in variables):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue
