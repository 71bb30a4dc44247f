"""The daemon under systemd: what it says of itself, the sockets it is given, and its units."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from gemproxy.config import SETTINGS
from gemproxy.http.transport import AdoptedEndpoint, PromptPort
from gemproxy.http.write_coalescer import WriteCoalescer
from gemproxy.util.service_manager import ManagedService, ServiceManager
from tests.support import ROOT

UNITS = ROOT / "deploy/systemd"
TWISTD = Path(sys.executable).with_name("twistd")


@contextmanager
def manager_at(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(30)
        yield manager


@pytest.mark.slow
def test_a_daemon_says_how_it_is_and_takes_the_sockets_it_is_given(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with manager_at(address) as manager, socket.create_server(("127.0.0.1", 0)) as listening:
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "NOTIFY_SOCKET": str(address),
            "WATCHDOG_USEC": "100000",
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "stream",
            "PORT": "off",
            "STREAM_PORT": "systemd:domain=INET:name=stream",
            "GEMINI_PROXY_URL": "http://127.0.0.1:1",
            "LOG_DIR": "",
            "USAGE_DAYS": "0",
        }
        # systemd gives sockets from descriptor 3 on, to the process with this number alone.
        script = 'export LISTEN_PID=$$; exec "$@"'
        command = ["sh", "-c", script, "sh", str(TWISTD), "-n", "--pidfile=", "gemproxy"]
        # It waits in the socket's queue until there is a daemon.
        with socket.create_connection(listening.getsockname(), 30) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            daemon = subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environ,
                preexec_fn=partial(os.dup2, listening.fileno(), 3, inheritable=True),
                pass_fds=[3],
            )
            try:
                assert manager.recv(1000) == b"READY=1"
                assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
                assert [manager.recv(1000) for _ in range(2)] == [b"WATCHDOG=1"] * 2
                daemon.send_signal(signal.SIGHUP)
                assert other_than_alive(manager).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert other_than_alive(manager) == b"READY=1"
            finally:
                daemon.terminate()
                assert daemon.wait(30) == -signal.SIGTERM
            assert other_than_alive(manager) == b"STOPPING=1"


def test_a_socket_that_was_given_is_a_port_like_any_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        given = os.dup(listening.fileno())
        address = listening.getsockname()
    endpoint = AdoptedEndpoint(reactor, given, WriteCoalescer(), lambda: b"")
    port = cast("Any", endpoint.listen(Factory())).result
    try:
        assert isinstance(port, PromptPort)
        assert (port.getHost().host, port.getHost().port) == address
        assert not os.get_inheritable(port.fileno())
    finally:
        port.stopListening()


def other_than_alive(manager: socket.socket) -> bytes:
    while (said := manager.recv(1000)) == b"WATCHDOG=1":
        pass
    return said


@pytest.mark.parametrize(
    ("environ", "address", "watchdog"),
    [
        ({}, None, None),
        ({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1000000"}, None, None),
        ({"NOTIFY_SOCKET": "/run/x"}, "/run/x", None),
        ({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "3000000"}, "\0x", 3.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}, "/x", None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, "/x", None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, "/x", None),
    ],
)
def test_the_environment_says_who_listens(
    environ: dict[str, str], address: str | None, watchdog: float | None
) -> None:
    assert ServiceManager.from_environ(environ) == ServiceManager(address, watchdog)


def test_a_manager_that_does_not_listen_is_no_matter(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "notify"
    service = ManagedService(ServiceManager(str(path), watchdog=2), clock)
    service.startService()
    with manager_at(path) as manager:
        manager.setblocking(False)
        # Far more than its queue takes.
        clock.pump([1.0] * 2000)
        said = set()
        with pytest.raises(BlockingIOError):
            while True:
                said.add(manager.recv(100))
        assert said == {b"WATCHDOG=1"}


def unit(name: str) -> list[tuple[str, str]]:
    """The settings of a unit, of which some come more than once."""
    found: list[tuple[str, str]] = []
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.append((key, value))
    return found


def test_the_variables_of_the_units_are_settings() -> None:
    known = {setting.env for setting in SETTINGS} | {
        setting.file_env for setting in SETTINGS if setting.secret
    }
    given = [
        word.partition("=")[0]
        for name in ("gemproxy.service", "sockets.conf")
        for key, value in unit(name)
        if key == "Environment"
        for word in value.split()
    ]
    assert len(given) > 4
    assert set(given) <= known | {"PATH"}


def test_a_stop_takes_longer_than_a_drain() -> None:
    (drain,) = (setting.default for setting in SETTINGS if setting.env == "DRAIN")
    limit = dict(unit("gemproxy.service"))["TimeoutStopSec"]
    assert int(limit) >= int(drain or 0) + 15


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for path in UNITS.glob("*.s*"):
        text = path.read_text().replace("/opt/gemproxy/bin/twistd", str(TWISTD))
        (tmp_path / path.name).write_text(text)
    folder = tmp_path / "gemproxy.service.d"
    folder.mkdir()
    shutil.copy(UNITS / "sockets.conf", folder)
    names = [str(path) for path in tmp_path.glob("*.s*") if path.is_file()]
    checked = subprocess.run(
        ["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@needs_systemd
def test_systemd_finds_the_service_well_confined() -> None:
    """Of 10 at most, in which 0 is the best; the threshold is in tenths."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=19"]
    checked = subprocess.run(
        [*command, str(UNITS / "gemproxy.service")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout[-200:]
