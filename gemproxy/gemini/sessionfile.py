"""The files in which the CLI keeps a session: written for it to load, deleted afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gemproxy.chat.jsontext import dumps
from gemproxy.gemini.turns import Turn

# Never the present minute: the CLI names its own file by that, and would overwrite this one.
_TIME = "2000-01-01T00:00:00.000Z"
_FILE_TIME = "2000-01-01T00-00"


def render(session_id: str, turns: Sequence[Turn]) -> bytes:
    """The session as the CLI records one (JSON lines; read off @google/gemini-cli 0.61.0)."""
    lines: list[dict[str, Any]] = [
        {
            "sessionId": session_id,
            "projectHash": "gemproxy",
            "startTime": _TIME,
            "lastUpdated": _TIME,
            "kind": "main",
        }
    ]
    lines.extend(
        {
            "id": f"turn-{number}",
            "timestamp": _TIME,
            "type": "gemini" if turn.role == "model" else "user",
            "content": list(turn.parts),
        }
        for number, turn in enumerate(turns)
    )
    return b"".join(dumps(line) + b"\n" for line in lines)


def write(chats: Path, session_id: str, turns: Sequence[Turn]) -> None:
    """
    Put a session where the CLI looks for it.

    @param chats: the C{chats} folder of the worker's project.
    """
    path = chats / f"session-{_FILE_TIME}-{session_id[:8]}.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(render(session_id, turns))


def delete(chats: Path, session_id: str) -> None:
    """Remove every file of a session, those that the CLI made of it too."""
    _unlink(chats, f"-{session_id[:8]}.jsonl")


def clear(chats: Path) -> None:
    """Remove the sessions that nobody asked for: the CLI starts with one."""
    _unlink(chats, ".jsonl")


def _unlink(chats: Path, ending: str) -> None:
    # A pattern with an id in it would be compiled, and kept, for each session.
    with suppress(FileNotFoundError):
        for name in os.listdir(chats):
            if name.startswith("session-") and name.endswith(ending):
                (chats / name).unlink(missing_ok=True)


def delete_reports(temp: Path) -> None:
    """
    Remove what the CLI wrote about errors: a report holds the conversation that met with one.

    @param temp: the worker's temp directory.
    """
    for path in temp.glob("gemini-client-error-*.json"):
        path.unlink(missing_ok=True)
