"""What goes on in the other processes of a daemon, for the pages that watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from gemproxy.chat.errors import ChatError
from gemproxy.siblings.asking import SILENT, Siblings
from gemproxy.web.live_state import MOST_SHOWN
from gemproxy.web.under_way import Progress, Running

_LIVE, _END = "/live", "/end"

Json = dict[str, Any]


@frozen
class _There:
    """A request that another process answers, as it was a moment ago."""

    began: float
    said: Json
    how_far: Progress

    def facts(self) -> Json:
        return self.said

    def progress(self) -> Progress:
        return self.how_far

    def interrupt(self, error: ChatError) -> None:
        """That process does it itself."""


class Elsewhere:
    """
    Asks the other processes, and answers them. What one said stays until it is asked again; one
    that does not answer is left out.

    @ivar requests: what they answer, by the ids of requests.
    @ivar fields: what each of them has besides.
    @ivar seconds: of CPU that it takes one of them to say so, and about as many to hear it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        siblings: Siblings,
        requests: Mapping[str, Running],
        fields: Callable[[], Json],
        end: Callable[[str], None],
        cpu_clock: Callable[[], float],
    ) -> None:
        """
        @param requests: those of this process, and likewise its fields.
        @param end: ends one of them; raises ChatError if it is not under way.
        """
        self._clock = clock
        self._siblings = siblings
        self._own_requests = requests
        self._own_fields = fields
        self._end_own = end
        self._cpu_clock = cpu_clock
        self._is_asking = False
        self.requests: Mapping[str, Running] = {}
        self.fields: Sequence[Json] = ()
        self.seconds = 0.0
        siblings.answer(_LIVE, lambda _: self._state())
        siblings.answer(_END, self._end)

    async def look(self) -> None:
        """Ask all of them, unless that is being done."""
        if self._is_asking or not self._siblings.are_possible:
            return
        self._is_asking = True
        try:
            answers = await self._siblings.ask(_LIVE)
        finally:
            self._is_asking = False
        now = self._clock.seconds()
        requests: dict[str, Running] = {}
        fields: list[Json] = []
        seconds = 0.0
        for state in answers.values():
            if state is SILENT:
                continue
            # One that is replaced by another version may say it in another way.
            with suppress(KeyError, TypeError, ValueError):
                for id, age, facts, progress in state["requests"]:
                    requests[id] = _There(now - age, facts, Progress(*progress))
                fields.append(state["fields"])
                seconds = max(seconds, state["seconds"])
        self.requests, self.fields, self.seconds = requests, fields, seconds

    def forget(self) -> None:
        """Nobody watches."""
        self.requests, self.fields, self.seconds = {}, (), 0.0

    async def end(self, id: str) -> bool:
        """End a request of another process; returns whether one had it."""
        return any((await self._siblings.ask(_END, id)).values())

    def _state(self) -> Json:
        began, now = self._cpu_clock(), self._clock.seconds()
        rows = [
            (id, now - one.began, one.facts(), one.progress())
            for id, one in islice(self._own_requests.items(), MOST_SHOWN)
        ]
        total = {"requests_total": len(self._own_requests)}
        fields = self._own_fields() | total
        return {"requests": rows, "fields": fields, "seconds": self._cpu_clock() - began}

    def _end(self, id: str) -> bool:
        try:
            self._end_own(id)
        except ChatError:
            return False
        return True
