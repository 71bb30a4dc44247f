"""Asks a running daemon whether it is healthy, as the health check of a container does."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from attrs import frozen

from gemproxy.config import Config
from gemproxy.tap import Options

# Seconds for an answer. Docker gives the whole check five.
_TIMEOUT = 4.0

# The addresses that stand for all of a machine, and the one of them that is asked.
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
_ENDPOINTS = {"tcp": "port", "ssl": "port", "unix": "address"}


class NotHealthy(Exception):
    """The daemon does not serve; the message says what is known of it."""


@frozen
class Place:
    """
    Where a daemon listens.

    @ivar port: None for a UNIX socket.
    @ivar address: an IP address or host name, or the path of a UNIX socket.
    """

    address: str
    port: int | None = None
    is_encrypted: bool = False

    def connect(self) -> socket.socket:
        """@raise OSError: nothing answers there."""
        if self.port is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_TIMEOUT)
            connection.connect(self.address)
            return connection
        connection = socket.create_connection((self.address, self.port), _TIMEOUT)
        if not self.is_encrypted:
            return connection
        # The certificate is for the clients' name of this machine, which is not known here.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(connection)


def place_of(port: int | str | None, host: str) -> Place | None:
    """
    Where a port of the settings can be asked; None if that cannot be told from them.

    @param port: see L{gemproxy.http.listening.Address}; likewise C{host}.
    """
    if isinstance(port, int):
        # 0 is a port that the system chooses.
        return Place(_ANY_ADDRESS.get(host, host), port) if port else None
    # Arguments of an endpoint are separated by colons; those in values have a backslash.
    kind, *arguments = re.split(r"(?<!\\):", port or "")
    named = dict(one.split("=", 1) for one in arguments if "=" in one)
    first = next((one for one in arguments if "=" not in one), "")
    main = named.get(_ENDPOINTS.get(kind, ""), first).replace("\\:", ":")
    if kind == "unix" and main:
        return Place(main)
    if kind not in _ENDPOINTS or not main.isdecimal() or not int(main):
        return None
    interface = named.get("interface", "0.0.0.0").replace("\\:", ":")  # noqa: S104 - compared, not bound
    return Place(_ANY_ADDRESS.get(interface, interface), int(main), kind == "ssl")


def arguments_of(command: Sequence[str]) -> list[str]:
    """
    The options of gemproxy in the command line of a daemon, or of an init that has started one;
    none if it is neither.
    """
    names = [Path(word).name for word in command]
    try:
        return list(command[names.index("gemproxy", names.index("twistd")) + 1 :])
    except ValueError:
        return []


def command_of(process: int) -> list[str]:
    """The command line of a process; empty if it cannot be read."""
    try:
        return (
            Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        )
    except OSError:
        return []


class _Given(Options):
    """What the options say, without a look at whether a daemon could be started with them."""

    def postOptions(self) -> None:
        pass


def config_of(arguments: Sequence[str], environ: Mapping[str, str]) -> Config:
    """
    The settings of a daemon.

    @raise BadSetting: a setting is invalid.
    """
    options = _Given()
    options.parseOptions(list(arguments))
    return options.reader(environ, allow_no_key=True)()


def check(config: Config) -> str:
    """
    Ask the daemon with these settings for its health; returns what it says.

    @raise NotHealthy: it says that it is not, or says nothing.
    """
    places = [place_of(port, config.host) for port in (config.port, config.stream_port)]
    place = next(filter(None, places), None)
    if place is None:
        raise NotHealthy("PORT and STREAM_PORT do not tell where to ask.")
    try:
        connection = HTTPConnection("localhost")
        connection.sock = place.connect()
        connection.request("GET", "/health")
        response = connection.getresponse()
        said = response.read(10_000).decode(errors="replace")
    except (OSError, HTTPException) as error:
        raise NotHealthy(f"{place.address} {place.port or ''}: {error}") from None
    if response.status != 200:
        raise NotHealthy(f"{response.status} {said}")
    return said
