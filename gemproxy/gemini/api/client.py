"""A client of Google's API: answers as they come, single documents, and whatever is passed on."""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse

from gemproxy.chat.jsontext import loads
from gemproxy.gemini.api.call import ApiCall
from gemproxy.gemini.api.endpoint import Endpoint
from gemproxy.gemini.translate.errors import AttemptFailure, transient
from gemproxy.http.body import BodyCut, BodyTooLarge, RepeatableBody, read_beginning, read_body
from gemproxy.http.confined import ConfinedAgent
from gemproxy.http.errors import describe_request_error
from gemproxy.http.header_map import HeaderMap

TIME_LIMIT = 10.0

_ANSWERING = "streamGenerateContent"
_SIZE_LIMIT = 10_000_000
_ERROR_LIMIT = 256 * 1024
# Seconds to wait for the body of an error.
_ERROR_PATIENCE = 30.0


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
    Sends requests to Google, signed.

    @ivar endpoint: where, and how they are signed.
    """

    clock: IReactorTime
    agent: IAgent
    endpoint: Endpoint

    async def send(
        self,
        method: bytes,
        target: bytes,
        key: str,
        headers: Headers,
        body: IBodyProducer | None = None,
    ) -> IResponse:
        """
        The response to any request, whatever its status.

        @param target: path and query; see L{Endpoint}.
        @param key: the API key.
        @param headers: of the request; the signature is added to them.
        @raise ApiFailed: there is none.
        @raise ValueError: the target is no path.
        """
        base = self.endpoint.base
        url = base.join(target)
        signature = await self.endpoint.sign(key)
        for name, value in signature:
            headers.setRawHeaders(name, [value])
        agent = ConfinedAgent(self.agent, base.origin)
        try:
            response = await agent.request(method, url, headers, body)
        except CancelledError:
            raise
        except Exception as error:
            why = describe_request_error("The Gemini API", error)
            raise ApiFailed(transient(why)) from None
        if response.code == 401:
            self.endpoint.refused(signature)
        return response

    async def failure_of(self, response: IResponse) -> AttemptFailure:
        """What a response with the status of an error says."""
        said = await read_beginning(response, _ERROR_LIMIT, self.clock, _ERROR_PATIENCE)
        return self.endpoint.failure(response.code, said)

    def answer(self, call: ApiCall, body: bytes, headers: Headers | None = None) -> Deferred[None]:
        """
        Have a model answer. The Deferred fires when the call has come to its end; how, the call
        says. Cancelling it aborts the call.

        @param body: the JSON of the request.
        @param headers: to be sent as well.
        """
        answering = Deferred.fromCoroutine(self._answer(call, body, headers or HeaderMap()))
        call.waiting(answering)
        return answering

    async def _answer(self, call: ApiCall, body: bytes, headers: Headers) -> None:
        try:
            await self._exchange(call, body, headers)
        except ApiFailed as failed:
            call.ended(failed.failure)
        except CancelledError:
            if not call.is_aborting:
                # A call that was aborted before is no answer that could be tried again.
                call.abort()
                raise

    async def _exchange(self, call: ApiCall, body: bytes, headers: Headers) -> None:
        target = self.endpoint.of_model(call.model, _ANSWERING) + b"?alt=sse"
        headers.setRawHeaders(b"content-type", [b"application/json"])
        # A request that comes twice costs, and has no other effect.
        sent = RepeatableBody(body)
        response = await self.send(b"POST", target, call.key, headers, sent)
        if response.code == 200:
            reading = _ReplyReader(call)
            response.deliverBody(reading)
            await reading.done
            return
        call.ended(await self.failure_of(response))

    def ask(
        self, method: bytes, target: bytes, key: str, body: bytes | None = None
    ) -> Deferred[Any]:
        """
        The JSON document of an answer, in limited time and size. The Deferred fails with
        L{ApiFailed}.

        @param target: see L{send}.
        @param key: the API key.
        @param body: JSON; None for no body.
        """
        return self.read(method, target, key, body).addCallback(_json_of)

    def read(
        self,
        method: bytes,
        target: bytes,
        key: str,
        body: bytes | None = None,
        time_limit: float = TIME_LIMIT,
        size_limit: int = _SIZE_LIMIT,
    ) -> Deferred[bytes]:
        """
        The body of an answer, see L{ask}.

        @param time_limit: in seconds.
        @param size_limit: in bytes.
        """
        reading = Deferred.fromCoroutine(self._read(method, target, key, body, size_limit))
        return reading.addTimeout(time_limit, self.clock, _too_late)

    async def _read(
        self, method: bytes, target: bytes, key: str, body: bytes | None, size_limit: int
    ) -> bytes:
        headers = HeaderMap({b"accept": [b"application/json"]})
        sent = None
        if body is not None:
            headers.setRawHeaders(b"content-type", [b"application/json"])
            sent = RepeatableBody(body)
        response = await self.send(method, target, key, headers, sent)
        try:
            answer = await read_body(response, size_limit)
        except BodyTooLarge:
            raise ApiFailed(transient("The Gemini API's answer is too large.")) from None
        except BodyCut:
            raise ApiFailed(
                transient("The Gemini API closed the connection within its answer.")
            ) from None
        if response.code != 200:
            raise ApiFailed(self.endpoint.failure(response.code, answer))
        return answer


def _json_of(answer: bytes) -> Any:
    try:
        return loads(answer)
    except ValueError:
        raise ApiFailed(transient("The Gemini API's answer is not JSON.")) from None


class _ReplyReader(Protocol):
    """
    Reads a reply as it is received.

    @ivar done: fires when it has ended; cancelling it aborts the call.
    """

    def __init__(self, call: ApiCall) -> None:
        self.done: Deferred[None] = Deferred(self._cancelled)
        self._call = call

    def connectionMade(self) -> None:
        self._call.flowing(cast("IPushProducer", self.transport))

    def dataReceived(self, data: bytes) -> None:
        self._call.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        whole = reason.check(ResponseDone, PotentialDataLoss)
        self._call.ended(
            None if whole else transient("The Gemini API's response ended before it was complete.")
        )
        if not self.done.called:
            self.done.callback(None)

    def _cancelled(self, done: Deferred[None]) -> None:
        done.errback(CancelledError())
        self._call.abort()
