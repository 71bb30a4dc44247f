"""One CLI process: its life cycle, and calls over the Agent Client Protocol."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.process import Process
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from gemproxy import __version__
from gemproxy.gemini.cli import acp, records
from gemproxy.gemini.cli.home import WorkerHome
from gemproxy.gemini.cli.install import Cli
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.silence import Judgement, Silence
from gemproxy.http.request_writer import send_at_once
from gemproxy.util.deadline import deadline
from gemproxy.util.log import details_are_wanted, make_logger

STDERR_TAIL = 8 * 1024

# V8 writes it before it ends a process whose heap is at its limit.
_HEAP_IS_FULL = b"heap out of memory"

# Of what the process says its version is.
_VERSION_LENGTH = 50

_LAUNCHER = str(Path(__file__).with_name("launch.py"))


class Death(Enum):
    """
    Why a process is gone.

    @cvar ENDED: it was ended, or could not be used.
    @cvar KILLED: somebody else has ended it, as the kernel does for want of memory.
    @cvar CRASHED: it ended by itself.
    """

    ENDED = "ended"
    KILLED = "killed"
    CRASHED = "crashed"


class WorkerDied(Exception):
    """
    The process ended or was killed; its pending calls fail.

    @ivar death: why.
    """

    def __init__(self, message: str, death: Death = Death.ENDED) -> None:
        super().__init__(message)
        self.death = death


class CallFailed(Exception):
    """The CLI responded to a call with an error."""

    def __init__(self, failure: acp.ErrorResponse) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure


class WorkerDeath(Enum):
    """
    Why a process has ended without being asked to.

    @cvar MEMORY: there was no memory for it.
    @cvar KILLED: it was killed, because it did what it should not, or did not react.
    @cvar UNEXPECTED: it ended by itself.
    """

    MEMORY = "memory"
    KILLED = "killed"
    UNEXPECTED = "unexpected"


class WorkerObserver(Protocol):
    """Is notified of the end of a worker."""

    def worker_ended(self, worker: Worker) -> None:
        """The process has ended, whether requested or not."""


_INTRODUCTION: dict[str, Any] = {
    "protocolVersion": acp.PROTOCOL_VERSION,
    "clientCapabilities": {},
    "clientInfo": {"name": "gemproxy", "version": __version__},
}


def _through_gateway(url: str) -> dict[str, Any]:
    """What tells the CLI that a server between it and the API has the key."""
    return {"methodId": "gateway", "_meta": {"gateway": {"baseUrl": url}}}


def _version_in(introduction: dict[str, Any]) -> str | None:
    info = introduction.get("agentInfo")
    version = info.get("version") if isinstance(info, dict) else None
    return version[:_VERSION_LENGTH] if isinstance(version, str) else None


class Worker:
    """
    A C{gemini --acp} process.

    @ivar opened: the number of sessions opened so far.
    @ivar usable: whether the worker accepts sessions.
    @ivar given_up: whether the process was killed; its further output is ignored.
    @ivar died_of_memory: whether the process has ended because there was no memory for it: the
        system killed it, or its heap was full.
    """

    log = make_logger()

    def __init__(
        self,
        reactor: Any,
        cli: Cli,
        home: WorkerHome,
        model: str,
        api_url: str,
        observer: WorkerObserver,
        limits: CliLimits,
        saw_version: Callable[[str | None], None] = lambda version: None,
    ) -> None:
        """@param saw_version: called with the version that the process has; None for none."""
        self.home = home
        self.limits = limits
        self.opened = 0
        self.usable = False
        self.given_up = False
        self.died_of_memory = False
        self._is_asked_to_end = False
        self.pid: int | None = None
        self._reactor = reactor
        self._cli = cli
        self._api_url = api_url
        self._saw_version = saw_version
        self._environment = home.environment(cli, model, api_url, limits.heap)
        self._observer = observer
        self._protocol = _AcpProtocol(self)
        self._transport: IProcessTransport | None = None
        self._calls: dict[int, Deferred[dict[str, Any]]] = {}
        self._last_id = 0
        self._forgotten: set[int] = set()
        self._strays = 0
        self._ending: IDelayedCall | None = None
        self._session_ids: set[str] = set()
        self._ended = False
        self._when_ended: list[Deferred[None]] = []
        self._silence = Silence()
        self._gave_sign = False
        self._cpu_time: tuple[str, ...] | None = None
        self._was_killed = False

    async def start(self) -> None:
        """
        Run the process until it is ready for sessions.

        @raise WorkerDied: the process ended, sent an invalid response, or was not ready in time.
        """
        self.home.create()
        command = [sys.executable, "-I", _LAUNCHER, self._cli.executable, "--acp"]
        self._transport = self._reactor.spawnProcess(
            self._protocol, command[0], command, env=self._environment, path=str(self.home.cwd)
        )
        self.pid = self._transport.pid
        try:
            with deadline(
                self._reactor, self.limits.start_timeout, self.give_up, "it was not ready in time"
            ):
                introduced = await self.call("initialize", _INTRODUCTION)
                await self.call("authenticate", _through_gateway(self._api_url))
        except CallFailed as error:
            self.give_up(f"it failed to start: {error}")
            raise WorkerDied(f"The Gemini CLI failed to start: {error}") from None
        self.usable = not self._ended
        self._saw_version(_version_in(introduced))
        records.clear(self.home.chats)

    def call(self, method: str, params: dict[str, Any]) -> Deferred[dict[str, Any]]:
        """
        Call a method of the CLI; fires with the result, or fails with CallFailed or WorkerDied.
        Cancelling only stops waiting; the CLI continues.
        """
        self._last_id += 1
        id = self._last_id
        answer: Deferred[dict[str, Any]] = Deferred(lambda _: self._forget(id))
        self._calls[id] = answer
        if self._ended:
            self._fail_calls()
        else:
            self._write(acp.encode_request(id, method, params))
        return answer

    def notify(self, method: str, params: dict[str, Any]) -> None:
        if not self._ended:
            self._write(acp.encode_notification(method, params))

    def open_session(self, session_id: str) -> bool:
        """Note that a session was opened; returns whether there was none with this id."""
        is_new = session_id not in self._session_ids
        self._session_ids.add(session_id)
        self.opened += is_new
        return is_new

    def close_session(self, session_id: str) -> None:
        self._session_ids.discard(session_id)

    @property
    def is_running(self) -> bool:
        """Whether there is a process, even if it is about to end."""
        return self._transport is not None and not self._ended

    def death(self) -> WorkerDeath | None:
        """Why the process has ended; None if it was asked to."""
        if self.died_of_memory:
            return WorkerDeath.MEMORY
        if self.given_up:
            return WorkerDeath.KILLED
        return None if self._is_asked_to_end else WorkerDeath.UNEXPECTED

    def memory(self) -> int:
        """Resident memory in bytes; 0 if the system does not report it."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def look(self) -> None:
        """
        Kill the process if it no longer reacts though calls wait for it; to be called once a
        second. One that does not answer because it waits for the API is asked for something else.
        """
        gave_sign = self._gave_sign or (not self.usable and self._has_worked())
        self._gave_sign = False
        match self._silence.look(bool(self._calls), gave_sign):
            case Judgement.ASK if self.usable:
                # The CLI answers it at any time, and it changes nothing.
                self.call("initialize", _INTRODUCTION).addErrback(lambda _: None)
            case Judgement.DEAD:
                self.give_up("it does not react")

    def _has_worked(self) -> bool:
        """
        Whether the process has used the CPU since the last call, as far as the system tells. While
        it starts, that is its only sign of life.
        """
        before, self._cpu_time = self._cpu_time, _cpu_time(self.pid)
        return self._cpu_time is None or self._cpu_time != before

    def give_up(self, reason: str) -> None:
        """Kill the process and log the reason."""
        if not self._ended and not self.given_up:
            self.log.warn(
                "killing CLI worker {pid}: {reason}; last stderr output: {tail}",
                pid=self.pid,
                reason=reason,
                tail=self._protocol.stderr_tail(),
            )
        self.given_up = True
        self.usable = False
        self._signal_group(signal.SIGKILL)

    def stop(self) -> Deferred[None]:
        """End the process, with SIGTERM first; fires when it has ended."""
        self.usable = False
        self._is_asked_to_end = True
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._ended or self.pid is None:
            return
        ended: Deferred[None] = Deferred()
        self._when_ended.append(ended)
        self._signal_group(signal.SIGTERM)
        with deadline(self._reactor, self.limits.kill_delay, self._signal_group, signal.SIGKILL):
            await ended

    # Called by the protocol:

    def heard(self) -> None:
        """The process has written something."""
        self._gave_sign = True

    def line_received(self, line: bytes) -> None:
        """
        @raise ProtocolViolation: the line is not a message, or there were too many unexpected
            messages.
        """
        if details_are_wanted():
            self.log.debug("from CLI worker {pid}: {said}", pid=self.pid, said=acp.shown(line))
        message = acp.decode(line)
        match message:
            case acp.Notification():
                self._stray()
            case acp.Request(id, "session/request_permission"):
                self._stray()
                self._write(acp.encode_result(id, {"outcome": {"outcome": "cancelled"}}))
            case acp.Request(id, _):
                self._stray()
                self._write(acp.encode_method_not_found(id))
            case acp.Result(id, result):
                if (answer := self._asked(id)) is not None:
                    answer.callback(result)
            case acp.ErrorResponse(id):
                if (answer := self._asked(id)) is not None:
                    answer.errback(CallFailed(message))

    def disconnected(self) -> None:
        """The process has closed a pipe: kill it, unless it ends now."""
        if not self._ended and self._ending is None:
            self._ending = self._reactor.callLater(
                self.limits.exit_delay, self.give_up, "it closed its input or output"
            )

    def exited(self) -> None:
        """The process has ended; kill the rest of its process group."""
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def ended(self, reason: Failure) -> None:
        """The process has ended and its pipes are closed."""
        if self.usable:
            self.log.warn(
                "CLI worker {pid} ended unexpectedly: {reason}; last stderr output: {tail}",
                pid=self.pid,
                reason=reason.getErrorMessage(),
                tail=self._protocol.stderr_tail(),
            )
        elif not reason.check(ProcessDone, ProcessTerminated):
            self.log.failure("CLI worker {pid} ended for an unknown reason", reason, pid=self.pid)
        self.died_of_memory = self._memory_failed(reason)
        death = self._death(reason)
        self._ended = True
        self.usable = False
        if self._ending is not None and self._ending.active():
            self._ending.cancel()
        self.home.remove()
        self._fail_calls(death)
        self._observer.worker_ended(self)
        waiting, self._when_ended = self._when_ended, []
        for done in waiting:
            done.callback(None)

    def _death(self, reason: Failure) -> Death:
        if not self.usable:
            return Death.ENDED
        number = getattr(reason.value, "signal", None)
        return Death.KILLED if number in (signal.SIGKILL, signal.SIGTERM) else Death.CRASHED

    def _memory_failed(self, reason: Failure) -> bool:
        number = getattr(reason.value, "signal", None)
        # Nobody else kills a worker, so the kernel has: it does when a cgroup is at its limit.
        is_killed = number == signal.SIGKILL and not self._was_killed
        return is_killed or self._protocol.stderr_says(_HEAP_IS_FULL)

    def _forget(self, id: int) -> None:
        self._calls.pop(id, None)
        self._forgotten.add(id)

    def _asked(self, id: Any) -> Deferred[dict[str, Any]] | None:
        """
        The Deferred of a call; None if it was cancelled.

        @raise ProtocolViolation: there was no call with this id.
        """
        answer = self._calls.pop(id, None)
        if answer is None and id not in self._forgotten:
            raise acp.ProtocolViolation("a response to an unknown request")
        self._forgotten.discard(id)
        return answer

    def _stray(self) -> None:
        self._strays += 1
        if self._strays > self.limits.stray_limit:
            raise acp.ProtocolViolation("too many unexpected messages")

    def _fail_calls(self, death: Death = Death.ENDED) -> None:
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            answer.errback(WorkerDied("The Gemini CLI process ended.", death))

    def _write(self, data: bytes) -> None:
        assert self._transport is not None  # noqa: S101 - for mypy
        if details_are_wanted():
            self.log.debug("to CLI worker {pid}: {told}", pid=self.pid, told=acp.shown(data))
        try:
            send_at_once(cast("Process", self._transport).pipes[0], data)
        except KeyError:
            self.give_up("it closed its input")

    def _signal_group(self, number: int) -> None:
        if self.pid is None or self._ended:
            return
        self._was_killed = self._was_killed or number == signal.SIGKILL
        with suppress(ProcessLookupError):
            # If the launcher has not created the group yet, only the process is signalled.
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)


