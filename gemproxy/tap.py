"""The twistd plugin: options in, the service out."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import monotonic_ns
from types import TracebackType
from typing import Any, NoReturn, cast

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorCore
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
from gemproxy.http.listening import Address, HeldPort
from gemproxy.http.lookups import look_up_names_apart
from gemproxy.http.proxies import PROXY_VARIABLES
from gemproxy.processes.child import Commands, Parent, when
from gemproxy.processes.count import count_for
from gemproxy.processes.parent import Processes
from gemproxy.processes.place import Place
from gemproxy.processes.process import Program
from gemproxy.secret_files import BadSecretFile, with_secrets_read
from gemproxy.util.cgroup import cgroup_limits, memory_limit, usable_cores
from gemproxy.util.core_dumps import forbid_core_dumps
from gemproxy.util.masking import LOOKALIKES
from gemproxy.util.monotonic import use_monotonic_time
from gemproxy.util.rundir import RunDirectory, roots_for_user
from gemproxy.util.service_manager import ManagedService, Manager, ServiceManager
from gemproxy.util.signals import Signals


def _help(meaning: str, env: str, default: str | None) -> str:
    shown = f", default {default}" if default else ""
    return f"{meaning.replace('`', '')} [{env}{shown}]"


def _refuse(reason: str) -> NoReturn:
    """End with a line that says what is wrong, and status 1."""
    sys.exit(f"gemproxy: {LOOKALIKES.in_text(' '.join(reason.split()))}")


# Fields of the Config that are not those of each process for itself.
_OF_THE_PARENT = ("processes", "host", "port", "stream_port")
# Seconds after which a process that gives no sign of life is replaced, unless the service manager
# has its own for the daemon.
_WATCHDOG = 60.0
# Seconds that one of several processes has until its first CLI worker is warm. Without any it
# serves as one alone would: with errors.
_WARMTH = 30.0


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

    words: list[str]
    config: Config
    read_config: Callable[[], Config]
    environ: dict[str, str]
    advice: list[str]
    cli: Cli | None

    def parseOptions(self, options: list[str] | None = None) -> None:
        self.words = list(options or [])
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

    @property
    def logs_to_output(self) -> bool:
        """Whether twistd writes the log to the standard output, and in its own form."""
        twistd = self._of_twistd()
        elsewhere = twistd.get("logfile") not in (None, "", "-")
        return bool(twistd.get("nodaemon")) and not (
            elsewhere or twistd.get("syslog") or twistd.get("logger")
        )

    def _of_twistd(self) -> Mapping[str, Any]:
        return cast("Mapping[str, Any] | None", self.parent) or {}

    def program(self, environ: Mapping[str, str]) -> Program:
        """What is run by each of several processes with these options."""
        reactor = self._of_twistd().get("reactor")
        words = [] if reactor is None else [f"--reactor={reactor}"]
        return Program(tuple(words), tuple(self.words), environ, self.logs_to_output)

    def check_again(self) -> None:
        """
        Whether processes may be replaced by others, with the settings of now.

        @raise BadSetting: a setting is invalid, or takes effect with a restart alone.
        """
        config = self.read_config()
        for name in _OF_THE_PARENT:
            if getattr(config, name) != getattr(self.config, name):
                raise BadSetting(f"{name.upper()} has changed: restart the daemon.")

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
    say: Callable[[str], None],
    kind: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
) -> None:
    """Takes the place of L{sys.excepthook}."""
    if issubclass(kind, CannotStart):
        say(str(error))
    else:
        sys.__excepthook__(kind, error, traceback)


def _complain(reason: str) -> None:
    print(f"gemproxy: {reason}", file=sys.stderr)


def _exit_with_1() -> None:
    sys.stdout.flush()
    os._exit(1)


def _number_of_processes(config: Config) -> int:
    if config.processes is not None:
        return config.processes
    return count_for(usable_cores(), cgroup_limits().cores, memory_limit())


def makeService(options: Options) -> IService:
    from twisted.internet import reactor

    use_monotonic_time(reactor)
    forbid_core_dumps()
    root = _Root()
    place = Place.in_environ(os.environ)
    say = _complain if place.is_alone else Parent().give_reason
    sys.excepthook = partial(_show_exception, say)
    count = _number_of_processes(options.config)
    try:
        if place.is_alone and count > 1:
            _add_parent(root, options, count, reactor)
        else:
            _add_daemon(root, options, place, reactor)
    except BadSetting as error:
        _refuse(str(error))
    return root


def _add_daemon(root: MultiService, options: Options, place: Place, reactor: Any) -> None:
    """@param place: which of several it is, if it is."""
    from gemproxy.service import Daemon

    look_up_names_apart(reactor)
    cast("IReactorCore", reactor).callWhenRunning(_spare_the_collector)
    daemon = Daemon(
        options.config,
        options.cli,
        reactor,
        options.environ,
        read_config=options.read_config,
        advice=options.advice,
        place=place,
    )
    daemon.setServiceParent(root)
    manager: Manager = ServiceManager.from_environ(os.environ)
    ready = None
    if not place.is_alone:
        manager = Parent(place.watchdog)
        # The process that it replaces serves until then.
        ready = when(reactor, lambda: daemon.has_served, _WARMTH)
        Commands(reactor, daemon.hurry, daemon.leave).setServiceParent(root)

    async def reload() -> None:
        daemon.reload_or_complain()

    Signals(reactor, daemon.hurry, partial(_reload, manager, reload)).setServiceParent(root)
    ManagedService(manager, reactor, ready).setServiceParent(root)


def _add_parent(root: MultiService, options: Options, count: int, reactor: Any) -> None:
    """@param count: of processes."""
    manager = ServiceManager.from_environ(os.environ)
    config = options.config
    ports: dict[str, HeldPort] = {}
    for name, port in config.ports.items():
        try:
            ports[name] = Address(port, config.host).held(reactor)
        except ValueError as error:
            raise BadSetting(f"{name}: cannot listen at {port!r}: {error}") from None
        ports[name].setServiceParent(root)

    def fail(reason: str) -> None:
        _complain(reason)
        # twistd has no way to end with a status.
        atexit.register(_exit_with_1)
        reactor.stop()

    processes = Processes(
        reactor,
        count,
        options.program(os.environ),
        ports,
        RunDirectory(lambda: roots_for_user(os.environ)),
        manager.watchdog or _WATCHDOG,
        fail,
    )
    processes.setServiceParent(root)

    async def roll() -> None:
        try:
            options.check_again()
        except BadSetting as error:
            processes.log.error("all processes stay as they are: {error}", error=error)
        else:
            await processes.roll()

    Signals(reactor, processes.hurry, partial(_reload, manager, roll)).setServiceParent(root)
    ManagedService(manager, reactor, processes.when_ready()).setServiceParent(root)


def _reload(manager: Manager, reload: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        manager.tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")
        await reload()
        manager.tell("READY=1")

    Deferred.fromCoroutine(run())
