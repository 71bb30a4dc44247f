"""One of the processes, as its parent sees it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

from gemproxy.processes.place import VARIABLE, Place
from gemproxy.util.log import make_logger

COMMANDS, OUTPUT, ERRORS, STATUS, FIRST_PORT = range(5)
"""The descriptors of a process."""

STOP, HURRY, LEAVE = b"stop", b"hurry", b"leave"
"""What it is told."""

# What a service manager, or a shell that was one, has said to the parent is not for its children.
_PARENTS_OWN = (
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)
# Characters of what it says last.
_TAIL = 2000


class State(Enum):
    """
    @cvar STARTING: it does not serve yet.
    @cvar READY: it serves.
    @cvar ENDING: it was asked to end, or is about to.
    @cvar ENDED: it is gone.
    """

    STARTING = "starting"
    READY = "ready"
    ENDING = "ending"
    ENDED = "ended"


@frozen
class Program:
    """
    What a process is started with.

    @ivar twistd: options for twistd.
    @ivar options: those for gemproxy.
    @ivar environ: the environment of the parent.
    @ivar shares_output: whether it writes its log where the parent does; else the parent logs it.
    """

    twistd: tuple[str, ...]
    options: tuple[str, ...]
    environ: Mapping[str, str]
    shares_output: bool

    def command(self) -> list[str]:
        """Without a look at the folder that it runs in: C{-P}."""
        log = "to_output" if self.shares_output else "to_parent"
        return [
            *(sys.executable, "-P", "-m", "gemproxy.processes.child"),
            *("--nodaemon", "--pidfile=", f"--logger=gemproxy.processes.child_log.{log}"),
            *(*self.twistd, "gemproxy", *self.options),
        ]

    def environment(self, place: Place) -> dict[str, str]:
        kept = {name: value for name, value in self.environ.items() if name not in _PARENTS_OWN}
        path = os.pathsep.join(filter(None, sys.path))
        return kept | {VARIABLE: place.to_text(), "PYTHONPATH": path}


class Process(ProcessProtocol):
    """
    A process, from its start to its end.

    @ivar ready: fires when it serves, or is gone without having served.
    @ivar failure: why it has not served; None if it has, or may still do.
    @ivar gone: fires when it has ended.
    @ivar end: how it has.
    @ivar is_asked: whether it was asked to end.
    @ivar silent: how often L{look} was called since it was heard of.
    """

    log = make_logger()
    transport: Any

    def __init__(self, place: Place, ended: Callable[[Process], None]) -> None:
        """@param ended: called with the process when it has ended."""
        self.place = place
        self.state = State.STARTING
        self.silent = 0
        self.is_asked = False
        self.end = ""
        self.failure: str | None = None
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._has_ended = ended
        takers = {OUTPUT: self._log, ERRORS: self._complain, STATUS: self._hear}
        self._lines = {descriptor: _Lines(taker) for descriptor, taker in takers.items()}
        # Why it does not start: as it says itself, or else what it has written.
        self._reason = ""
        self._complaints = ""

    @classmethod
    def start(
        cls,
        reactor: Any,
        program: Program,
        place: Place,
        ports: Mapping[str, int],
        ended: Callable[[Process], None],
    ) -> Process:
        """
        @param ports: descriptors of listening sockets, in this process.
        @param ended: see L{__init__}.
        @raise OSError: it cannot be started.
        """
        inherited = dict(enumerate(ports.values(), FIRST_PORT))
        place = evolve(place, ports=dict(zip(ports, inherited, strict=True)))
        process = cls(place, ended)
        command = program.command()
        output: int | str = 1 if program.shares_output else "r"
        descriptors = {COMMANDS: "w", OUTPUT: output, ERRORS: "r", STATUS: "r"} | inherited
        environment = program.environment(place)
        reactor.spawnProcess(process, command[0], command, environment, childFDs=descriptors)
        return process

    @property
    def number(self) -> int:
        return self.place.number

    @property
    def pid(self) -> int:
        return int(self.transport.pid or 0)

    def stop(self) -> None:
        """Have it finish what is under way, and end."""
        self.is_asked = True
        if self.state is State.STARTING:
            # It may not listen yet.
            self._signal(signal.SIGTERM)
        self._enter(State.ENDING)
        self._tell(STOP)

    def leave(self) -> None:
        """Leave the ports to others, serve whoever has come, and end then."""
        self.is_asked = True
        self._enter(State.ENDING)
        self._tell(LEAVE)

    def hurry(self) -> None:
        """Have it end without finishing what is under way."""
        self._tell(HURRY)

    def kill(self) -> None:
        self._enter(State.ENDING)
        self._signal(signal.SIGKILL)

    def look(self) -> int:
        """Returns how often in a row nothing was heard of it."""
        self.silent += 1
        return self.silent

    def _enter(self, state: State) -> None:
        if self.state is not State.ENDED:
            self.state = state

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)

    def _tell(self, word: bytes) -> None:
        # It may be gone already, although that is not known yet.
        with suppress(KeyError):
            self.transport.writeToChild(COMMANDS, word + b"\n")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._lines[childFD].feed(data)

    def _log(self, line: str) -> None:
        """An event, as L{gemproxy.processes.child_log} sends it."""
        try:
            event = eventFromJSON(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            globalLogPublisher(event)
        else:
            self.log.info("process {number}: {line}", number=self.number, line=line)

    def _complain(self, line: str) -> None:
        """What is neither log nor status, such as a warning of Python."""
        if self.state is State.STARTING:
            self._complaints = f"{self._complaints}\n{line}"[-_TAIL:]
        else:
            self.log.warn("process {number}: {line}", number=self.number, line=line)

    def _hear(self, line: str) -> None:
        """As sd_notify(3) has it."""
        self.silent = 0
        name, _, value = line.partition("=")
        if name == "READY" and self.state is State.STARTING:
            self.state = State.READY
            self.ready.callback(None)
            for complaint in self._complaints.splitlines():
                self._complain(complaint)
        elif name == "STOPPING":
            self._enter(State.ENDING)
        elif name == "STATUS":
            self._reason = value

    def processEnded(self, reason: Failure) -> None:
        for lines in self._lines.values():
            lines.close()
        self.end = _end_of(reason.value)
        self.state = State.ENDED
        if not self.ready.called:
            said = f"process {self.number} {self.end}. {self._complaints}".strip()
            self.failure = self._reason or said
        # Before anybody who waits: they look for who is left.
        self._has_ended(self)
        if not self.ready.called:
            self.ready.callback(None)
        self.gone.callback(None)


def _end_of(error: Any) -> str:
    """How a process has ended, from L{ProcessDone} or L{ProcessTerminated}."""
    number = getattr(error, "signal", None)
    if number is not None:
        return f"was ended by {signal.Signals(number).name}"
    return f"ended with status {getattr(error, 'exitCode', 0) or 0}"


class _Lines:
    """Makes lines of what comes in pieces."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._begun = b""

    def feed(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            self._take(line.decode("utf-8", "replace"))

    def close(self) -> None:
        """The end, be it of a line or not."""
        if self._begun:
            self.feed(b"\n")
