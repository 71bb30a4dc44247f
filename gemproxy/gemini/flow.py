"""Flow control for several API calls at once."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from gemproxy.gemini.api.call import ApiCall


@implementer(IPushProducer)
class Flow:
    """
    The producer that a client pauses when several API calls, sequential or concurrent, contribute
    to its response.
    """

    def __init__(self) -> None:
        self._paused = False
        self._valves: dict[ApiCall, IPushProducer] = {}

    def add(self, api_call: ApiCall) -> None:
        valve = self._valves[api_call] = api_call.valve()
        if self._paused:
            valve.pauseProducing()

    def remove(self, api_call: ApiCall) -> None:
        del self._valves[api_call]

    def pauseProducing(self) -> None:
        self._paused = True
        for valve in self._valves.values():
            valve.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        for valve in self._valves.values():
            valve.resumeProducing()

    def stopProducing(self) -> None:
        for valve in list(self._valves.values()):
            valve.stopProducing()
