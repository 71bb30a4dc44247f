"""Finds out which terms of the contract hold for the installed CLI, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from gemproxy.doctor.contract.terms import TERMS, Term
from gemproxy.doctor.contract.trial import Broken, Trial
from gemproxy.doctor.findings import Finding, failed, ok, skipped, warning
from gemproxy.gemini.cli.home import WorkerHome
from gemproxy.gemini.cli.install import INSTALL_CLI, PINNED_VERSION, Cli
from gemproxy.gemini.cli.limits import CliLimits
from gemproxy.gemini.cli.worker import CallFailed, Worker, WorkerDied
from gemproxy.gemini.translate.models import BUILT_IN_MODELS
from gemproxy.util.rundir import RunDirectory, roots_for_user

START, VERSION = "start", "version"

_TERM_LIMIT = 15.0
_MEND = (
    f"`{INSTALL_CLI}` installs the tested version;"
    " `export GEMINI_ENGINE=direct` does without the CLI."
)


class Contract:
    """Tries the terms with a process of the CLI, and with another one after one that is broken."""

    def __init__(
        self,
        reactor: Any,
        cli: Cli,
        environ: Mapping[str, str],
        model: str = BUILT_IN_MODELS[0],
        term_limit: float = _TERM_LIMIT,
        limits: CliLimits | None = None,
    ) -> None:
        """
        @param model: to ask for.
        @param term_limit: seconds for a term.
        @param limits: for the processes.
        """
        self._reactor = reactor
        self._cli = cli
        self._model = model
        self._term_limit = term_limit
        self._limits = limits or CliLimits()
        self._run_directory = RunDirectory(lambda: roots_for_user(environ))
        self._started = 0
        self._version: str | None = None
        self._trial: Trial | None = None

    def examine(self, terms: Sequence[Term] = TERMS) -> Deferred[list[Finding]]:
        """What is found of each term. Cancelling it ends the process, and then fires."""
        return Deferred.fromCoroutine(self._examine(terms))

    async def _examine(self, terms: Sequence[Term]) -> list[Finding]:
        self._run_directory.acquire()
        try:
            try:
                await self._begin()
            except (WorkerDied, CallFailed) as error:
                why = failed(START, f"It does not start: {error}", _MEND)
                return [why, *(skipped(term.name, term.promise) for term in terms)]
            found = [ok(START, "It starts, and takes the address to ask at."), self._judged()]
            found += [await self._tried(term) for term in terms]
            return found
        finally:
            await self._end()
            self._run_directory.release()

    async def _tried(self, term: Term) -> Finding:
        try:
            trial = self._trial or await self._begin()
            trying = Deferred.fromCoroutine(_coroutine(term, trial))
            await trying.addTimeout(self._term_limit, self._reactor)
        except CancelledError:
            raise
        except Exception as error:
            # A process that breaks one term is not asked about the others.
            await self._end()
            return failed(term.name, f"{term.promise} But: {self._said_of(error)}", _MEND)
        if not trial.worker.usable:
            await self._end()
        return ok(term.name, term.promise)

    def _said_of(self, error: Exception) -> str:
        match error:
            case Broken():
                return str(error)
            case DeferredTimeout():
                return f"Nothing came of it in {self._term_limit:g} s."
            case CallFailed():
                return f"It refused a call: {error}."
        return f"{type(error).__name__}: {error}"

    async def _begin(self) -> Trial:
        self._started += 1
        home = WorkerHome(self._run_directory.ensure() / f"worker-{self._started}")

        def make_worker(url: str) -> Worker:
            return Worker(
                self._reactor, self._cli, home, self._model, url, self, self._limits, self._saw
            )

        self._trial = Trial(self._reactor, make_worker, self._model)
        await self._trial.worker.start()
        return self._trial

    async def _end(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            await trial.stop()

    def _saw(self, version: str | None) -> None:
        self._version = version

    def worker_ended(self, worker: Worker) -> None:
        """Its calls fail, which is enough."""

    def _judged(self) -> Finding:
        if self._version == PINNED_VERSION:
            return ok(VERSION, f"The Gemini CLI {self._version} is the tested one.")
        return warning(
            VERSION,
            f"The Gemini CLI is version {self._version or 'unknown'}, and gemproxy is tested with"
            f" {PINNED_VERSION}.",
            f"`{INSTALL_CLI}` installs the tested one.",
        )


async def _coroutine(term: Term, trial: Trial) -> None:
    await term.test(trial)
