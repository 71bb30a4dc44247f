"""
The daemon's run directory, and the removal of directories left behind by killed daemons.

All run directories are in a root directory of the user. A daemon holds a lock on its directory
until it ends, for whatever reason; a directory whose lock is free is an orphan. The directory may
be removed under a running daemon: systemd does that with XDG_RUNTIME_DIR when the user logs out.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from gemproxy.util.log import make_logger

_LOCK = "lock"


def roots_for_user(environ: Mapping[str, str]) -> Iterator[Path]:
    """
    Where the root of this user's run directories may be, in order of preference.

    @raise OSError: there is no directory for temporary files.
    """
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir() and os.access(runtime, os.W_OK):
        yield Path(runtime) / "gemproxy"
    try:
        temp = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise FileNotFoundError(
            "A folder for temporary files is needed, and none can be written: "
            "mount one, as with `docker run --tmpfs /tmp`, or name one with TMPDIR."
        ) from None
    name = f"gemproxy-{os.getuid()}"
    yield temp / name
    # Anybody may have made that one. One with a name that nobody can guess is found again.
    yield from sorted(temp.glob(f"{name}-*"))
    yield Path(tempfile.mkdtemp(prefix=f"{name}-"))


class RunDirectory:
    """
    A private directory that exists while the daemon does.

    @ivar path: the directory, mode 0700; None if it is not acquired.
    """

    log = make_logger()

    def __init__(self, roots: Callable[[], Iterable[Path]]) -> None:
        """@param roots: where the root may be; the first that nobody else can enter is taken."""
        self._roots = roots
        self._lock: int | None = None
        # Those that somebody removed. Workers that have their homes there may make them again.
        self._removed: list[Path] = []
        self.path: Path | None = None

    def acquire(self) -> Path:
        """
        Create the directory, and remove those of dead daemons.

        @raise OSError: the directory cannot be created, or each root is another user's.
        """
        root = self._private_root()
        self._clear_orphans(root)
        self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
        # The lock file is renamed once it is locked: an unlocked one marks an orphan.
        unnamed = self.path / f"{_LOCK}.new"
        self._lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self.path / _LOCK)
        return self.path

    def ensure(self) -> Path:
        """
        The directory, which is created anew if it was removed.

        @raise OSError: see L{acquire}.
        """
        path = self.path
        if path is not None and _is_private(path) and _is_private(path.parent):
            return path
        if path is not None:
            self.log.warn("{path} was removed: another run directory is made", path=str(path))
            self._removed.append(path)
            self._let_go()
        return self.acquire()

    def release(self) -> None:
        """Remove the directory."""
        if self.path is not None and self._lock is not None:
            # Elsewhere, somebody else may have made it.
            again = [path for path in self._removed if _is_private(path.parent)]
            for path in (*again, self.path):
                shutil.rmtree(path, ignore_errors=True)
            self._removed.clear()
        self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self.path = self._lock = None

    def _private_root(self) -> Path:
        """@raise OSError: there is none; the reason why the first is none."""
        reasons: list[OSError] = []
        for root in self._roots():
            try:
                root.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                reasons.append(error)
                continue
            if _is_private(root):
                if reasons:
                    self.log.warn("{root} is used: {reason}", root=str(root), reason=reasons[0])
                return root
            reasons.append(PermissionError(f"{root} is not a private directory of this user"))
        raise reasons[0]

    def _clear_orphans(self, root: Path) -> None:
        for path in root.iterdir():
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


def _is_private(directory: Path) -> bool:
    """Whether a directory exists, is this user's, and nobody else can enter it."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    )


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
