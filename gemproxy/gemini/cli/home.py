"""The private directory of a CLI worker: its settings and its environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from attrs import frozen

from gemproxy.chat.jsontext import dumps

# MB of a worker's objects. They take 100 at the beginning, and 1 more with each session that was
# used up.
HEAP_LIMIT = 512

# What makes a plain chat model of a coding agent; each was seen to matter with 0.61.0.
_SETTINGS: dict[str, Any] = {
    "security": {
        "auth": {"selectedType": "gemini-api-key"},
        "folderTrust": {"enabled": False},
    },
    "general": {
        "enableAutoUpdate": False,
        "enableAutoUpdateNotification": False,
        # Retries are ours: the CLI's own would repeat an answer that was half out.
        "maxAttempts": 1,
        "topicUpdateNarration": False,
        "plan": {"enabled": False},
        "sessionRetention": {"enabled": False},
    },
    "privacy": {"usageStatisticsEnabled": False},
    # Without telemetry the CLI keeps every event, request and all, for the moment it is turned on.
    # OTEL_SDK_DISABLED makes nothing of it.
    "telemetry": {"enabled": True, "target": "local", "outfile": os.devnull, "logPrompts": False},
    "ide": {"enabled": False},
    # An allowlist: no built-in tool is declared or can run.
    "tools": {"core": ["none"], "useRipgrep": False},
    "context": {
        "includeDirectoryTree": False,
        "fileName": ["NO_SUCH_CONTEXT.md"],
        "discoveryMaxDirs": 0,
    },
    "model": {
        "disableLoopDetection": True,
        "skipNextSpeakerCheck": True,
        # With the default 0.5 a long history is rewritten silently.
        "compressionThreshold": 1.0,
    },
    "skills": {"enabled": False},
    "hooksConfig": {"enabled": False},
    "experimental": {"enableAgents": False},
    "mcp": {"allowed": []},
}


@frozen
class WorkerHome:
    """
    The private directory of one worker.

    @ivar root: where everything of the worker lies, mode 0700.
    """

    root: Path

    @property
    def cwd(self) -> Path:
        """The empty folder that the CLI takes for the user's project."""
        return self.root / "work"

    @property
    def chats(self) -> Path:
        """Where the CLI keeps the sessions of that project."""
        return self.root / ".gemini" / "tmp" / self.cwd.name / "chats"

    @property
    def temp(self) -> Path:
        return self.root / "tmp"

    @property
    def is_whole(self) -> bool:
        """
        Whether nobody has cleared it away. The CLI reads its settings for each session anew, and
        without them it is a coding agent.
        """
        return self._settings.exists() and self._system_prompt.exists()

    @property
    def _settings(self) -> Path:
        return self.root / ".gemini" / "settings.json"

    @property
    def _system_prompt(self) -> Path:
        return self.root / "system.md"

    def create(self) -> None:
        """@raise OSError: it cannot be made, or is there already."""
        self.root.mkdir(mode=0o700)
        for folder in (self.cwd, self.temp):
            folder.mkdir(mode=0o700)
        self.chats.mkdir(mode=0o700, parents=True)
        self._settings.write_bytes(dumps(_SETTINGS))
        # Replaces the CLI's system prompt of 23 kB. Whatever it says is not sent either.
        self._system_prompt.write_text(" ")

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def environment(self, path: str, model: str, api_url: str) -> dict[str, str]:
        """
        All that the worker gets to see of the world. The API key is not in it: whoever listens at
        C{api_url} adds it.

        @param path: the PATH on which node is found.
        @param model: any concrete model; with "auto" the CLI asks a classifier model first.
        """
        return {
            "PATH": path,
            "HOME": str(self.root),
            "GEMINI_CLI_HOME": str(self.root),
            "TMPDIR": str(self.temp),
            "GEMINI_API_KEY": "held-by-gemproxy",
            "GOOGLE_GEMINI_BASE_URL": api_url,
            "GEMINI_MODEL": model,
            "GEMINI_SYSTEM_MD": str(self._system_prompt),
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
            # Without it node starts itself a second time, and SIGTERM does not reach the child.
            "GEMINI_CLI_NO_RELAUNCH": "true",
            "OTEL_SDK_DISABLED": "true",
            # Left to itself node grows to three times what it needs before it looks for garbage.
            "NODE_OPTIONS": f"--max-old-space-size={HEAP_LIMIT}",
            "NO_COLOR": "1",
            "LANG": "C.UTF-8",
        }
