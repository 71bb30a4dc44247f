"""The files that the CLI writes by itself: its records of sessions, and its reports of errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Of a disk without space the CLI says that it goes on and saves nothing (read off
# @google/gemini-cli 0.61.0). Not every system has this device.
_FULL = Path("/dev/full")
_NOWHERE = _FULL if _FULL.exists() else Path("/dev/null")


def keep_off_disk(chats: Path, session_id: str) -> None:
    """
    See to it that what is said in a session is not written to a file.

    @param chats: the C{chats} folder of the worker's project.
    """
    for path in _records(chats, f"-{session_id[:8]}.jsonl"):
        link = path.with_suffix(".link")
        link.symlink_to(_NOWHERE)
        # At no time there is none, which would make the CLI begin another file.
        os.replace(link, path)


def clear(chats: Path) -> None:
    """Remove the sessions that nobody asked for: the CLI starts with one."""
    for path in _records(chats, ".jsonl"):
        path.unlink(missing_ok=True)


def delete_reports(temp: Path) -> None:
    """
    Remove what the CLI wrote about errors: a report holds the conversation that met with one.

    @param temp: the worker's temp directory.
    """
    for path in temp.glob("gemini-client-error-*.json"):
        path.unlink(missing_ok=True)


def _records(chats: Path, ending: str) -> Iterator[Path]:
    # A pattern with an id in it would be compiled, and kept, for each session.
    with suppress(FileNotFoundError):
        for name in os.listdir(chats):
            if name.startswith("session-") and name.endswith(ending):
                yield chats / name
