"""Runs checks side by side: none keeps the others waiting, and none brings them down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from gemproxy.doctor.findings import Finding, failed

TIME_LIMIT = 12.0
"""Seconds for a check. What it asks others for has shorter limits of its own."""


@frozen
class Check:
    """
    One thing to find out.

    @ivar names: of what it finds, in this order.
    @ivar look: finds it out. It may be cancelled at any time.
    """

    names: tuple[str, ...]
    look: Callable[[], Awaitable[Sequence[Finding]]]


def examine(
    clock: IReactorTime, checks: Sequence[Check], time_limit: float = TIME_LIMIT
) -> Deferred[list[Finding]]:
    """The findings of all checks, in their order. It does not fail; cancelling it ends them all."""
    looking = [_limited(clock, check, time_limit) for check in checks]
    return gatherResults(looking, consumeErrors=True).addCallback(
        lambda found: [finding for findings in found for finding in findings]
    )


def _limited(clock: IReactorTime, check: Check, time_limit: float) -> Deferred[Sequence[Finding]]:
    async def look() -> Sequence[Finding]:
        return await check.look()

    looking = Deferred.fromCoroutine(look()).addTimeout(time_limit, clock)
    return looking.addErrback(_as_findings, check, time_limit)


def _as_findings(failure: Failure, check: Check, time_limit: float) -> Sequence[Finding]:
    if failure.check(DeferredTimeout):
        message = f"It took more than {time_limit:g} s."
    else:
        message = f"The check itself failed: {failure.getErrorMessage()}"
    again = "`gemproxy doctor` tries again; what does not answer may be a folder on a network."
    return [failed(name, message, again) for name in check.names]
