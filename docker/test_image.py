"""
The image and the compose files, built and run as their users do: C{make image}.

The containers talk to stand-ins for Google's API and New-API on this machine. Where no registry of
images can be reached, the image is built from stand-ins for its base images.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from testing.processes import free_port

ROOT = Path(__file__).parent.parent
IMAGE = "gemproxy"
PROJECT = "gemproxy-check"
COMPOSE = ("docker-compose.yml", "docker-compose.two.yml")
MODEL, OTHER_MODEL = "gemini-2.5-flash", "other-model"
# Longer than any container may take to stop.
ENDLESS = 60.0


def docker(*arguments: str | Path, cwd: Path = ROOT, **environ: str) -> str:
    """What a docker command prints; it has to succeed."""
    result = attempt(*arguments, cwd=cwd, **environ)
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout.strip()


def attempt(
    *arguments: str | Path, cwd: Path = ROOT, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments],
        cwd=cwd,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def until(condition: Any, what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"gave up waiting until {what}"
        time.sleep(0.1)


# --- What the containers talk to.


@pytest.fixture(scope="session")
def address() -> str:
    """That of this machine, as containers reach it."""
    inspected = json.loads(docker("network", "inspect", "bridge"))
    gateway = inspected[0]["IPAM"]["Config"][0]["Gateway"]
    assert isinstance(gateway, str)
    return gateway


@pytest.fixture(scope="session")
def google(address: str) -> Iterator[str]:
    """A stand-in for Google's API, by the name that containers have for this machine."""
    command = [sys.executable, "-m", "testing.google", "--host", address]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        yield url.replace(address, "host.docker.internal")
        process.terminate()


class _NewApi(BaseHTTPRequestHandler):
    """Streams one chunk, and then nothing more if the message is C{endless}."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers["Authorization"])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        delta = {"role": "assistant", "content": "Hello from New-API"}
        self._send(choices=[{"index": 0, "delta": delta, "finish_reason": None}])
        if body["messages"][-1]["content"] == "endless":
            self.server.stopping.wait(ENDLESS)
        self._send(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, **more: Any) -> None:
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": OTHER_MODEL}
        self.wfile.write(f"data: {json.dumps(chunk | more)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@frozen
class NewApi:
    """@ivar keys: the Authorization headers that it was shown."""

    url: str
    keys: list[str]


@pytest.fixture(scope="session")
def new_api(address: str) -> Iterator[NewApi]:
    with ThreadingHTTPServer((address, 0), _NewApi) as server:
        server.keys, server.stopping = [], threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield NewApi(f"http://host.docker.internal:{server.server_port}", server.keys)
        server.stopping.set()
        server.shutdown()


# --- The image.


def is_reachable(image: str) -> bool:
    """Whether an image can be had, from its registry or because it is here already."""
    try:
        pulled = subprocess.run(
            ["docker", "pull", "--quiet", image], capture_output=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        return False
    return pulled.returncode == 0


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    What of this folder is under version control, and a file that must not get into the image. The
    image is built.
    """
    folder = tmp_path_factory.mktemp("image") / "gemproxy"
    subprocess.run(["git", "clone", "--quiet", "--no-local", ROOT, folder], check=True)
    (folder / ".env").write_text("GEMINI_API_KEY=must-not-get-into-the-image\n")
    dockerfile = (folder / "Dockerfile").read_text()
    pinned = dict.fromkeys(re.findall(r"\S+@sha256:[0-9a-f]+", dockerfile))
    if not all(is_reachable(image) for image in pinned):
        names = {image.partition("@")[0] for image in pinned}
        [python] = [name for name in names if "/python:" in name]
        [node] = [name for name in names if "/node:" in name]
        if attempt("image", "inspect", python, node).returncode:
            print(f"\nNo registry has {python} and {node}: making stand-ins for them.")
            subprocess.run([ROOT / "docker" / "stand-in-bases.sh", python, node], check=True)
        (folder / "Dockerfile").write_text(re.sub("@sha256:[0-9a-f]+", "", dockerfile))
    docker("build", "--tag", IMAGE, ".", cwd=folder)
    return folder


@pytest.fixture(scope="session")
def image(checkout: Path) -> str:
    return IMAGE


