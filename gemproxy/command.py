"""The command C{gemproxy}: what there is to do besides running the daemon."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any

from gemproxy import __version__, healthcheck, keys_command
from gemproxy.config import (
    CONFIG_VARIABLE,
    BadSetting,
    Config,
    advice_on_keys,
    config_path,
    read_config,
)
from gemproxy.routing.table import BadRoute, Member, RoutingTable, as_text
from gemproxy.usage.prices import Prices
from gemproxy.usage.recorder import FILE, NoUsage, read_usage
from gemproxy.usage.report import DEFAULT_DAYS, FORMS, BadQuestion, question_of
from gemproxy.util.masking import LOOKALIKES, Masking

EXAMPLE = Path(__file__).with_name("example.toml")

_PROCESS = "read the daemon's options from this process, which is the daemon or has started it"


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="gemproxy", description="The daemon itself is run as: twistd -n gemproxy"
    )
    parser.add_argument("--version", action="version", version=f"gemproxy {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_config(_add(commands, "check", "check the settings and the configuration file"))
    _add_config(_add(commands, "routes", "show who gets which model"))
    _add_process(_add(commands, "health", "ask the running daemon whether it is healthy"))
    _add_doctor(commands)
    _add_usage(commands)
    _add(commands, "example", "print an example of the configuration file, with prices")
    _add_keys(commands)
    given = parser.parse_args(arguments)
    if given.command == "health":
        return _health(given.process, environ)
    if given.command == "doctor":
        return _doctor(given, environ)
    if given.command == "usage":
        return _usage(given, environ)
    if given.command == "example":
        print(EXAMPLE.read_text("utf-8"), end="")
        return 0
    if given.command == "keys":
        return _keys(given, environ)
    try:
        path = config_path(given.config, environ)
        config = read_config({}, environ, path, allow_no_key=True)
        table = routing_table(config)
    except BadSetting as error:
        return _refused(error)
    text = as_text(table.rows()) if given.command == "routes" else _report(config, path)
    print(Masking(config.secrets).in_errors().in_text(text), end="")
    return 0


def _add(commands: Any, name: str, meaning: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=meaning, description=meaning)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    meaning = f"the configuration file [{CONFIG_VARIABLE}]"
    parser.add_argument("--config", metavar="FILE", help=meaning)


def _add_process(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--process", metavar="PID", type=int, help=_PROCESS)


def _refused(error: Exception) -> int:
    """Say why there is nothing; returns the exit status."""
    print(LOOKALIKES.in_text(f"gemproxy: {error}"), file=sys.stderr)
    return 1


def run() -> None:
    """The entry point."""
    sys.exit(main())


def routing_table(config: Config) -> RoutingTable:
    """@raise BadSetting: a route is invalid."""
    members = tuple(Member(one.name, one.prefix, one.models) for one in config.upstreams)
    table = RoutingTable(members, config.routes)
    try:
        table.check()
    except BadRoute as error:
        raise BadSetting(str(error)) from None
    return table


def _options_of(process: int | None) -> list[str]:
    return healthcheck.arguments_of(healthcheck.command_of(process)) if process else []


def _config_of(given: argparse.Namespace, environ: Mapping[str, str], *options: str) -> Config:
    """
    The settings of the daemon that is meant.

    @param options: of the daemon, besides those of its process and its configuration file.
    @raise BadSetting: they are invalid.
    """
    named = () if given.config is None else ("--config", given.config)
    return healthcheck.config_of([*_options_of(given.process), *named, *options], environ)


def _health(process: int | None, environ: Mapping[str, str]) -> int:
    options = _options_of(process)
    try:
        print(healthcheck.check(healthcheck.config_of(options, environ)))
    except (BadSetting, healthcheck.NotHealthy) as error:
        return _refused(error)
    return 0


def _add_doctor(commands: Any) -> None:
    doctor = _add(commands, "doctor", "check what gemproxy needs, and say what mends it")
    _add_config(doctor)
    _add_process(doctor)
    doctor.add_argument("--demo", action="store_true", help="check what the demo needs")
    doctor.add_argument(
        "--cli",
        action="store_true",
        help="run the installed Gemini CLI, and check what gemproxy relies on in it",
    )


def _doctor(given: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # It has a reactor, which the other commands do without.
    from gemproxy.doctor import main as doctor

    try:
        config = _config_of(given, environ, *(["--demo"] if given.demo else []))
        routing_table(config)
    except BadSetting as error:
        return doctor.refuse(str(error))
    return (doctor.examine_cli if given.cli else doctor.examine)(config, environ)


def _add_usage(commands: Any) -> None:
    usage = _add(commands, "usage", "show who used how much of which model, and what it cost")
    parts = "account, model, upstream, and one of minute, hour, day, month"
    usage.add_argument("--by", default="account,model", help=f"{parts}; default: %(default)s")
    ago = "a day, a time, or 60m, 24h, 30d for so much until now"
    usage.add_argument("--from", default=f"{DEFAULT_DAYS}d", help=f"{ago}; default: %(default)s")
    usage.add_argument("--to", default="", help="likewise, and not in it; default: now")
    usage.add_argument("--format", choices=FORMS, default="text")
    _add_config(usage)
    _add_process(usage)


def _usage(given: argparse.Namespace, environ: Mapping[str, str]) -> int:
    try:
        config = _config_of(given, environ)
        question = question_of(vars(given), time())
        report = read_usage(config.data_dir / FILE, question, Prices(config.prices))
    except (BadSetting, BadQuestion, NoUsage, sqlite3.Error) as error:
        return _refused(error)
    text = report.rendered(given.format).decode().rstrip("\n")
    # A terminal may not have all characters.
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))
    return 0


def _add_keys(commands: Any) -> None:
    meaning = "the accounts of clients: add, list, show, limit or revoke them"
    keys = _add(commands, "keys", meaning)
    _add_config(keys)
    _add_process(keys)
    keys_command.add_commands(keys.add_subparsers(dest="action", required=True))


def _keys(given: argparse.Namespace, environ: Mapping[str, str]) -> int:
    try:
        config = _config_of(given, environ)
    except BadSetting as error:
        return _refused(error)
    return keys_command.run(given, config)


def _report(config: Config, path: Path | None) -> str:
    lines = [
        f"{path or 'The environment'} is valid.",
        f"upstreams: {', '.join(f'{one.name} ({one.url})' for one in config.upstreams)}",
        f"routes: {len(config.routes)}",
    ]
    if config.prices.as_of is not None:
        lines.append(f"prices: in {config.prices.currency}, of {config.prices.as_of}")
    if config.needs_engine and not config.google_keys:
        lacking = "GOOGLE_CLOUD_PROJECT" if config.uses_vertex else "GEMINI_API_KEY"
        lines.append(f"{lacking} is not set: the daemon would not start.")
    if config.credentials_problem is not None:
        lines.append(f"{config.credentials_problem} The daemon would not start.")
    return "".join(f"{line}\n" for line in (*lines, *advice_on_keys(config, {})))
