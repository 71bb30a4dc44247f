"""New-API, or any other server that speaks OpenAI's API, as a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers as HeaderMap
from twisted.web.iweb import IAgent, IBodyProducer, IResponse

from gemproxy.backend import Answer
from gemproxy.chat.errors import (
    INVALID_REQUEST,
    SERVER_ERROR,
    ChatError,
    Verbatim,
    upstream_failed,
    upstream_silent,
)
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.request import ChatRequest, Headers
from gemproxy.chat.split import chunks_of
from gemproxy.chat.sse import Event
from gemproxy.log import make_logger
from gemproxy.newapi.headers import to_upstream, without
from gemproxy.newapi.stream import StreamError, UpstreamStream, error_of
from gemproxy.silence import Silence

MODELS_TIMEOUT = 3.0
_DOCUMENT_LIMIT = 256 * 1024 * 1024
_ERROR_LIMIT = 1024 * 1024
# Seconds in which an answered request's connection may end cleanly, to be used again.
_TAIL = 2.0
_PASSED_ERROR_HEADERS = ("retry-after", "x-should-retry")


def base_url(setting: str) -> str:
    """The base URL without its C{/v1}, which people add or not."""
    return setting.rstrip("/").removesuffix("/v1").rstrip("/")


@frozen
class NewApi:
    """
    An OpenAI-compatible upstream.

    @ivar base: its base URL, without C{/v1}.
    @ivar fixed_key: shown to it instead of the client's own key.
    @ivar timeout: seconds of silence after which a request is given up.
    """

    log = make_logger()

    clock: IReactorTime
    agent: IAgent
    base: str
    fixed_key: str | None
    timeout: float

    def complete(self, request: ChatRequest, answer: Answer) -> Deferred[None]:
        return Deferred.fromCoroutine(self._complete(request, answer))

    def models(self, headers: Headers) -> Deferred[list[dict[str, Any]]]:
        return Deferred.fromCoroutine(self._models(headers))

    async def _complete(self, request: ChatRequest, answer: Answer) -> None:
        answer.note("waiting for the upstream")
        silence = Silence(self.clock, self.timeout)
        try:
            await silence.limit(Deferred.fromCoroutine(self._relay(request, answer, silence)))
        except TimeoutError:
            raise upstream_silent(self.timeout) from None
        finally:
            answer.pace(None)

    async def _relay(self, request: ChatRequest, answer: Answer, silence: Silence) -> None:
        headers = without(request.headers, b"accept-encoding", b"content-type", b"accept")
        response = await self._ask(
            b"POST",
            "/v1/chat/completions",
            (*headers, (b"Content-Type", b"application/json"), (b"Accept", b"text/event-stream")),
            streaming_body(request),
        )
        silence.broken()
        if response.code != 200:
            raise await self._refusal(response)
        kind = (response.headers.getRawHeaders(b"content-type") or [b""])[0].lower()
        if kind.startswith(b"application/json"):
            body = await _Reader.read(response, _DOCUMENT_LIMIT, silence.broken)
            wanted = request.include_usage or not request.stream
            answer.events([Event(chunk) for chunk in _document_chunks(body, wanted)])
            return
        reading: Deferred[None] = Deferred()
        reader = _StreamReader(self.clock, answer, silence.broken, reading)
        response.deliverBody(reader)
        try:
            await reading
        except CancelledError:
            reader.abort()
            raise
        finally:
            if reader.stream.broken:
                self.log.warn(
                    "{model}: {count} events of the upstream were no JSON and were left out",
                    model=request.model,
                    count=reader.stream.broken,
                )

    async def _models(self, headers: Headers) -> list[dict[str, Any]]:
        asked = Deferred.fromCoroutine(self._get_models(headers))
        asked.addTimeout(MODELS_TIMEOUT, self.clock)
        try:
            listed = await asked
        except DeferredTimeout:
            raise upstream_silent(MODELS_TIMEOUT) from None
        models = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(models, list):
            raise upstream_failed("The upstream's list of models is none.")
        return [model for model in models if isinstance(model, dict) and model.get("id")]

    async def _get_models(self, headers: Headers) -> Any:
        headers = without(headers, b"accept-encoding")
        response = await self._ask(b"GET", "/v1/models", headers, None)
        if response.code != 200:
            raise await self._refusal(response)
        try:
            return loads(await _Reader.read(response, _DOCUMENT_LIMIT))
        except ValueError:
            raise upstream_failed("The upstream's list of models is not JSON.") from None

    def forward(
        self, method: bytes, target: bytes, headers: Headers, body: IBodyProducer | None
    ) -> Deferred[IResponse]:
        """
        Pass any request on as it is.

        @param target: path, from C{/v1} on, and query.
        """
        sent = HeaderMap()
        for name, value in to_upstream(headers, self.fixed_key):
            sent.addRawHeader(name, value)
        asked = self.agent.request(method, self.base.encode() + target, sent, body)
        return asked.addErrback(_as_chat_error)

    async def _ask(
        self, method: bytes, path: str, headers: Headers, body: bytes | None
    ) -> IResponse:
        """@raise ChatError: 502, it cannot be reached."""
        sent = HeaderMap()
        for name, value in to_upstream(headers, self.fixed_key):
            sent.addRawHeader(name, value)
        # A client of its own for each request: treq's keeps cookies, for everybody.
        client = HTTPClient(self.agent)
        try:
            response = await client.request(
                method.decode(),
                self.base + path,
                headers=sent,
                data=body,
                unbuffered=True,
                allow_redirects=False,
            )
        except CancelledError:
            raise
        except Exception as error:
            raise unreachable(error) from None
        return cast("IResponse", response)

    async def _refusal(self, response: IResponse) -> ChatError:
        """The error that an upstream's response with another status than 200 is."""
        return refusal(response, await _Reader.read(response, _ERROR_LIMIT, whole=False))


