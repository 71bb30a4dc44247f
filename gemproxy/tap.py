"""The twistd plugin: options in, the service out."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import monotonic_ns
from types import TracebackType
from typing import NoReturn, cast

from twisted.application.service import IService, MultiService
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads, IReactorTime
from twisted.python import usage

from gemproxy import __version__
from gemproxy.config import (
    CONFIG_VARIABLE,
    SECRETS,
    SETTINGS,
    BadSetting,
    Config,
    advice_on_keys,
    config_path,
    read_config,
)
from gemproxy.gemini.cli.install import Cli, CliUnusable, find_cli
from gemproxy.http.lookups import look_up_names_apart
from gemproxy.http.proxies import PROXY_VARIABLES
from gemproxy.secret_files import BadSecretFile, with_secrets_read
from gemproxy.util.core_dumps import forbid_core_dumps
from gemproxy.util.masking import LOOKALIKES
from gemproxy.util.monotonic import use_monotonic_time
from gemproxy.util.service_manager import ManagedService, ServiceManager


def _help(meaning: str, env: str, default: str | None) -> str:
    shown = f", default {default}" if default else ""
    return f"{meaning.replace('`', '')} [{env}{shown}]"


def _refuse(reason: str) -> NoReturn:
    """End with a line that says what is wrong, and status 1."""
    sys.exit(f"gemproxy: {LOOKALIKES.in_text(' '.join(reason.split()))}")


class Options(usage.Options):
    """Options of C{twistd gemproxy}; each overrides the environment variable of its name."""

    synopsis = "[options]"
    longdesc = (
        "Serves Gemini, through the Gemini CLI, as OpenAI's chat completions. "
        "Every option may be given as the environment variable named in brackets instead."
    )

    optParameters = [
        [setting.option, None, None, _help(setting.meaning, setting.env, setting.default)]
        for setting in SETTINGS
        if setting.default != "false"
    ] + [
        *(
            [setting.file_option, None, None, f"file with {setting.env} [{setting.file_env}]"]
            for setting in SECRETS
        ),
        ["config", None, None, f"configuration file [{CONFIG_VARIABLE}]"],
    ]
    optFlags = [
        ["demo", None, "serve a stand-in for the Gemini API: no key and no network are needed"],
    ] + [
        [setting.option, None, _help(setting.meaning, setting.env, setting.default)]
        for setting in SETTINGS
        if setting.default == "false"
    ]

    config: Config
    read_config: Callable[[], Config]
    environ: dict[str, str]
    advice: list[str]
    cli: Cli | None

    def parseOptions(self, options: list[str] | None = None) -> None:
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            # Otherwise twistd would print the whole help text before the error.
            _refuse(f"{error}. See: twistd gemproxy --help")

    def opt_version(self) -> None:
        """Show the version of gemproxy and exit."""
        print(f"gemproxy {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        self.read_config = self.reader(os.environ)
        try:
            self.config = self.read_config()
            self.advice = advice_on_keys(self.config, self.given())
            self.environ = with_secrets_read(os.environ, PROXY_VARIABLES)
            self.cli = (
                find_cli(self.config.gemini_cli, os.environ) if self.config.needs_cli else None
            )
        except (BadSetting, BadSecretFile, CliUnusable) as error:
            _refuse(str(error))

    def reader(
        self, environ: Mapping[str, str], allow_no_key: bool = False
    ) -> Callable[[], Config]:
        """What reads the settings that these options and an environment give."""
        path = config_path(self["config"], environ)
        return partial(read_config, self.given(), environ, path, bool(self["demo"]), allow_no_key)

    def given(self) -> dict[str, str | None]:
        """The settings that are given as options, by L{Setting.option}; None for the others."""
        given: dict[str, str | None] = {}
        for setting in SETTINGS:
            value = self[setting.option]
            if isinstance(value, int):
                value = "true" if value else None
            given[setting.option] = value
        for setting in SECRETS:
            given[setting.file_option] = self[setting.file_option]
        return given


def _spare_the_collector() -> None:
    """
    Make Python's garbage collector run less often. With many requests under way it would take a
    third of the CPU time, looking again and again at objects that live as long as the daemon.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


class CannotStart(Exception):
    """What keeps the daemon from starting is not its own fault; the message says it all."""


@contextmanager
def _without_traceback() -> Iterator[None]:
    """
    @raise CannotStart: a port is taken, or a folder cannot be written. It is no SystemExit, for
        which twistd would leave its pidfile behind.
    """
    try:
        yield
    except (CannotListenError, OSError, ValueError) as error:
        raise CannotStart(str(error)) from None


class _Root(MultiService):
    def privilegedStartService(self) -> None:
        with _without_traceback():
            super().privilegedStartService()

    def startService(self) -> None:
        with _without_traceback():
            super().startService()


def _show_exception(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Takes the place of L{sys.excepthook}."""
    if issubclass(kind, CannotStart):
        print(f"gemproxy: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def makeService(options: Options) -> IService:
    from twisted.internet import reactor

    from gemproxy.service import Daemon
    from gemproxy.shutdown import Signals

    use_monotonic_time(reactor)
    look_up_names_apart(reactor)
    forbid_core_dumps()
    sys.excepthook = _show_exception
    cast("IReactorCore", reactor).callWhenRunning(_spare_the_collector)
    try:
        daemon = Daemon(
            options.config,
            options.cli,
            reactor,
            options.environ,
            read_config=options.read_config,
            advice=options.advice,
        )
    except BadSetting as error:
        _refuse(str(error))
    root = _Root()
    daemon.setServiceParent(root)
    manager = ServiceManager.from_environ(os.environ)

    def reload() -> None:
        manager.tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")
        daemon.reload_or_complain()
        manager.tell("READY=1")

    Signals(cast("IReactorFromThreads", reactor), daemon.hurry, reload).setServiceParent(root)
    ManagedService(manager, cast("IReactorTime", reactor)).setServiceParent(root)
    return root
