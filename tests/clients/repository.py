"""A small git repository with a mistake in it, and a program that is to mend it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define

BROKEN = "def add(a, b):\n    return a - b\n"
MENDED = BROKEN.replace("a - b", "a + b")
_PATIENCE = 100.0
_GIT = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@define
class Ended:
    """What a program has said, when it has ended."""

    status: int
    output: str


def make_repository(folder: Path) -> Path:
    """@return: the file with the mistake."""
    folder.mkdir()
    file = folder / "calc.py"
    file.write_text(BROKEN)
    git = {"PATH": os.environ["PATH"], "HOME": str(folder)} | _GIT
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, env=git, check=True)
    return file


def commits(repository: Path) -> int:
    counting = ["git", "rev-list", "--count", "HEAD"]
    return int(subprocess.run(counting, cwd=repository, capture_output=True, check=True).stdout)


def run(command: Sequence[str | Path], folder: Path, environ: Mapping[str, str]) -> Ended:
    """Run a program to its end, and end what it leaves running."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environ, **_GIT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return Ended(-1, f"it does not end: {output}")
    return Ended(process.returncode, output)