def _as_chat_error(failure: Failure) -> Failure:
    failure.trap(Exception)
    if failure.check(CancelledError):
        return failure
    return Failure(unreachable(cast("Exception", failure.value)))


def unreachable(error: Exception) -> ChatError:
    reasons = getattr(error, "reasons", None)
    if reasons:
        error = reasons[0].value
    return upstream_failed(f"The upstream cannot be reached: {str(error) or type(error).__name__}")


def streaming_body(request: ChatRequest) -> bytes:
    """The client's own bytes; or, if it does not stream, its request made a streaming one."""
    if request.stream:
        return request.raw
    options = request.body.get("stream_options") or {}
    return dumps(
        request.body | {"stream": True, "stream_options": options | {"include_usage": True}}
    )


def refusal(response: IResponse, body: bytes) -> ChatError:
    """An upstream's error response, as the error that its client gets."""
    try:
        payload = loads(body)
    except ValueError:
        payload = None
    error = payload.get("error") if isinstance(payload, dict) else None
    fields = error if isinstance(error, dict) else {"message": error}
    status = response.code if response.code >= 400 else 502
    message = fields.get("message") or f"The upstream answered {response.code}."
    if response.code < 400:
        return upstream_failed(f"The upstream answered {response.code} where 200 was expected.")
    content_type = (response.headers.getRawHeaders(b"content-type") or [b"text/plain"])[0]
    passed = tuple(
        (name, value)
        for name in _PASSED_ERROR_HEADERS
        for value in response.headers.getRawHeaders(name) or ()
    )
    return ChatError(
        status,
        str(fields.get("type") or (INVALID_REQUEST if status < 500 else SERVER_ERROR)),
        str(message),
        verbatim=Verbatim(content_type, body, payload if error else None, passed),
    )


def _document_chunks(body: bytes, include_usage: bool) -> list[bytes]:
    """
    @raise ChatError: what the upstream answered is no completion.
    """
    try:
        document = loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise upstream_failed("The upstream's answer is not a JSON object.")
    if document.get("error"):
        raise error_of(document, body)
    if not isinstance(document.get("choices"), list):
        raise upstream_failed("The upstream's answer is not a completion.")
    return chunks_of(document, include_usage)


class _StreamReader(Protocol):
    """Hands on a stream of events as its bytes come, at the client's pace."""

    def __init__(
        self,
        clock: IReactorTime,
        answer: Answer,
        heard: Callable[[], None],
        finished: Deferred[None],
    ) -> None:
        self.stream = UpstreamStream()
        self._clock = clock
        self._answer = answer
        self._heard = heard
        self._finished: Deferred[None] | None = finished
        self._tail: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._answer.pace(cast("IPushProducer", self.transport))

    def dataReceived(self, data: bytes) -> None:
        if self._finished is None:
            return
        self._heard()
        try:
            events = self.stream.feed(data)
        except StreamError as broken:
            self._fail(broken)
            return
        except ValueError as error:
            self._fail(StreamError([], upstream_failed(f"The upstream's answer is none: {error}")))
            return
        if events:
            self._answer.events(events)
        if self.stream.done:
            self._finish(None)
            # Whoever is paced may be paused at this moment, for good.
            transport = cast("IPushProducer", self.transport)
            transport.resumeProducing()
            self._tail = self._clock.callLater(_TAIL, self.abort)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._tail is not None and self._tail.active():
            self._tail.cancel()
        if self._finished is None:
            return
        if not reason.check(ResponseDone, PotentialDataLoss):
            cut = upstream_failed("The upstream broke off in the middle of its answer.")
            self._finish(Failure(cut))
            return
        try:
            events = self.stream.close()
        except StreamError as broken:
            self._fail(broken)
            return
        if events:
            self._answer.events(events)
        self._finish(None)

    def abort(self) -> None:
        """Close the connection to the upstream, if it is still this answer's."""
        self._finished = None
        if self.transport is not None:
            cast("IPushProducer", self.transport).stopProducing()

    def _fail(self, broken: StreamError) -> None:
        if broken.events:
            self._answer.events(broken.events)
        self._finish(Failure(broken.error))
        self.abort()

    def _finish(self, result: Failure | None) -> None:
        finished, self._finished = self._finished, None
        if finished is not None and not finished.called:
            if result is None:
                finished.callback(None)
            else:
                finished.errback(result)


class _Reader(Protocol):
    """Reads a whole body, of limited size."""

    def __init__(
        self,
        limit: int,
        whole: bool,
        heard: Callable[[], None],
        done: Deferred[bytes],
    ) -> None:
        self._limit = limit
        self._whole = whole
        self._heard = heard
        self._done = done
        self._pieces: list[bytes] = []
        self._size = 0

    @classmethod
    async def read(
        cls,
        response: IResponse,
        limit: int,
        heard: Callable[[], None] = lambda: None,
        whole: bool = True,
    ) -> bytes:
        """
        @param whole: whether a body that is cut off, or too large, is no body.
        @raise ChatError: 502, it was.
        """
        done: Deferred[bytes] = Deferred()
        reader = cls(limit, whole, heard, done)
        response.deliverBody(reader)
        try:
            return await done
        except CancelledError:
            reader.stop()
            raise

    def dataReceived(self, data: bytes) -> None:
        self._heard()
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit:
            self.stop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._done.called:
            return
        if self._whole and not reason.check(ResponseDone, PotentialDataLoss):
            self._done.errback(
                Failure(upstream_failed("The upstream broke off in the middle of its answer."))
            )
        else:
            self._done.callback(b"".join(self._pieces))

    def stop(self) -> None:
        if self.transport is not None:
            cast("IPushProducer", self.transport).stopProducing()
