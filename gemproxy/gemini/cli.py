"""The Gemini CLI as a program: finding it, and what a worker of it is started with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from gemproxy.chat.jsontext import dumps

PINNED_VERSION = "0.61.0"
NODE_MAJOR = 20
# MB of a worker's objects. They take 100 at the beginning, and 1 more with each session that was
# used up.
HEAP_LIMIT = 512

_INSTALL_CLI = f"npm install -g @google/gemini-cli@{PINNED_VERSION}"


class CliUnusable(Exception):
    """The CLI cannot be run; the message is a sentence with the command that mends it."""


@frozen
class Cli:
    """
    @ivar executable: absolute path of the CLI's executable.
    @ivar path: the PATH on which it finds its node.
    """

    executable: str
    path: str


def find_cli(name: str, environ: Mapping[str, str]) -> Cli:
    """
    @param name: the GEMINI_CLI setting.
    @raise CliUnusable: no such executable, or no node that is new enough.
    """
    path = environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    executable = shutil.which(name, path=path)
    if executable is None:
        raise CliUnusable(
            f"GEMINI_CLI: no executable {name!r} was found; "
            f"install the Gemini CLI with `{_INSTALL_CLI}` or point GEMINI_CLI at it."
        )
    _check_node(path)
    return Cli(str(Path(executable).absolute()), path)


def _check_node(path: str) -> None:
    mend = f"install Node {NODE_MAJOR} or later, for example with `nvm install {NODE_MAJOR}`."
    node = shutil.which("node", path=path)
    if node is None:
        raise CliUnusable(f"The Gemini CLI needs Node, and no `node` was found on PATH; {mend}")
    try:
        shown = subprocess.run(  # noqa: S603
            [node, "--version"], capture_output=True, timeout=20, check=True
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError) as error:
        raise CliUnusable(f"`node --version` failed ({error}); {mend}") from None
    shown = " ".join(shown.split())[:80]
    version = re.match(r"v(\d+)\.", shown)
    if version is None or int(version[1]) < NODE_MAJOR:
        raise CliUnusable(
            f"The Gemini CLI needs Node {NODE_MAJOR} or later, this is {shown}; {mend}"
        )


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
