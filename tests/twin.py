"""Both engines asked the same: what reaches Google, and the answers, must not differ."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from gemproxy.chat.collect import CompletionCollector
from gemproxy.chat.jsontext import dumps
from gemproxy.chat.shapes import objects_in
from testing.google.recorded_request import ReceivedRequest

if TYPE_CHECKING:
    from tests.support import Product, Reply

_CALL_ID = re.compile(rb'"id":"(call_[^"]+)"')
# What is made up anew for each answer.
_MADE_UP = re.compile(r'"(id|created|responseId|tool_call_id)":("[^"]*"|[0-9]+)')


@frozen
class Twin:
    """
    A daemon of the same settings with the engine C{direct}, and a Google of its own.

    @ivar ids: of calls in its answers, by those of the other one.
    """

    product: Product
    ids: dict[bytes, bytes] = field(factory=dict)

    async def compare(
        self, body: Any, headers: dict[str, str], asked: Sequence[ReceivedRequest], reply: Reply
    ) -> None:
        """
        @param body: what the other one was asked for at its Gemini Proxy.
        @param asked: what it asked Google for.
        @param reply: what it answered.
        """
        twin = self.product
        twin.begin_test()
        twin.api.play(*(one.play for one in asked if one.play is not None))
        told = await twin.ask(self._with_own_ids(body), **headers)
        sent = [_sent(one, self._with_other_ids(one.raw)) for one in twin.asked]
        assert sent == [_sent(one, one.raw) for one in asked]
        assert told.status == reply.status
        assert _essence(told) == _essence(reply)
        ids = [_CALL_ID.findall(one.body) for one in (reply, told)]
        self.ids.update(zip(*ids, strict=True))

    def _with_own_ids(self, body: Any) -> bytes:
        """A request whose history has what this one called."""
        raw: bytes = body if isinstance(body, bytes) else json.dumps(body).encode()
        for theirs, own in self.ids.items():
            raw = raw.replace(theirs, own)
        return raw

    def _with_other_ids(self, raw: bytes) -> bytes:
        for theirs, own in self.ids.items():
            raw = raw.replace(own, theirs)
        return raw


def _sent(asked: ReceivedRequest, raw: bytes) -> tuple[Any, ...]:
    """What reached Google, but for the names of the programs that sent it."""
    return asked.path, asked.query, asked.key, asked.headers["content-type"], raw


def _essence(reply: Reply) -> Any:
    """An answer without what depends on chance or time."""
    if not reply.headers["content-type"].startswith("text/event-stream"):
        return _settled(reply.json)
    collector, others = CompletionCollector(), []
    for chunk in reply.data:
        if isinstance(chunk, dict) and "choices" in chunk:
            collector.add_parsed(chunk, dumps(chunk))
        else:
            others.append(chunk)
    return _settled(collector.completion()), _without_made_up(others)


def _settled(completion: dict[str, Any]) -> str:
    choices = objects_in(completion.get("choices"))
    if len(choices) > 1:
        # Which of them has which answer depends on whose request was the first to reach Google.
        alike = sorted(_without_made_up(choice | {"index": None}) for choice in choices)
        completion = completion | {"choices": alike}
    return _without_made_up(completion)


def _without_made_up(value: Any) -> str:
    return _MADE_UP.sub(r'"\1":0', dumps(value).decode())
