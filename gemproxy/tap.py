"""The twistd plugin: options in, the service out."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import cast

from twisted.application.service import IService, MultiService
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads
from twisted.python import usage

from gemproxy import __version__
from gemproxy.config import (
    CONFIG_VARIABLE,
    SETTINGS,
    BadSetting,
    Config,
    config_path,
    read_config,
)
from gemproxy.gemini.cli.install import Cli, CliUnusable, find_cli
from gemproxy.util.monotonic import use_monotonic_time


def _help(meaning: str, env: str, default: str | None) -> str:
    shown = f", default {default}" if default else ""
    return f"{meaning.replace('`', '')} [{env}{shown}]"


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
    ] + [["config", None, None, f"configuration file [{CONFIG_VARIABLE}]"]]
    optFlags = [
        ["demo", None, "serve a stand-in for the Gemini API: no key and no network are needed"],
    ] + [
        [setting.option, None, _help(setting.meaning, setting.env, setting.default)]
        for setting in SETTINGS
        if setting.default == "false"
    ]

    config: Config
    read_config: Callable[[], Config]
    cli: Cli | None

    def opt_version(self) -> None:
        """Show the version of gemproxy and exit."""
        print(f"gemproxy {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        given: dict[str, str | None] = {}
        for setting in SETTINGS:
            value = self[setting.option]
            if isinstance(value, int):
                value = "true" if value else None
            given[setting.option] = value
        path, demo = config_path(self["config"], os.environ), bool(self["demo"])
        self.read_config = partial(read_config, given, os.environ, path, demo)
        try:
            self.config = self.read_config()
            self.cli = (
                find_cli(self.config.gemini_cli, os.environ) if self.config.needs_engine else None
            )
        except (BadSetting, CliUnusable) as error:
            # Not a UsageError: twistd would print the whole help text before the error.
            sys.exit(f"gemproxy: {error}")


def _spare_the_collector() -> None:
    """
    Make Python's garbage collector run less often. With many requests under way it would take a
    third of the CPU time, looking again and again at objects that live as long as the daemon.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def makeService(options: Options) -> IService:
    from twisted.internet import reactor

    from gemproxy.service import Daemon
    from gemproxy.shutdown import Signals

    use_monotonic_time(reactor)
    cast("IReactorCore", reactor).callWhenRunning(_spare_the_collector)
    try:
        daemon = Daemon(
            options.config, options.cli, reactor, os.environ, read_config=options.read_config
        )
    except BadSetting as error:
        sys.exit(f"gemproxy: {error}")
    root = MultiService()
    daemon.setServiceParent(root)
    Signals(
        cast("IReactorFromThreads", reactor), daemon.hurry, daemon.reload_or_complain
    ).setServiceParent(root)
    return root
