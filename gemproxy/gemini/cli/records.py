"""Handles the files written by the CLI: session records and error reports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# If the disk is full, the CLI continues without saving (source code of @google/gemini-cli 0.61.0).
# Not every system has this device.
_FULL = Path("/dev/full")
_NOWHERE = _FULL if _FULL.exists() else Path("/dev/null")


def keep_off_disk(chats: Path, session_id: str) -> None:
    """
    Prevent the CLI from writing the text of a session to a file.

    @param chats: the C{chats} directory of the worker's project.
    """
    for path in _records(chats, f"-{session_id[:8]}.jsonl"):
        link = path.with_suffix(".link")
        link.symlink_to(_NOWHERE)
        # Replaced atomically: if the file is missing, the CLI creates another one.
        os.replace(link, path)


def clear(chats: Path) -> None:
    """Remove the records of unrequested sessions: the CLI opens one at startup."""
    for path in _records(chats, ".jsonl"):
        path.unlink(missing_ok=True)


def delete_reports(temp: Path) -> None:
    """
    Remove the CLI's error reports, because they contain the conversation.

    @param temp: the worker's temp directory.
    """
    for path in temp.glob("gemini-client-error-*.json"):
        path.unlink(missing_ok=True)


def _records(chats: Path, ending: str) -> Iterator[Path]:
    # A pattern that contains the id would be compiled and cached for each session.
    with suppress(FileNotFoundError):
        for name in os.listdir(chats):
            if name.startswith("session-") and name.endswith(ending):
                yield chats / name
