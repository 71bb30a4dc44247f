"""The question of a container's health check: where the daemon is, and how it is."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, UnixStreamServer
from typing import Any

import pytest

from gemproxy import command
from gemproxy.healthcheck import arguments_of
from gemproxy.http.places import Place, place_of
from testing.processes import free_port
from testing.tls import make_certificate


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(b"as it is")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def serving(server: TCPServer | UnixStreamServer) -> Iterator[Any]:
    with server:
        server.status = 200
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server() -> Iterator[TCPServer]:
    """A server whose C{/health} answers with the status that it has."""
    yield from serving(TCPServer(("127.0.0.1", 0), _Health))


@pytest.fixture
def unix_server(tmp_path: Path) -> Iterator[UnixStreamServer]:
    yield from serving(UnixStreamServer(str(tmp_path / "a:socket"), _Health))


def ask(*arguments: str, **environ: str) -> int:
    """The exit status of the command."""
    return command.main(["health", *arguments], environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"PORT": "{}"},
        {"PORT": "'{}'"},
        {"PORT": "off", "STREAM_PORT": "{}"},
        {"PORT": "0", "STREAM_PORT": "tcp:{}:interface=127.0.0.1", "HOST": "192.0.2.1"},
    ],
)
def test_the_port_of_the_variables_is_asked(server: TCPServer, environ: dict[str, str]) -> None:
    port = server.server_address[1]
    environ = {name: value.format(port) for name, value in environ.items()}
    assert ask(**environ) == 0
    server.status = 503
    assert ask(**environ) == 1


def test_a_unix_socket_is_asked(unix_server: UnixStreamServer, tmp_path: Path) -> None:
    path = str(tmp_path / "a:socket").replace(":", "\\:")
    assert ask(PORT=f"unix:{path}") == 0
    assert ask(PORT=f"unix:address={path}:mode=600") == 0


def test_https_is_asked_whatever_its_certificate(server: TCPServer, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path, "elsewhere.example"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    assert ask(PORT=f"ssl:{server.server_address[1]}:privateKey=x") == 0


def test_the_options_of_a_process_win_over_the_variables(server: TCPServer, tmp_path: Path) -> None:
    """As an init has it in front of the daemon, whose options Docker was given."""
    port = str(server.server_address[1])
    script = "import sys; print(flush=True); sys.stdin.read()"
    arguments = ["-s", "--", "/opt/bin/twistd", "-n", "gemproxy", "--stream-port=off", "--port"]
    init = subprocess.Popen(
        [sys.executable, "-c", script, *arguments, port],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with init:
        assert init.stdout is not None
        init.stdout.readline()
        nowhere = str(free_port())
        assert ask("--process", str(init.pid), PORT=nowhere) == 0
        assert ask("--process", str(os.getpid()), PORT=nowhere) == 1


def test_a_daemon_that_is_away_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert ask(PORT=str(port)) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"gemproxy: 127.0.0.1 {port}: ")
    assert said.count("\n") == 1


def test_what_is_no_answer_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        thread = threading.Thread(target=lambda: deaf.accept()[0].close())
        thread.start()
        assert ask(PORT=str(deaf.getsockname()[1])) == 1
        thread.join()


def test_bad_settings_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(PORT="x") == 1
    assert capsys.readouterr().err.startswith("gemproxy: PORT: 'x' is not allowed")
    assert ask(PORT="0", STREAM_PORT="off") == 1
    assert "do not tell" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("port", "host", "place"),
    [
        (3000, "0.0.0.0", Place("127.0.0.1", 3000)),
        (3000, "::", Place("::1", 3000)),
        (3000, "192.0.2.1", Place("192.0.2.1", 3000)),
        (0, "0.0.0.0", None),
        (None, "0.0.0.0", None),
        ("tcp:port=3000", "192.0.2.1", Place("127.0.0.1", 3000)),
        (r"tcp:3000:interface=\:\:1", "", Place("::1", 3000)),
        (r"tcp:3000:interface=\:\:", "", Place("::1", 3000)),
        ("ssl:3443:privateKey=k.pem:certKey=c.pem", "", Place("127.0.0.1", 3443, True)),
        ("tcp:0", "", None),
        ("tcp:http", "", None),
        ("unix:", "", None),
        ("systemd:domain=INET:index=0", "", None),
        ("tls:3443", "", None),
    ],
)
def test_where_a_port_can_be_asked(port: int | str | None, host: str, place: Place | None) -> None:
    assert place_of(port, host) == place


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("tini -s -e 143 -- twistd -n --pidfile= gemproxy --demo --port 1", "--demo --port 1"),
        ("/sbin/docker-init -- tini -- twistd -n gemproxy --port=1", "--port=1"),
        ("/opt/gemproxy/bin/python /opt/gemproxy/bin/twistd gemproxy --demo", "--demo"),
        ("twistd -n --pidfile=x gemproxy", ""),
        ("twistd -n web --port 1", ""),
        ("gemproxy twistd", ""),
        ("/sbin/init", ""),
        ("", ""),
    ],
)
def test_the_options_in_a_command_line(words: str, arguments: str) -> None:
    assert arguments_of(words.split()) == arguments.split()
