"""Asks a running daemon whether it is healthy, as the health check of a container does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

from gemproxy.config import Config
from gemproxy.http.places import ask_health, place_of
from gemproxy.tap import Options


class NotHealthy(Exception):
    """The daemon does not serve; the message says what is known of it."""


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
        health = ask_health(place)
    except (OSError, HTTPException) as error:
        raise NotHealthy(f"{place.address} {place.port or ''}: {error}") from None
    if health.status != 200:
        raise NotHealthy(f"{health.status} {health.said}")
    return health.said
