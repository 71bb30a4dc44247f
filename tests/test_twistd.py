"""gemproxy as a process, started as its users do: with twistd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from gemproxy import __version__
from gemproxy.config import SETTINGS
from gemproxy.gemini.translate.models import BUILT_IN_MODELS
from testing.processes import free_port, processes_at_home_in
from tests.support import CLI, ROOT

pytestmark = pytest.mark.cli

TWISTD = str(Path(sys.executable).with_name("twistd"))
# The CLI as it is after `npm ci`, and nothing of the environment of whoever runs the tests.
PATH = f"{ROOT / 'node_modules' / '.bin'}:{os.environ['PATH']}"


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"gave up waiting until {what}"
        time.sleep(0.02)


def twistd(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a start that is not to succeed."""
    return subprocess.run(
        [TWISTD, "-n", "--pidfile=", "gemproxy", *arguments],
        cwd=folder,
        env={"PATH": PATH} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line that says it all, and exit status 1."""
    assert result.returncode == 1
    said = (result.stdout + result.stderr).strip()
    assert "\n" not in said
    for word in words:
        assert word in said


@define
class Daemon:
    """A running daemon: its process, its port, and where its run directory lies."""

    process: subprocess.Popen[bytes]
    port: int
    runs: Path
    log: Path

    def get(self, path: str, body: Any = None) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port}{path}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(url, data, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False

    def workers(self) -> list[int]:
        own = self.runs.glob(f"{self.process.pid}-*")
        return [pid for run in own for pid in processes_at_home_in(run)]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def started(folder: Path, *arguments: str, **environ: str) -> Iterator[Daemon]:
    """A daemon in the foreground; its last run directories lie in the folder as well."""
    port = free_port()
    ports = {"PORT": str(port), "STREAM_PORT": str(free_port())}
    log = folder / "out"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [TWISTD, "-n", "--pidfile=", "gemproxy", *arguments],
            cwd=folder,
            env={"PATH": PATH, "XDG_RUNTIME_DIR": str(folder)} | ports | environ,
            stdout=output,
            stderr=output,
        )
    daemon = Daemon(process, port, folder / "gemproxy", log)
    try:
        until(daemon.is_healthy, "it is healthy")
        yield daemon
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        until(lambda: not daemon.workers(), "the CLI processes are gone")


# Starts that are refused


def test_a_missing_key_is_one_line_that_names_it_and_the_demo(tmp_path: Path) -> None:
    assert_refused(twistd(tmp_path), "GEMINI_API_KEY", "--demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "70000", "65535"),
        ("STREAM_PORT", "x", "off"),
        ("TIMEOUT", "-1", "seconds"),
        ("RETRY_DELAY", "1,5", "seconds"),
        ("MAX_RETRIES", "many", "whole number"),
        ("GOOGLE_GEMINI_BASE_URL", "example.com", "http://"),
        ("GEMINI_MODELS", "a b", "letters"),
        ("GEMINI_WORKERS", "0", "1"),
        ("DEBUG", "maybe", "true or false"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_allowed(
    tmp_path: Path, name: str, value: str, allowed: str
) -> None:
    assert_refused(twistd(tmp_path, "--demo", **{name: value}), name, repr(value), allowed)


def test_an_option_wins_over_its_variable(tmp_path: Path) -> None:
    result = twistd(tmp_path, "--demo", "--port=x", PORT="70000")
    assert_refused(result, "PORT", "'x'")


def test_a_key_is_not_repeated_in_a_message(tmp_path: Path) -> None:
    result = twistd(tmp_path, GEMINI_API_KEY="sec ret")
    assert_refused(result, "GEMINI_API_KEY")
    assert "sec" not in result.stdout + result.stderr.replace("seconds", "")


def test_an_option_that_is_none_is_named(tmp_path: Path) -> None:
    assert_refused(twistd(tmp_path, "--demo", "--nonsense"), "--nonsense", "--help")


def test_a_key_s_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = twistd(tmp_path, GEMINI_API_KEY_FILE=str(tmp_path / "key"))
    assert_refused(result, "GEMINI_API_KEY_FILE", "No such file")


def test_a_missing_cli_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    result = twistd(tmp_path, "--demo", PATH=os.environ["PATH"], GEMINI_CLI="gemini-nowhere")
    assert_refused(result, "gemini-nowhere", "npm install -g @google/gemini-cli@0.61.0")


def fake_node(folder: Path, says: str) -> str:
    script = folder / "node"
    script.write_text(f"#!/bin/sh\n{says}\n")
    script.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("echo v18.20.8", "`node` is v18.20.8"),
        ("exit 5", "`node --version` failed"),
        ("echo nonsense", "nonsense"),
    ],
)
def test_a_node_that_does_not_do_is_said_with_what_mends_it(
    tmp_path: Path, says: str, words: str
) -> None:
    path = f"{fake_node(tmp_path, says)}:{PATH}"
    assert_refused(twistd(tmp_path, "--demo", PATH=path), words, "Node 20 or later")


def test_a_missing_node_is_said_with_what_mends_it(tmp_path: Path) -> None:
    result = twistd(tmp_path, "--demo", PATH=str(tmp_path), GEMINI_CLI=CLI)
    assert_refused(result, "no `node` was found", "Node 20 or later")


def test_a_busy_port_ends_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        result = twistd(tmp_path, "--demo", PORT=port, XDG_RUNTIME_DIR=str(tmp_path))
    assert result.returncode == 1
    [said] = [line for line in result.stdout.splitlines() if "gemproxy: " in line]
    assert port in said
    assert "in use" in said
    assert "Traceback" not in result.stdout + result.stderr
    runs = tmp_path / "gemproxy"
    assert processes_at_home_in(runs) == []
    assert list(runs.glob("*")) == []


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/nowhere/at/all", "n" * 300])
def test_a_folder_that_cannot_be_is_said_at_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    result = twistd(tmp_path, "--demo", "--port=0", LOG_DIR=name, XDG_RUNTIME_DIR=str(tmp_path))
    assert result.returncode == 1
    [said] = [line for line in result.stdout.splitlines() if "gemproxy: " in line]
    assert "(LOG_DIR): " in said
    assert "Traceback" not in result.stdout + result.stderr
    assert list((tmp_path / "gemproxy").glob("*")) == []


# Help


def test_help_explains_every_option(tmp_path: Path) -> None:
    result = twistd(tmp_path, "--help")
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    for setting in SETTINGS:
        assert f"--{setting.option}" in text
        assert f"[{setting.env}" in text
    for option in ("--demo", "--version", "--help"):
        assert option in text


def test_version_is_gemproxy_s(tmp_path: Path) -> None:
    result = twistd(tmp_path, "--version")
    assert (result.returncode, result.stdout) == (0, f"gemproxy {__version__}\n")


def test_twistd_knows_the_plugin_in_any_folder(tmp_path: Path) -> None:
    result = subprocess.run(
        [TWISTD, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert " gemproxy " in result.stdout


# A life


def ask(daemon: Daemon, text: str, **fields: Any) -> tuple[int, str]:
    message = {"role": "user", "content": text}
    body = {"model": "gemini-2.5-flash", "messages": [message]} | fields
    return daemon.get("/v1/chat/completions", body)


def test_the_demo_serves_without_a_key_and_stops_without_a_trace(tmp_path: Path) -> None:
    with started(tmp_path, "--demo") as daemon:
        status, body = ask(daemon, "What is up?")
        answer = json.loads(body)["choices"][0]["message"]["content"]
        assert status == 200
        assert "demo" in answer
        assert answer.endswith("What is up?")
        status, body = ask(daemon, "What is up?", stream=True)
        assert status == 200
        assert body.endswith("data: [DONE]\n\n")
        status, body = daemon.get("/v1/models")
        assert [model["id"] for model in json.loads(body)["data"]] == list(BUILT_IN_MODELS)
        (run,) = daemon.runs.iterdir()
        assert run.stat().st_mode & 0o777 == 0o700
        workers = daemon.workers()
        assert workers
        groups = {os.getpgid(pid) for pid in workers}
        assert os.getpgid(daemon.process.pid) not in groups

        assert daemon.stop() in (0, -signal.SIGTERM)
        assert daemon.workers() == []
        assert list(daemon.runs.iterdir()) == []


def test_a_worker_sees_neither_keys_nor_the_daemon_s_environment(tmp_path: Path) -> None:
    secrets = {"GEMINI_API_KEY": "s3cret-key", "FIXED_API_KEY": "s3cret-too", "SOMETHING": "s3cret"}
    with started(tmp_path, "--admin-key", "s3cret-admin", **secrets) as daemon:
        assert "--admin-key" in daemon.log.read_text()
        for pid in daemon.workers():
            assert b"s3cret" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert b"s3cret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert "s3cret" not in daemon.log.read_text()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes()


def test_a_daemon_that_is_killed_leaves_nothing_that_the_next_one_does_not_clear(
    tmp_path: Path,
) -> None:
    with started(tmp_path, "--demo") as daemon:
        # Not even a CLI that does nothing any more stays.
        for pid in daemon.workers():
            os.kill(pid, signal.SIGSTOP)
        assert daemon.workers()
        daemon.process.kill()
        daemon.process.wait()
        until(lambda: not daemon.workers(), "the CLI processes are gone", seconds=5)
        (left,) = daemon.runs.iterdir()
    with started(tmp_path, "--demo") as daemon:
        (run,) = daemon.runs.iterdir()
        assert run != left
        assert ask(daemon, "Hello")[0] == 200
        daemon.stop()
        assert list(daemon.runs.iterdir()) == []


def test_two_daemons_leave_each_other_alone(tmp_path: Path) -> None:
    with started(tmp_path, "--demo") as first:
        workers = first.workers()
        with started(tmp_path, "--demo") as second:
            assert second.workers()
            second.stop()
        assert first.workers() == workers
        assert ask(first, "Hello")[0] == 200


def test_it_runs_in_the_background_too(tmp_path: Path) -> None:
    port = free_port()
    subprocess.run(
        [TWISTD, "gemproxy", "--demo", f"--port={port}", "--stream-port=off"],
        cwd=tmp_path,
        env={"PATH": PATH, "XDG_RUNTIME_DIR": str(tmp_path)},
        check=True,
        timeout=60,
    )
    pidfile, log = tmp_path / "twistd.pid", tmp_path / "twistd.log"
    pid = int(pidfile.read_text())

    def is_healthy() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as reply:
                return reply.status == 200
        except OSError:
            return False

    try:
        until(is_healthy, "it is healthy")
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not pidfile.exists(), "it has ended")
    assert "is running" in log.read_text()
    until(lambda: not processes_at_home_in(tmp_path / "gemproxy"), "the CLI processes are gone")
    assert list((tmp_path / "gemproxy").iterdir()) == []
