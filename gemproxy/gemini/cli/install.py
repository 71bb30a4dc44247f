"""Finds the installed Gemini CLI and checks its Node version."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from attrs import frozen

PINNED_VERSION = "0.61.0"
NODE_MAJOR = 20

PACKAGE = "@google/gemini-cli"
INSTALL_CLI = f"npm install -g {PACKAGE}@{PINNED_VERSION}"
_WITHOUT = "do without it with GEMINI_ENGINE=direct"


class CliUnusable(Exception):
    """
    The CLI cannot be run.

    @ivar problem: why.
    @ivar mend: what mends it, with the command.
    """

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem}; {mend}.")
        self.problem = problem
        self.mend = mend


@frozen
class Cli:
    """
    @ivar executable: the absolute path of the CLI's executable.
    @ivar path: the PATH that contains its node.
    @ivar compile_cache: the folder in which Node keeps compiled code; None for none.
    """

    executable: str
    path: str
    compile_cache: str | None = None


def find_cli(name: str, environ: Mapping[str, str]) -> Cli:
    """
    @param name: the GEMINI_CLI setting.
    @raise CliUnusable: the executable was not found, or node is missing or too old.
    """
    path = path_of(environ)
    executable = find_executable(name, path)
    node_version(path)
    cache = environ.get("NODE_COMPILE_CACHE")
    return Cli(executable, path, str(Path(cache).absolute()) if cache else None)


def path_of(environ: Mapping[str, str]) -> str:
    """Where executables are searched."""
    return environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")


def find_executable(name: str, path: str) -> str:
    """
    The absolute path of the CLI's executable.

    @raise CliUnusable: there is none.
    """
    executable = shutil.which(name, path=path)
    if executable is None:
        raise CliUnusable(
            f"GEMINI_CLI: no executable {name!r} was found",
            f"install the Gemini CLI with `{INSTALL_CLI}`, or point GEMINI_CLI at it, "
            f"or {_WITHOUT}",
        )
    return str(Path(executable).absolute())


def node_version(path: str, patience: float = 20) -> str:
    """
    The version of the node on a PATH.

    @param patience: seconds for it to tell.
    @raise CliUnusable: it is missing, does not run, or is too old.
    """
    mend = (
        f"install Node {NODE_MAJOR} or later, for example with `nvm install {NODE_MAJOR}`, "
        f"or {_WITHOUT}"
    )
    node = shutil.which("node", path=path)
    if node is None:
        raise CliUnusable("The Gemini CLI needs Node, and no `node` was found on PATH", mend)
    try:
        shown = subprocess.run(  # noqa: S603 - found on PATH
            [node, "--version"], capture_output=True, timeout=patience, check=True
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError) as error:
        raise CliUnusable(f"`node --version` failed ({error})", mend) from None
    shown = " ".join(shown.split())[:80]
    version = re.match(r"v(\d+)\.", shown)
    if version is None or int(version[1]) < NODE_MAJOR:
        raise CliUnusable(
            f"The Gemini CLI needs Node {NODE_MAJOR} or later, but `node` is {shown}", mend
        )
    return shown.removeprefix("v")


def installed_version(executable: str) -> str | None:
    """
    The version of the package that an executable of the CLI belongs to, as npm installs it; None if
    it belongs to none.
    """
    for folder in Path(executable).resolve().parents:
        with suppress(OSError, ValueError):
            package = json.loads((folder / "package.json").read_bytes())
            if isinstance(package, dict) and package.get("name") == PACKAGE:
                return str(package.get("version"))
    return None