@frozen
class Container:
    """A running container."""

    name: str

    def url(self, port: int) -> str:
        return f"http://{docker('port', self.name, str(port)).splitlines()[0]}"

    def state(self) -> tuple[str, int]:
        """Its state and exit status."""
        state = json.loads(docker("inspect", self.name))[0]["State"]
        return state["Status"], state["ExitCode"]

    def is_healthy(self) -> bool:
        """What the image's own health check says."""
        assert self.state()[0] == "running", docker("logs", self.name)
        [check] = json.loads(docker("image", "inspect", IMAGE))
        words = check["Config"]["Healthcheck"]["Test"][1:]
        return attempt("exec", self.name, *words).returncode == 0


@contextmanager
def running(
    *arguments: str, options: tuple[str, ...] = (), port: int = 3000, image: str = IMAGE
) -> Iterator[Container]:
    """
    A container that is healthy.

    @param arguments: those of gemproxy.
    @param options: those of C{docker run}.
    @param port: one that is published besides that of the Stream Proxy.
    """
    publish = [f"--publish=127.0.0.1::{port}", "--publish=127.0.0.1::3002"]
    name = docker("run", "--detach", *publish, *options, image, *arguments).splitlines()[-1]
    container = Container(name)
    try:
        until(container.is_healthy, "the container is healthy")
        yield container
    finally:
        docker("rm", "--force", "--volumes", name)


