"""Requests to the Gemini API that need no model to think, and so no CLI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from gemproxy.chat.jsontext import loads
from gemproxy.gemini.translate.errors import AttemptFailure, api_failure, transient
from gemproxy.http.body import BodyCut, BodyTooLarge, RepeatableBody, read_body
from gemproxy.http.confined import ConfinedAgent
from gemproxy.http.errors import describe_request_error
from gemproxy.http.url import BaseURL

TIME_LIMIT = 10.0

_SIZE_LIMIT = 10_000_000


class ApiFailed(Exception):
    """A request failed, or its answer is none."""

    def __init__(self, failure: AttemptFailure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure


def _too_late(result: Any, seconds: float) -> Any:
    raise ApiFailed(transient(f"The Gemini API did not answer within {seconds:g} s."))


@frozen
class GeminiApi:
    """
    Asks the API for one document at a time, in limited time and size.

    @ivar url: its base URL.
    """

    clock: IReactorTime
    agent: IAgent
    url: Callable[[], BaseURL]

    def ask(
        self, method: bytes, target: bytes, key: str, body: bytes | None = None
    ) -> Deferred[Any]:
        """
        The JSON document of an answer. The Deferred fails with L{ApiFailed}.

        @param target: path and query.
        @param key: the API key.
        @param body: JSON; None for no body.
        """
        asking = Deferred.fromCoroutine(self._ask(method, target, key, body))
        return asking.addTimeout(TIME_LIMIT, self.clock, _too_late)

    async def _ask(self, method: bytes, target: bytes, key: str, body: bytes | None) -> Any:
        base = self.url()
        headers = Headers({b"accept": [b"application/json"], b"x-goog-api-key": [key.encode()]})
        sent = None
        if body is not None:
            headers.setRawHeaders(b"content-type", [b"application/json"])
            sent = RepeatableBody(body)
        agent = ConfinedAgent(self.agent, base.origin)
        try:
            response = await agent.request(method, base.join(target), headers, sent)
            answer = await read_body(response, _SIZE_LIMIT)
        except BodyTooLarge:
            raise ApiFailed(transient("The Gemini API's answer is too large.")) from None
        except BodyCut:
            raise ApiFailed(
                transient("The Gemini API closed the connection within its answer.")
            ) from None
        except Exception as error:
            why = describe_request_error("The Gemini API", error)
            raise ApiFailed(transient(why)) from None
        if response.code != 200:
            raise ApiFailed(api_failure(response.code, answer))
        try:
            return loads(answer)
        except ValueError:
            raise ApiFailed(transient("The Gemini API's answer is not JSON.")) from None
