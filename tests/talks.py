"""Clients that ask one thing after the other, and look whether each answer is theirs and whole."""

from __future__ import annotations

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater

from testing.fake_newapi import Call, stream
from tests.support import Client, Connection, gpt

PIECES = 8


async def tell_back(call: Call) -> None:
    """What an upstream does: it streams the prompt, in pieces."""
    await call.whole()
    said = call.json["messages"][0]["content"]
    await stream(*(f"{said} {number}, " for number in range(PIECES)), pace=0.03)(call)


def told(prompt: str) -> str:
    return "".join(f"{prompt} {number}, " for number in range(PIECES))


@define
class Talks(Client):
    """
    @ivar right: the number of answers that were.
    @ivar asking: what is under way.
    @ivar cut: what was not answered as it should be.
    @ivar refused: what found nobody who listens.
    """

    right: int = field(default=0, kw_only=True)
    asking: set[str] = field(factory=set, kw_only=True)
    cut: set[str] = field(factory=set, kw_only=True)
    refused: set[str] = field(factory=set, kw_only=True)

    def begin_talks(self, clients: int, turns: int, name: str = "client") -> list[Deferred[None]]:
        return [
            Deferred.fromCoroutine(self.talk(f"{name}-{number}", turns))
            for number in range(clients)
        ]

    async def talk(self, name: str, turns: int) -> None:
        """One client, which keeps its connection as long as it may."""
        connection = None
        for turn in range(turns):
            connection = await self.say(f"{name}-{turn}", connection)
        if connection is not None:
            connection.drop()

    async def say(self, prompt: str, connection: Connection | None = None) -> Connection | None:
        """
        @param connection: one that is there.
        @return: the same, or another one, for the next question; None if there is none.
        """
        self.asking.add(prompt)
        body = gpt(prompt, stream=True)
        try:
            if connection is None or connection.closed:
                connection = await self.begin(body)
            else:
                connection.received.clear()
                connection.send("POST", "/v1/chat/completions", body)
            reply = await connection.reply()
        except ConnectError:
            self.refused.add(prompt)
            return None
        except AssertionError:
            self.cut.add(prompt)
            return None
        finally:
            self.asking.remove(prompt)
        if reply.status == 200 and reply.content == told(prompt):
            self.right += 1
        else:
            self.cut.add(prompt)
        return None if reply.headers.get("connection") == "close" else connection

    async def until_right(self, number: int) -> None:
        while self.right < number:
            await deferLater(reactor, 0.01)
