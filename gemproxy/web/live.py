"""What goes on right now, for the pages of those who run the daemon: server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import thread_time, time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.sse import Event, comment, encode
from gemproxy.siblings.asking import NO_SIBLINGS, Siblings
from gemproxy.util.log import make_logger
from gemproxy.util.masking import NO_KEYS, Masking
from gemproxy.web.admin import Endpoint
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.detached import Detached
from gemproxy.web.live_elsewhere import Elsewhere
from gemproxy.web.live_state import LiveState, fields_of_all, requests_of_all
from gemproxy.web.responses import send_json
from gemproxy.web.under_way import UnderWay

# Seconds between two looks, at least.
INTERVAL = 0.5
# Of a core, for looking: where there are very many requests, pages are told more seldom.
MOST_TIME = 0.015
# Seconds between two looks, at most. There are only so many requests to tell of.
LONGEST_INTERVAL = 3.0
# Seconds without news after which a page, and what is in between, gets a sign of life.
_SILENCE = 15.0


@implementer(IPushProducer)
class _Page:
    """
    A page that watches.

    @ivar request: its request, which it has for as long as it watches.
    @ivar is_behind: it was not told of everything, and needs the whole state.
    @ivar gone: cancelled when it goes, and fired when it is sent away.
    """

    def __init__(self, request: ProxyRequest) -> None:
        self.request = request
        self._is_paused = False
        self.is_behind = True
        self.gone: Deferred[None] = Deferred()

    def tell(self, data: bytes) -> bool:
        """Write it, unless the page does not read; returns whether it was written."""
        if self._is_paused or self.request.channel is None:
            return False
        self.request.write(data)
        return True

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False

    def stopProducing(self) -> None:
        self._is_paused = True


class Live:
    """
    Tells all pages the same, as long as there are any; nothing is looked at for nobody.

    A page that does not read is not written to. Once it reads again it gets the newest state whole,
    instead of all that it missed.
    """

    log = make_logger()

    def __init__(
        self,
        clock: IReactorTime,
        under_way: UnderWay,
        fields: Callable[[float], dict[str, Any]],
        own_keys: Masking = NO_KEYS,
        refusal: Callable[[ProxyRequest], object] = lambda request: None,
        wall_clock: Callable[[], float] = time,
        cpu_clock: Callable[[], float] = thread_time,
        siblings: Siblings = NO_SIBLINGS,
    ) -> None:
        """
        @param fields: what is to be told besides the requests, for JSON; called with the time, in
            seconds since the epoch.
        @param own_keys: of this daemon. Upstreams quote keys, and anything is the name of a model.
        @param refusal: why the sender of a request may not watch any longer; None if it may.
        @param wall_clock: in seconds since the epoch.
        @param cpu_clock: seconds of CPU that the thread has taken.
        @param siblings: other processes, of which a page of this one is told as well.
        """
        self._clock = clock
        self._under_way = under_way
        self._fields = fields
        self._own_keys = own_keys
        self._refusal = refusal
        self._wall_clock = wall_clock
        self._cpu_clock = cpu_clock
        self._pages: dict[_Page, None] = {}
        self._state = LiveState()
        self._timer: IDelayedCall | None = None
        self._last_told = 0.0
        self._elsewhere = Elsewhere(
            clock,
            siblings,
            under_way.all,
            lambda: fields(wall_clock()),
            under_way.end,
            cpu_clock,
        )

    @property
    def pages(self) -> int:
        """How many watch."""
        return len(self._pages)

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint("GET", "/admin/live", lambda request: Detached(self._watch(request))),
            Endpoint("POST", "/admin/requests/<id>/end", self._end),
        )

    def close(self) -> None:
        """Send all pages away: they are no requests that a stop has to wait for."""
        self._send_away(list(self._pages))

    def _send_away(self, pages: Sequence[_Page]) -> None:
        for page in pages:
            page.gone.callback(None)

    async def _watch(self, request: ProxyRequest) -> None:
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        request.setHeader(b"x-accel-buffering", b"no")
        if request.method == b"HEAD":
            return
        page = _Page(request)
        request.registerProducer(page, True)
        self._pages[page] = None
        try:
            if self._timer is None:
                await self._elsewhere.look()
            if self._timer is None:
                self._look()
            else:
                self._tell_all({})
            await page.gone
        finally:
            del self._pages[page]
            if request.channel is not None:
                request.unregisterProducer()
            if not self._pages:
                self._rest()

    async def _end(self, request: ProxyRequest, id: str) -> None:
        try:
            self._under_way.end(id)
        except ChatError:
            if not await self._elsewhere.end(id):
                raise
        send_json(request, {"id": id, "ended": True})

    def _rest(self) -> None:
        """Nobody watches."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._state = LiveState()
        self._elsewhere.forget()

    def _look(self) -> None:
        self._timer = None
        began = self._cpu_clock()
        # Somebody may have logged out.
        self._send_away([page for page in self._pages if self._refusal(page.request) is not None])
        try:
            now, clock = self._wall_clock(), self._clock.seconds()
            elsewhere = self._elsewhere
            running = requests_of_all(self._under_way.all, elsewhere.requests)
            change = self._state.advance(now, clock, running, self._fields_of_all(now))
            Deferred.fromCoroutine(elsewhere.look())
            self._tell_all(change)
        except Exception:
            # An error must not end the looks.
            self.log.failure("the pages that watch were not told")
            for page in self._pages:
                page.is_behind = True
        needed = (self._cpu_clock() - began + self._elsewhere.seconds) / MOST_TIME
        delay = min(max(INTERVAL, needed), LONGEST_INTERVAL)
        if self._pages:
            self._timer = self._clock.callLater(delay, self._look)

    def _fields_of_all(self, now: float) -> dict[str, Any]:
        own = self._fields(now)
        if not self._elsewhere.fields:
            return own
        total = {"requests_total": len(self._under_way.all)}
        return fields_of_all([own | total, *self._elsewhere.fields])

    def _tell_all(self, change: dict[str, Any]) -> None:
        """@param change: what the pages that know the rest have to be told."""
        data = self._event(b"change", change) if change else b""
        if data:
            self._last_told = self._clock.seconds()
        elif self._clock.seconds() - self._last_told >= _SILENCE:
            self._last_told = self._clock.seconds()
            data = comment("still here")
        whole: bytes | None = None
        for page in self._pages:
            if page.is_behind:
                whole = whole or self._event(b"state", self._state.whole())
                page.is_behind = not page.tell(whole)
            elif data:
                page.is_behind = not page.tell(data)

    def _event(self, name: bytes, document: dict[str, Any]) -> bytes:
        return encode(Event(self._own_keys.in_errors().in_bytes(dumps(document)), name))
