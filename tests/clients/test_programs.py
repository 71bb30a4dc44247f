"""Real programs, configured as docs/clients.md says, while the stand-in plays the model."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from testing.google import scenarios
from testing.google.recorded_request import ReceivedRequest
from testing.google.scenarios import Scenario
from testing.processes import Running, free_port
from tests.clients import repository
from tests.clients.clients import (
    AIDER,
    CLAUDE,
    CODEX,
    INSTALLED,
    OPENCODE,
    QWEN,
    SILLYTAVERN,
    Program,
)
from tests.clients.conversation import environ
from tests.clients.page import MODEL, configuration, environment
from tests.support import Product

pytestmark = pytest.mark.program

PROMPT = "Mend add in calc.py"
LAST_WORDS = "It is mended."
CHECK = "python3 -c 'import calc; print(calc.add(20, 22))'"
SUM = "42"


@frozen
class Session:
    """
    @ivar command: the program in C{node_modules/.bin} and its arguments.
    @ivar calls: the functions that the stand-in calls, told the path of the file; one a turn.
    @ivar configured: puts the page's configuration into a home; says what the environment needs.
    """

    program: Program
    command: Sequence[str]
    calls: Callable[[str], Sequence[tuple[str, dict[str, Any]]]]
    configured: Callable[[Path, int], dict[str, str]]


def codex_home(home: Path, port: int) -> dict[str, str]:
    (home / ".codex").mkdir()
    (home / ".codex" / "config.toml").write_text(configuration(CODEX.name, "toml", port))
    return {}


def opencode_home(home: Path, port: int) -> dict[str, str]:
    folder = home / ".config" / "opencode"
    folder.mkdir(parents=True)
    (folder / "opencode.json").write_text(configuration(OPENCODE.name, "json", port))
    off = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS")
    return {f"OPENCODE_DISABLE_{name}": "1" for name in off}


def qwen_home(home: Path, port: int) -> dict[str, str]:
    # It does not know NO_PROXY, but it has these settings.
    (home / ".qwen").mkdir()
    settings = {
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
    }
    (home / ".qwen" / "settings.json").write_text(json.dumps(settings))
    return environment(QWEN.name, port) | {"HTTP_PROXY": "", "HTTPS_PROXY": ""}


SESSIONS = (
    Session(
        CODEX,
        ["codex", "exec", "--dangerously-bypass-approvals-and-sandbox", PROMPT],
        lambda path: [
            ("exec_command", {"cmd": f"cat {path}"}),
            ("exec_command", {"cmd": f"sed -i 's/a - b/a + b/' {path}"}),
            ("exec_command", {"cmd": CHECK}),
        ],
        codex_home,
    ),
    Session(
        CLAUDE,
        ["claude", "-p", PROMPT, "--permission-mode", "acceptEdits", "--allowedTools", "Bash"],
        lambda path: [
            ("Read", {"file_path": path}),
            ("Edit", {"file_path": path, "old_string": "a - b", "new_string": "a + b"}),
            ("Bash", {"command": CHECK}),
        ],
        lambda home, port: environment(CLAUDE.name, port),
    ),
    Session(
        OPENCODE,
        ["opencode", "run", PROMPT],
        lambda path: [
            ("read", {"filePath": path}),
            ("edit", {"filePath": path, "oldString": "a - b", "newString": "a + b"}),
            ("bash", {"command": CHECK, "description": "Try it"}),
        ],
        opencode_home,
    ),
    Session(
        QWEN,
        ["qwen", "--auth-type", "openai", "--yolo", PROMPT],
        lambda path: [
            ("read_file", {"file_path": path}),
            ("edit", {"file_path": path, "old_string": "a - b", "new_string": "a + b"}),
            ("run_shell_command", {"command": CHECK, "is_background": False}),
        ],
        qwen_home,
    ),
)


def skip_if_missing(program: Program) -> None:
    """What cannot be installed is skipped, with the reason."""
    place = INSTALLED / program.place
    if program.place == "programs":
        if not (place / "node_modules" / program.package).exists():
            pytest.skip(f"npm could not install {program.package}, and left it out")
    elif not (place / "installed").exists():
        log = place.with_suffix(".log")
        pytest.skip(log.read_text() if log.exists() else f"{program.package} is not installed")


def played(turns: Iterator[Scenario]) -> Callable[[ReceivedRequest], Scenario]:
    """A model that takes its turns; what asks it without functions, as for a title, gets JSON."""

    def choose(request: ReceivedRequest) -> Scenario:
        if not request.functions:
            return scenarios.answer('{"title": "Mend calc"}')
        return next(turns, scenarios.answer(LAST_WORDS))

    return choose


def results(asked: Iterable[ReceivedRequest]) -> list[str]:
    """What the functions gave, as Google was told in the last request."""
    [*_, last] = [request for request in asked if request.functions]
    parts = [part for content in last.contents for part in content["parts"]]
    return [json.dumps(part["functionResponse"]) for part in parts if "functionResponse" in part]


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.program.name)
@ensureDeferred
async def test_an_agent_mends_a_file(
    session: Session,
    product: Product,
    port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    skip_if_missing(session.program)
    home = tmp_path / "home"
    home.mkdir()
    file = repository.make_repository(tmp_path / "repository")
    turns = [scenarios.calls(call) for call in session.calls(str(file))]
    monkeypatch.setattr(product.api, "chooser", played(iter(turns)))
    env = environ(home) | session.configured(home, port)
    command = [INSTALLED / "programs" / "node_modules" / ".bin" / session.command[0]]
    ended = await deferToThread(repository.run, [*command, *session.command[1:]], file.parent, env)
    assert (ended.status, file.read_text()) == (0, repository.MENDED), ended.output
    assert LAST_WORDS in ended.output
    read, _, ran = results(product.asked)
    assert "return a - b" in read
    assert SUM in ran


@ensureDeferred
async def test_aider_edits_and_commits(
    product: Product, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    skip_if_missing(AIDER)
    home = tmp_path / "home"
    home.mkdir()
    file = repository.make_repository(tmp_path / "repository")
    edit = "<<<<<<< SEARCH\n    return a - b\n=======\n    return a + b\n>>>>>>> REPLACE"
    answer = scenarios.answer("calc.py\n```python\n", edit, "\n```\n")
    monkeypatch.setattr(product.api, "chooser", lambda request: answer)
    env = environ(home) | environment(AIDER.name, port)
    options = [
        "--yes-always",
        "--no-check-update",
        "--analytics-disable",
        "--no-show-model-warnings",
    ]
    command = [INSTALLED / "aider" / "bin" / "aider", *options, "--message", PROMPT, "calc.py"]
    ended = await deferToThread(repository.run, command, file.parent, env)
    assert (ended.status, file.read_text()) == (0, repository.MENDED), ended.output
    assert repository.commits(file.parent) > 1


def post(port: int, path: str, body: Any) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/backends/chat-completions/{path}",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        return bytes(response.read())


@ensureDeferred
async def test_sillytavern_connects_and_streams(product: Product, port: int, tmp_path: Path):
    """Its own server asks, as it is told by the page that runs in the browser."""
    skip_if_missing(SILLYTAVERN)
    own = free_port()
    home = tmp_path / "home"
    place = INSTALLED / "programs" / "node_modules" / "sillytavern"
    command = ["node", "server.js", "--port", str(own), "--disableCsrf", "true"]
    command += ["--browserLaunchEnabled", "false", "--configPath", str(tmp_path / "config.yaml")]
    command += ["--dataRoot", str(tmp_path / "data")]
    url = configuration(SILLYTAVERN.name, "text", port).strip()
    source = {"chat_completion_source": "custom", "custom_url": url}
    asking = source | {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "temperature": 1,
        "max_tokens": 300,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_p": 1,
    }

    def use() -> tuple[Any, str]:
        running = Running.start(command, place, environ(home), log=tmp_path / "output.txt")
        try:
            running.until_listening(own)
            models = json.loads(post(own, "status", source))
            return models, post(own, "generate", asking).decode()
        finally:
            running.stop()

    product.api.play(scenarios.answer("Hi ", "there."))
    models, stream = await deferToThread(use)
    assert "gemini-2.5-pro" in [model["id"] for model in models["data"]]
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    assert (
        "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        == "Hi there."
    )
    [request] = product.asked
    assert request.texts == [("user", "Hello")]
