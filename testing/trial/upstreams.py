"""Google and New-API as they are on a bad day: they answer, or do not, in every way there is."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from attrs import define, evolve, field
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import deferLater

from testing.fake_newapi import EVENT_STREAM, JSON, Call, FakeNewApi, answer, event, events
from testing.google import scenarios
from testing.google.app import StandIn
from testing.google.recorded_request import ReceivedRequest
from testing.google.scenarios import Scenario
from testing.trial.client import FOREIGN
from testing.trial.markers import marker_in, pieces_for

SAID = "the chaos says so"
PAGE = b"<html>no</html>"


@define
class Weather:
    """
    How bad the day is.

    @ivar faults: what went wrong so far, by kind.
    @ivar badness: the share of requests that something happens to.
    """

    randomness: random.Random
    badness: float
    faults: Counter[str] = field(factory=Counter)

    def fault(self, kinds: list[str], whose: str) -> str | None:
        """What is to happen to the next request, if anything is."""
        if self.randomness.random() >= self.badness:
            return None
        kind = self.randomness.choice(kinds)
        self.faults[f"{whose}: {kind}"] += 1
        return kind


class Port:
    """A port that may be closed for a while, and is then the same again."""

    def __init__(self, reactor: Any, factory: IProtocolFactory) -> None:
        self._reactor = reactor
        self._factory = factory
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.number: int = self._port.getHost().port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.number}"

    async def close(self) -> None:
        await self._port.stopListening()

    def open(self) -> None:
        self._port = self._reactor.listenTCP(self.number, self._factory, interface="127.0.0.1")


_GOOGLE_FAULTS = [
    *("429 of a minute", "bare 429", "500", "503", "503 after content", "hang", "hang after some"),
    *("reset", "reset after some", "close after some", "trickle", "no JSON", "empty", "no end"),
    *("late", "blocked"),
]


class Google:
    """The Gemini API."""

    def __init__(self, reactor: Any, weather: Weather) -> None:
        self._weather = weather
        self.standin = StandIn(reactor, self._play, keep=0)
        self.site = self.standin.site()
        self.port = Port(reactor, self.site)

    def connections(self) -> int:
        return len(self.site.protocols)  # type: ignore[attr-defined]

    def _play(self, request: ReceivedRequest) -> Scenario:
        told = request.texts[-1][1] if request.texts else ""
        marker = marker_in(told)
        if marker is None:
            return scenarios.answer("Nobody asked.")
        pieces = pieces_for(marker)
        play = scenarios.answer(*pieces, pace=self._weather.randomness.choice((0, 0, 0.002)))
        some = self._weather.randomness.randint(0, len(pieces))
        match self._weather.fault(_GOOGLE_FAULTS, "Google"):
            case "429 of a minute":
                return scenarios.rate_limited(0.2)
            case "bare 429":
                return scenarios.bare_rate_limited()
            case "500":
                return scenarios.error(500, SAID)
            case "503":
                return scenarios.error(503, SAID)
            case "503 after content":
                return scenarios.answer(*pieces[:some], scenarios.error(503, SAID).refusal.body)  # type: ignore[union-attr]
            case "hang":
                return scenarios.hang()
            case "hang after some":
                return scenarios.hang(*pieces, after=some)
            case "reset":
                return scenarios.cut()
            case "reset after some":
                return scenarios.cut(*pieces, after=some)
            case "close after some":
                return scenarios.cut(*pieces, after=some, reset=False)
            case "trickle":
                return evolve(play, pace=0.1)
            case "no JSON":
                return scenarios.garbage(*pieces[:some])
            case "empty":
                return scenarios.empty()
            case "no end":
                return evolve(play, finish_reason=None)
            case "late":
                return evolve(play, delay=1.5)
            case "blocked":
                return scenarios.blocked()
        return play


_NEW_API_FAULTS = [
    *("429", "500", "503", "502 of HTML", "hang", "hang after some", "reset", "reset after some"),
    *("close after some", "trickle", "no JSON in between", "error event", "empty stream", "late"),
    *("no DONE", "garbage",),
]  # fmt: skip


class NewApi:
    """Everybody else's models."""

    def __init__(self, reactor: Any, weather: Weather) -> None:
        self._weather = weather
        self._reactor = reactor
        self.fake = FakeNewApi()
        self.fake.always(self._serve)

    @property
    def url(self) -> str:
        return self.fake.url

    def connections(self) -> int:
        return len(self.fake.connections)

    async def close(self) -> None:
        await self.fake.stop_listening()

    def open(self) -> None:
        self.fake.listen_again()

    async def stop(self) -> list[str]:
        """Returns what went wrong in here."""
        failures = [f"New-API itself failed: {failure!r}" for failure in self.fake.failures]
        self.fake.failures.clear()
        await self.fake.stop()
        return failures

    async def _serve(self, call: Call) -> None:
        del self.fake.calls[:]
        await call.whole()
        marker = marker_in(call.body.decode("utf-8", "replace"))
        if call.target == "/v1/models":
            await self._document(call, {"object": "list", "data": [{"id": "gpt-x"}]})
        elif call.target != "/v1/chat/completions":
            # What is passed through is echoed.
            await self._document(call, {"echo": marker})
        else:
            await self._chat(call, marker or "nobody")

    async def _document(self, call: Call, document: Any, status: int = 200) -> None:
        body = event(document).removeprefix(b"data: ").strip()
        await call.head(status, [JSON, ("Content-Length", str(len(body)))])
        await call.send(body)
        call.end()

    async def _chat(self, call: Call, marker: str) -> None:
        whole = answer(*pieces_for(marker), usage=True)
        some = self._weather.randomness.randint(0, len(whole) - 2)
        pace = self._weather.randomness.choice((0.0, 0.0, 0.002))
        script = events(*whole, pace=pace)
        match self._weather.fault(_NEW_API_FAULTS, "New-API"):
            case "429":
                return await self._document(call, {"error": {"message": SAID}}, 429)
            case "500":
                return await self._document(call, {"error": {"message": SAID}}, 500)
            case "503":
                return await self._document(call, {"error": {"message": SAID}}, 503)
            case "502 of HTML":
                await call.head(
                    502, [("Content-Type", "text/html"), ("Content-Length", f"{len(PAGE)}")]
                )
                await call.send(PAGE)
                return call.end()
            case "hang":
                return None
            case "hang after some":
                script = events(*whole[:some], then="hang")
            case "reset":
                return call.reset()
            case "reset after some":
                script = events(*whole[:some], then="reset")
            case "close after some":
                script = events(*whole[:some], then="cut")
            case "trickle":
                script = events(*whole, pace=0.1)
            case "no JSON in between":
                script = events(*whole[:some], f"data: {FOREIGN}\n\n".encode(), *whole[some:])
            case "error event":
                error = {"error": {"message": SAID, "code": 503}}
                script = events(*whole[:some], error)
            case "empty stream":
                script = events(headers=(EVENT_STREAM,))
            case "late":
                await deferLater(self._reactor, 1.5)
            case "no DONE":
                script = events(*whole[:-1])
            case "garbage":
                await call.send(self._weather.randomness.randbytes(200))
                return call.close()
        await script(call)
        return None
