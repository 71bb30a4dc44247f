"""Finding the CLI, and what a worker of it is started with."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gemproxy.gemini.cli.home import WorkerHome
from gemproxy.gemini.cli.install import PINNED_VERSION, Cli, CliUnusable, find_cli


def executable(path: Path, script: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(mode)
    return path


def node(folder: Path, script: str = "echo v20.1.0") -> Path:
    return executable(folder / "node", f"#!/bin/sh\n{script}\n")


def found(folder: Path, name: str = "gemini") -> Cli:
    return find_cli(name, {"PATH": str(folder)})


def complaint(folder: Path, name: str = "gemini") -> str:
    with pytest.raises(CliUnusable) as caught:
        found(folder, name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 400 + 2 * len(str(folder))
    return message


@pytest.fixture(params=["bin", "a folder"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The only one on PATH."""
    (tmp_path / request.param).mkdir()
    return tmp_path / request.param


def test_it_is_found_on_the_path(folder: Path):
    node(folder)
    gemini = executable(folder / "gemini")
    assert found(folder) == Cli(str(gemini), str(folder))


def test_the_first_on_the_path_is_taken(tmp_path: Path):
    folders = [tmp_path / "a", tmp_path / "b"]
    executables = [executable(folder / "gemini") for folder in folders]
    node(folders[1])
    path = os.pathsep.join(map(str, folders))
    assert find_cli("gemini", {"PATH": path}) == Cli(str(executables[0]), path)
    cached = find_cli("gemini", {"PATH": path, "NODE_COMPILE_CACHE": "cache"})
    assert cached.compile_cache == str(Path("cache").absolute())


def test_it_may_be_named_by_its_path(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    node(folder)
    gemini = executable(tmp_path / "elsewhere" / "my gemini")
    assert found(folder, str(gemini)).executable == str(gemini)
    monkeypatch.chdir(tmp_path)
    assert found(folder, "elsewhere/my gemini").executable == str(gemini)


@pytest.mark.parametrize("name", ["gemini", "/nowhere/gemini", ".", "gem\nini"])
def test_a_missing_cli_comes_with_the_command_that_installs_it(folder: Path, name: str):
    node(folder)
    message = complaint(folder, name)
    assert message.startswith("GEMINI_CLI: ")
    assert repr(name) in message
    assert f"npm install -g @google/gemini-cli@{PINNED_VERSION}" in message


def test_a_file_that_is_not_executable_is_not_a_cli(folder: Path):
    node(folder)
    executable(folder / "gemini", mode=0o644)
    assert complaint(folder).startswith("GEMINI_CLI: ")


def test_without_a_path_the_usual_folders_are_searched(tmp_path: Path):
    with pytest.raises(CliUnusable, match="no-such-gemini"):
        find_cli("no-such-gemini", {})


def test_a_missing_node_comes_with_the_command_that_installs_it(folder: Path):
    executable(folder / "gemini")
    message = complaint(folder)
    assert "no `node` was found" in message
    assert "nvm install 20" in message


@pytest.mark.parametrize("version", ["v20.0.0", "v20.1.0-pre", "v22.3.1", "v100.0.0"])
def test_node_may_be_new(folder: Path, version: str):
    executable(folder / "gemini")
    node(folder, f"echo {version}")
    assert found(folder).path == str(folder)


@pytest.mark.parametrize(
    "shown",
    ["v18.20.4", "v19.9.9", "v2.0.0", "20.1.0", "hello", r"a\nb", r"\377", "v20", "v\u0664."],
)
def test_an_old_or_strange_node_is_refused(folder: Path, shown: str):
    executable(folder / "gemini")
    node(folder, f"printf '{shown}\\n'")
    message = complaint(folder)
    assert "needs Node 20 or later, but `node` is " in message
    assert "nvm install 20" in message


def test_a_node_that_talks_and_talks_is_not_quoted_whole(folder: Path):
    executable(folder / "gemini")
    node(folder, f"echo {'x' * 10_000}")
    complaint(folder)


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 3\n", "#!/no/such/shell\n", "no script"])
def test_a_node_that_does_not_run_is_refused(folder: Path, script: str):
    executable(folder / "gemini")
    executable(folder / "node", script)
    message = complaint(folder)
    assert message.startswith("`node --version` failed (")
    assert "nvm install 20" in message


# --- The home of a worker.


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o000, 0o077])
def home(tmp_path: Path, request: pytest.FixtureRequest) -> WorkerHome:
    home = WorkerHome(tmp_path / "worker-1")
    before = os.umask(request.param)
    try:
        home.create()
    finally:
        os.umask(before)
    return home


def test_a_home_is_private(home: WorkerHome):
    for path in (home.root, home.cwd, home.temp, home.chats):
        assert path.is_dir()
        assert mode(path) == 0o700
        assert path.is_relative_to(home.root)


def test_sessions_lie_where_the_cli_looks_for_them(home: WorkerHome):
    assert home.chats == home.root / ".gemini" / "tmp" / home.cwd.name / "chats"
    assert list(home.cwd.iterdir()) == []


def test_the_settings_make_a_chat_model_of_it(home: WorkerHome):
    settings = json.loads((home.root / ".gemini" / "settings.json").read_bytes())
    assert settings["security"]["auth"]["selectedType"] == "gateway"
    assert settings["general"]["maxAttempts"] == 1
    assert settings["tools"]["core"] == ["none"]
    assert settings["model"]["compressionThreshold"] == 1.0
    assert settings["privacy"]["usageStatisticsEnabled"] is False


def test_a_home_is_never_shared(home: WorkerHome):
    with pytest.raises(FileExistsError):
        home.create()


def test_a_home_is_removed_with_all_that_is_in_it(home: WorkerHome):
    (home.temp / "left").write_text("x")
    home.remove()
    assert not home.root.exists()
    home.remove()


def test_a_worker_sees_what_it_needs_and_nothing_else(
    home: WorkerHome, monkeypatch: pytest.MonkeyPatch
):
    for name in ("GEMINI_API_KEY", "FIXED_API_KEY", "GOOGLE_API_KEY", "ANYTHING"):
        monkeypatch.setenv(name, "hush")
    heap = 512 * 1024 * 1024
    cli = Cli("gemini", "/usr/bin", "/cache")
    environment = home.environment(cli, "gemini-x", "http://127.0.0.1:1/x", heap)
    assert "hush" not in str(environment)
    assert environment == {
        "PATH": "/usr/bin",
        "HOME": str(home.root),
        "GEMINI_CLI_HOME": str(home.root),
        "TMPDIR": str(home.temp),
        "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:1/x",
        "GEMINI_MODEL": "gemini-x",
        "GEMINI_SYSTEM_MD": str(home.root / "system.md"),
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        "GEMINI_CLI_NO_RELAUNCH": "true",
        "OTEL_SDK_DISABLED": "true",
        "NODE_COMPILE_CACHE": "/cache",
        "NODE_OPTIONS": "--max-old-space-size=512 --v8-pool-size=1",
        "NO_COLOR": "1",
        "LANG": "C.UTF-8",
    }


def test_the_system_prompt_of_the_cli_is_replaced(home: WorkerHome):
    environment = home.environment(Cli("", ""), "", "", 1)
    assert Path(environment["GEMINI_SYSTEM_MD"]).read_text().strip() == ""
    assert "NODE_COMPILE_CACHE" not in environment