def _cpu_time(pid: int | None) -> tuple[str, ...] | None:
    """The user and the system time of a process in ticks; None if the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # Fields 14 and 15 of proc_pid_stat(5); the third is the first here.
    return tuple(fields[11:13])


class _AcpProtocol(ProcessProtocol):
    """Splits the CLI's output into lines for its worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._lines = acp.LineDecoder(worker.limits.line_limit)
        self._stderr = b""
        self._stderr_size = 0

    def stderr_tail(self) -> str:
        return self._stderr.decode("utf-8", "replace").strip()

    def stderr_says(self, words: bytes) -> bool:
        """Whether the process wrote these words to stderr in the end."""
        return words in self._stderr

    def outReceived(self, data: bytes) -> None:
        if self._worker.given_up:
            return
        self._worker.heard()
        try:
            for line in self._lines.feed(data):
                self._worker.line_received(line)
                if self._worker.given_up:
                    return
        except acp.ProtocolViolation as violation:
            self._worker.give_up(f"it wrote {violation}")

    def errReceived(self, data: bytes) -> None:
        self._stderr = (self._stderr + data)[-STDERR_TAIL:]
        self._stderr_size += len(data)
        if self._stderr_size > self._worker.limits.stderr_limit:
            self._worker.give_up("it wrote too much to stderr")

    def childConnectionLost(self, childFD: int) -> None:
        if childFD != 2:
            self._worker.disconnected()

    def processExited(self, reason: Failure) -> None:
        self._worker.exited()

    def processEnded(self, reason: Failure) -> None:
        self._worker.ended(reason)
