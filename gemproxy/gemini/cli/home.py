"""The private directory of a CLI worker: its settings and its environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from attrs import field, frozen

from gemproxy.chat.jsontext import dumps
from gemproxy.gemini.cli.install import Cli
from gemproxy.gemini.cli.sizes import MIB

# Turns the coding agent into a plain chat model; each setting has an effect with 0.61.0.
_SETTINGS: dict[str, Any] = {
    "security": {
        # A server between the CLI and the API, whose address Worker.start tells. It needs no key.
        "auth": {"selectedType": "gateway"},
        "folderTrust": {"enabled": False},
    },
    "general": {
        "enableAutoUpdate": False,
        "enableAutoUpdateNotification": False,
        # gemproxy retries by itself: the CLI would repeat a response that is partly sent.
        "maxAttempts": 1,
        "topicUpdateNarration": False,
        "plan": {"enabled": False},
        "sessionRetention": {"enabled": False},
    },
    "privacy": {"usageStatisticsEnabled": False},
    # The CLI keeps its events, with the text of the request, in case telemetry is turned on. That
    # costs memory, of which a worker is replaced in time. With telemetry, even to nowhere, it
    # composes them and reads two files for each of 18: a quarter of the CPU of a prompt.
    "telemetry": {"enabled": False, "logPrompts": False},
    "ide": {"enabled": False},
    # An allowlist without any tool: no built-in tool is declared or can run.
    "tools": {"core": ["none"], "useRipgrep": False},
    "context": {
        "includeDirectoryTree": False,
        "fileName": ["NO_SUCH_CONTEXT.md"],
        "discoveryMaxDirs": 0,
    },
    "model": {
        "disableLoopDetection": True,
        "skipNextSpeakerCheck": True,
        # With the default of 0.5 a long history is rewritten silently.
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

    @ivar root: the directory that contains all files of the worker, mode 0700.
    """

    root: Path
    # What a worker cannot do without, which is looked for with each prompt.
    _vital: tuple[str, ...] = field(init=False, repr=False)

    @_vital.default
    def _find_vital(self) -> tuple[str, ...]:
        return str(self._settings), str(self._system_prompt)

    @property
    def cwd(self) -> Path:
        """The empty directory that the CLI uses as the user's project."""
        return self.root / "work"

    @property
    def chats(self) -> Path:
        """The directory in which the CLI stores the sessions of the project."""
        return self.root / ".gemini" / "tmp" / self.cwd.name / "chats"

    @property
    def temp(self) -> Path:
        return self.root / "tmp"

    @property
    def is_whole(self) -> bool:
        """
        Whether all files still exist. The CLI reads its settings for each session, and without them
        it acts as a coding agent.
        """
        # False for a file system that does not answer, where Path.exists raises OSError.
        return all(map(os.path.exists, self._vital))

    @property
    def _settings(self) -> Path:
        return self.root / ".gemini" / "settings.json"

    @property
    def _system_prompt(self) -> Path:
        return self.root / "system.md"

    def create(self) -> None:
        """@raise OSError: the directory cannot be created, or it exists."""
        self.root.mkdir(mode=0o700)
        for folder in (self.cwd, self.temp):
            folder.mkdir(mode=0o700)
        self.chats.mkdir(mode=0o700, parents=True)
        self._settings.write_bytes(dumps(_SETTINGS))
        # Replaces the CLI's system prompt of 23 kB. The gateway removes it from requests anyway.
        self._system_prompt.write_text(" ")

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def environment(self, cli: Cli, model: str, api_url: str, heap: int) -> dict[str, str]:
        """
        The environment of the worker. It has no API key: the gateway at C{api_url} adds it.

        @param model: any concrete model; with "auto" the CLI queries a classifier model first.
        @param heap: the maximum size of the worker's heap in bytes. It is 100 MB at the start and
            grows by 1 MB with each used-up session.
        """
        cache = {} if cli.compile_cache is None else {"NODE_COMPILE_CACHE": cli.compile_cache}
        return cache | {
            "PATH": cli.path,
            "HOME": str(self.root),
            "GEMINI_CLI_HOME": str(self.root),
            "TMPDIR": str(self.temp),
            # Told by ACP as well. Without it, a CLI that took no notice would ask Google.
            "GOOGLE_GEMINI_BASE_URL": api_url,
            "GEMINI_MODEL": model,
            "GEMINI_SYSTEM_MD": str(self._system_prompt),
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
            # Without it, node starts a child process, which SIGTERM does not reach.
            "GEMINI_CLI_NO_RELAUNCH": "true",
            # In case the system's settings turn telemetry on.
            "OTEL_SDK_DISABLED": "true",
            # Without a limit, node grows to three times the memory it needs before it collects
            # garbage. More threads than one to compile and collect hold each other up.
            "NODE_OPTIONS": f"--max-old-space-size={heap // MIB} --v8-pool-size=1",
            "NO_COLOR": "1",
            "LANG": "C.UTF-8",
        }
