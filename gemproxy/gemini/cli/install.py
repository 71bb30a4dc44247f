"""Finds the installed Gemini CLI and checks its Node version."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

PINNED_VERSION = "0.61.0"
NODE_MAJOR = 20

_INSTALL_CLI = f"npm install -g @google/gemini-cli@{PINNED_VERSION}"


class CliUnusable(Exception):
    """The CLI cannot be run; the message contains the command that fixes it."""


@frozen
class Cli:
    """
    @ivar executable: the absolute path of the CLI's executable.
    @ivar path: the PATH that contains its node.
    """

    executable: str
    path: str


def find_cli(name: str, environ: Mapping[str, str]) -> Cli:
    """
    @param name: the GEMINI_CLI setting.
    @raise CliUnusable: the executable was not found, or node is missing or too old.
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
        shown = subprocess.run(  # noqa: S603 - found on PATH
            [node, "--version"], capture_output=True, timeout=20, check=True
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError) as error:
        raise CliUnusable(f"`node --version` failed ({error}); {mend}") from None
    shown = " ".join(shown.split())[:80]
    version = re.match(r"v(\d+)\.", shown)
    if version is None or int(version[1]) < NODE_MAJOR:
        raise CliUnusable(
            f"The Gemini CLI needs Node {NODE_MAJOR} or later, but `node` is {shown}; {mend}"
        )
