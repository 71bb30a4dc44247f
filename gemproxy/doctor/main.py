"""The examination as a command, with a reactor of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.failure import Failure

from gemproxy.config import Config
from gemproxy.doctor.checks import Doctor
from gemproxy.doctor.contract.run import Contract
from gemproxy.doctor.findings import Finding, as_text, exit_status, failed
from gemproxy.doctor.verdicts import unusable
from gemproxy.gemini.cli.install import CliUnusable, find_cli
from gemproxy.http.lookups import look_up_names_apart
from gemproxy.util.log import make_logger
from gemproxy.util.masking import LOOKALIKES

log = make_logger()

_BAD_SETTINGS = "docs/settings.md has what is allowed; `gemproxy check` tries it again."

Examination = Callable[[Any], Deferred[list[Finding]]]


def examine(config: Config, environ: Mapping[str, str]) -> int:
    """Print what the checks find; returns the exit status."""
    return _print(run(lambda reactor: Doctor(reactor, lambda: config, environ).examine()))


def examine_cli(config: Config, environ: Mapping[str, str]) -> int:
    """The same for the contract with the installed CLI."""
    try:
        cli = find_cli(config.gemini_cli, environ)
    except CliUnusable as error:
        return _print([unusable("cli", error)])
    return _print(run(lambda reactor: Contract(reactor, cli, environ).examine()))


def refuse(reason: str) -> int:
    """The same for settings that are no settings: nothing else can be checked."""
    return _print([failed("settings", LOOKALIKES.in_text(reason), _BAD_SETTINGS)])


def run(examination: Examination) -> Sequence[Finding]:
    """Run the reactor until there are findings, which are none if it was interrupted."""
    # It is installed by the import.
    from twisted.internet import reactor

    found: list[Finding] = []
    look_up_names_apart(reactor)

    def begin() -> None:
        examining = examination(reactor).addCallback(found.extend)
        # If it is interrupted, what it has started is ended first.
        reactor.addSystemEventTrigger("before", "shutdown", _cancelled, examining)
        examining.addErrback(_log).addCallback(stop)

    def stop(_: None) -> None:
        # If it was interrupted, it is stopping.
        with suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callWhenRunning(begin)
    reactor.run()
    return found


def _cancelled(examining: Deferred[None]) -> Deferred[None]:
    examining.cancel()
    return examining


def _log(failure: Failure) -> None:
    if not failure.check(CancelledError):
        log.failure("the examination failed", failure)


def _print(findings: Sequence[Finding]) -> int:
    if not findings:
        return 1
    print(as_text(findings, _is_colourful(sys.stdout, os.environ)), end="")
    return exit_status(findings)


def _is_colourful(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the terminal shows colours, and its user wants them (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
