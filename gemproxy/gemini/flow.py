"""One handle on the flow of several exchanges at once."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from gemproxy.gemini.cli.gateway import Exchange


@implementer(IPushProducer)
class Flow:
    """What a client pauses when several exchanges, one by one or at once, make its answer."""

    def __init__(self) -> None:
        self._paused = False
        self._taps: dict[Exchange, IPushProducer] = {}

    def add(self, exchange: Exchange) -> None:
        tap = self._taps[exchange] = exchange.tap()
        if self._paused:
            tap.pauseProducing()

    def remove(self, exchange: Exchange) -> None:
        del self._taps[exchange]

    def pauseProducing(self) -> None:
        self._paused = True
        for tap in self._taps.values():
            tap.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        for tap in self._taps.values():
            tap.resumeProducing()

    def stopProducing(self) -> None:
        for tap in list(self._taps.values()):
            tap.stopProducing()