def ask(url: str, model: str = MODEL, **headers: str) -> tuple[int, str]:
    """The status and the text of an answer, or of an error."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    request = urllib.request.Request(  # noqa: S310 - the container's
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"} | headers,
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - the container's
            answer = json.load(response)
            return response.status, answer["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]["message"]


def test_nothing_of_a_checkout_gets_into_the_image_but_what_it_needs(image: str) -> None:
    search = "find / -xdev -name .env -o -xdev -name .git -o -xdev -path '*/gemproxy/tests'"
    assert docker("run", "--rm", "--user=0", "--entrypoint=sh", image, "-c", search) == ""


def test_the_demo_serves_both_ports_and_ends_well(image: str) -> None:
    with running("--demo") as container:
        for port in (3000, 3002):
            status, text = ask(container.url(port))
            assert (status, text.splitlines()[-1]) == (200, "Hello")
        status, text = ask(container.url(3002), Host="evil.example")
        assert status == 403
        assert "ALLOWED_HOSTS" in text
        docker("stop", container.name)
        assert container.state() == ("exited", 0)


def test_without_the_cli_it_is_small_and_asks_google_itself(checkout: Path, google: str) -> None:
    slim = f"{IMAGE}:slim"
    docker("build", "--target", "slim", "--tag", slim, ".", cwd=checkout)
    search = ("run", "--rm", "--entrypoint=sh", slim, "-c", "command -v node npm gemini; true")
    assert docker(*search) == ""
    small, large = (
        json.loads(docker("image", "inspect", name))[0]["Size"] for name in (slim, IMAGE)
    )
    assert small < large - 100_000_000
    hosts = "--add-host=host.docker.internal:host-gateway"
    settings = (f"--env=GOOGLE_GEMINI_BASE_URL={google}", "--env=GEMINI_API_KEY=a-key")
    with running(options=(hosts, *settings, "--memory=256m"), image=slim) as container:
        for port in (3000, 3002):
            status, text = ask(container.url(port))
            assert (status, text.splitlines()[-1]) == (200, "Hello")
        docker("stop", container.name)
        assert container.state() == ("exited", 0)


@pytest.mark.parametrize("user", ["1000", "12345:0", "12345:12345"])
def test_any_user_runs_it_and_keeps_the_journal(image: str, user: str) -> None:
    hard = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    with running("--demo", options=(f"--user={user}", *hard)) as container:
        assert ask(container.url(3000))[0] == 200
        kept = ("exec", container.name, "sh", "-c", "ls /data/logs | wc -l")
        until(lambda: docker(*kept) == "2", "the journal has the request")


def test_the_health_check_follows_options(image: str) -> None:
    with running("--demo", "--port", "4000", "--stream-port=off", port=4000) as container:
        assert ask(container.url(4000))[0] == 200


@pytest.mark.parametrize(
    ("options", "arguments", "words"),
    [((), (), "GEMINI_API_KEY is not set"), (("--read-only",), ("--demo",), "--tmpfs /tmp")],
)
def test_what_is_missing_is_one_sentence(
    image: str, options: tuple[str, ...], arguments: tuple[str, ...], words: str
) -> None:
    result = attempt("run", "--rm", *options, image, *arguments)
    assert result.returncode == 1
    assert words in result.stdout
    assert result.stdout.count("\n") == 1


def test_an_answer_ends_with_an_error_before_docker_kills(image: str, new_api: NewApi) -> None:
    hosts = "--add-host=host.docker.internal:host-gateway"
    with running("--demo", options=(hosts, f"--env=UPSTREAM_URL={new_api.url}")) as container:
        body = {
            "model": OTHER_MODEL,
            "stream": True,
            "messages": [{"role": "user", "content": "endless"}],
        }
        request = urllib.request.Request(  # noqa: S310 - the container's
            f"{container.url(3002)}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=ENDLESS) as response:  # noqa: S310 - the container's
            assert b"Hello from New-API" in response.readline()
            docker("stop", container.name)
            assert b"The proxy is stopping." in response.read()
        assert container.state() == ("exited", 0)


# --- Compose.


@contextmanager
def composed(name: str, folder: Path, **environ: str) -> Iterator[None]:
    """The services of a compose file, as soon as they are healthy."""
    compose = ("compose", "--project-name", PROJECT, "--file", name)
    try:
        docker(*compose, "up", "--build", "--detach", "--wait", cwd=folder, **environ)
        yield
    finally:
        docker(*compose, "down", "--volumes", cwd=folder, **environ)


@pytest.mark.parametrize("name", COMPOSE)
def test_a_compose_file_serves_gemini_and_new_api(
    name: str, checkout: Path, google: str, new_api: NewApi
) -> None:
    ports = {"PORT": str(free_port()), "STREAM_PORT": str(free_port())}
    settings = {
        "GEMINI_API_KEY": "'a-key'",
        "GOOGLE_GEMINI_BASE_URL": google,
        "UPSTREAM_URL": new_api.url,
        "FIXED_API_KEY": "sk-of-compose",
    }
    lines = [f"{variable}={value}\n" for variable, value in (settings | ports).items()]
    (checkout / ".env").write_text("".join(lines))
    new_api.keys.clear()
    with composed(name, checkout):
        for port in ports.values():
            status, text = ask(f"http://127.0.0.1:{port}")
            assert (status, text.splitlines()[-1]) == (200, "Hello")
        answer = ask(f"http://127.0.0.1:{ports['STREAM_PORT']}", OTHER_MODEL)
        assert answer == (200, "Hello from New-API")
        assert new_api.keys == ["Bearer sk-of-compose"]


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_says_that_the_key_is_missing_and_starts_nothing(name: str, checkout: Path) -> None:
    (checkout / ".env").unlink(missing_ok=True)
    result = attempt(
        *("compose", "--project-name", PROJECT, "--file", name, "up", "--detach"), cwd=checkout
    )
    assert result.returncode != 0
    assert "GEMINI_API_KEY is not set" in result.stdout
    assert (
        docker("ps", "--all", "--quiet", f"--filter=label=com.docker.compose.project={PROJECT}")
        == ""
    )


def test_haproxy_has_many_replicas_behind_it(checkout: Path) -> None:
    """Its image is not to be had everywhere; tests/test_haproxy.py runs the configuration."""
    command = ("compose", "--file", "deploy/compose.scale.yml", "config", "--format", "json")
    services = json.loads(docker(*command, cwd=checkout, GEMINI_API_KEY="a-key"))["services"]
    assert services.keys() == {"gemini-proxy", "stream-proxy", "valkey", "haproxy"}
    assert services["stream-proxy"]["deploy"]["replicas"] == 3
    assert [name for name, service in services.items() if service.get("ports")] == ["haproxy"]
    environment = services["stream-proxy"]["environment"]
    assert environment["STATE_URL"] == "redis://valkey:6379"
    assert environment["GEMINI_PROXY_URL"] == "http://gemini-proxy:3000"
