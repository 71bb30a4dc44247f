"""
The gateway between the CLI and the Gemini API, on loopback.

The CLI is configured to use the gateway as its API, so all of its requests pass through here. The
CLI composes the request from its session. The gateway identifies the conversation by its marks,
adds the data that ACP does not support (roles, system instruction, generation settings, the key)
and removes the text added by the CLI. From the reply, it reads the data that ACP does not report
(finish reason, usage, the API's errors).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IPushProducer,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from gemproxy.chat.answer_limits import answer_too_large
from gemproxy.chat.errors import ChatError
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object
from gemproxy.chat.sse import EventTooLarge
from gemproxy.gemini.cli.marks import ConversationAltered, prompted
from gemproxy.gemini.translate.errors import AttemptFailure, api_failure, midway_failure, transient
from gemproxy.gemini.translate.reply import END, Reply, Thought
from gemproxy.http.body import RepeatableBody, read_beginning
from gemproxy.http.confined import ConfinedAgent
from gemproxy.http.errors import describe_request_error
from gemproxy.http.guarded_site import guarded_site
from gemproxy.http.url import BaseURL
from gemproxy.util.log import make_logger

# Bytes of a request of the CLI: the whole of a session, of which CliLimits bounds the prompts, and
# the answers.
_REQUEST_LIMIT = 64 * 1024 * 1024
_ERROR_BODY_LIMIT = 256 * 1024
# Seconds to wait for the body of an error response.
_ERROR_PATIENCE = 30.0

_STREAM = re.compile(rb"(v1[a-z0-9]*)/models/[A-Za-z0-9._-]+:streamGenerateContent")

# The request headers of the CLI that are passed on to the API.
_PASSED_HEADERS = (b"user-agent", b"x-goog-api-client")

Composer = Callable[[dict[str, Any]], bytes]


class ApiCall:
    """
    One request to the API and its reply.

    @ivar reply: the reply received so far.
    @ivar failure: the reason why the reply is missing or incomplete; None if no error is known.
    @ivar asked: whether the CLI has sent its request.
    @ivar aborted: whether the call was aborted.
    """

    def __init__(
        self,
        model: str,
        key: str,
        compose: Composer,
        heard: Callable[[], None],
        thought: Callable[[Thought], None],
        reply: Reply,
        reply_limit: int,
    ) -> None:
        """
        @param model: the model to be asked, by the name that the client gave.
        @param key: the API key.
        @param compose: converts the CLI's request to the JSON for the API.
        @param heard: called whenever the API has sent data.
        @param thought: called with each thought of the model.
        @param reply: takes the reply.
        @param reply_limit: the most bytes to pass to the CLI.
        """
        self.reply = reply
        self.failure: AttemptFailure | None = None
        self.asked = False
        self.model = model
        self.key = key
        self.compose = compose
        self._heard = heard
        self._thought = thought
        self._said = 0
        self._reply_limit = reply_limit
        self._passed = 0
        self.aborted = False
        self._awaited: Deferred[Any] | None = None
        self._source: IPushProducer | None = None
        self._valves: list[_Valve] = []

    # Called by the gateway:

    def connecting(self, response: Deferred[IResponse]) -> None:
        self.asked = True
        self._awaited = response

    def reading_error(self, body: Deferred[bytes]) -> None:
        """The API has sent an error status; its body is being received."""
        self._awaited = body
        if self.aborted:
            body.cancel()

    def flowing(self, source: IPushProducer) -> None:
        self._awaited = None
        self._source = source
        if self.aborted:
            source.stopProducing()
        elif self._held_up:
            source.pauseProducing()

    def received(self, data: bytes) -> bytes:
        """
        Process bytes of the reply; returns the bytes to pass to the CLI. A reply that is too large
        is ended, for the CLI as if that was its end.
        """
        if self.aborted:
            return b""
        try:
            news, thoughts = self.reply.feed(data)
            self._passed += len(news)
            if self._passed > self._reply_limit:
                raise answer_too_large(
                    f"is larger than the {self._reply_limit} bytes that the Gemini CLI is given"
                )
        except EventTooLarge as error:
            return self._end_early(answer_too_large(f"has {error}"))
        except ChatError as error:
            return self._end_early(error)
        self._heard()
        for thought in thoughts:
            self._thought(thought)
        return news

    def _end_early(self, error: ChatError) -> bytes:
        self.failure = AttemptFailure(error, retryable=False)
        self.abort()
        return b""

    def ended(self, failure: AttemptFailure | None) -> bytes:
        """Process the end of the reply; returns the remaining bytes to pass to the CLI."""
        self._awaited = self._source = None
        news = b""
        if not self.aborted:
            news = self._rest()
        if self.failure is None and self.reply.error is not None:
            self.failure = midway_failure(self.reply.error)
        if self.failure is None:
            self.failure = failure
        self._heard()
        return END if self.aborted else news

    def _rest(self) -> bytes:
        """What is left of the reply at its end, for the CLI."""
        try:
            news, thoughts = self.reply.close()
        except ChatError as error:
            self.failure = AttemptFailure(error, retryable=False)
            return END
        for text in thoughts:
            self._thought(text)
        return news

    # Called by the attempt:

    def said(self, text: str) -> bool:
        """Check text written by the CLI; returns whether the API may have sent it."""
        self._said += len(text)
        return self._said <= self.reply.told

    def abort(self) -> None:
        """Close the connection to the API at any stage, and release the request."""
        self.aborted = True
        self.compose = _forgotten
        if self._awaited is not None:
            self._awaited.cancel()
        if self._source is not None:
            self._source.stopProducing()

    def valve(self) -> IPushProducer:
        """Create a producer with which one more consumer can pause the reply."""
        valve = _Valve(self)
        self._valves.append(valve)
        return valve

    @property
    def _held_up(self) -> bool:
        return any(valve.closed for valve in self._valves)

    def turned(self, valve: _Valve, closed: bool) -> None:
        """A consumer has paused or resumed."""
        was_held_up = self._held_up
        valve.closed = closed
        if self._source is None or self._held_up == was_held_up:
            return
        if closed:
            self._source.pauseProducing()
        else:
            self._source.resumeProducing()


def _forgotten(asked: dict[str, Any]) -> bytes:
    raise ConversationAltered("it is over")


@implementer(IPushProducer)
class _Valve:
    """
    Pauses a reply on behalf of one consumer; the reply flows while no consumer pauses it. A
    transport pauses its producer at each write while its buffer is full, but resumes it only once.
    """

    def __init__(self, api_call: ApiCall) -> None:
        self.closed = False
        self._api_call = api_call

    def pauseProducing(self) -> None:
        self._api_call.turned(self, True)

    def resumeProducing(self) -> None:
        self._api_call.turned(self, False)

    def stopProducing(self) -> None:
        self._api_call.abort()


class Gateway(Service):
    """
    Accepts requests from the workers and sends them to the API.

    @ivar url: the base URL for the workers; unguessable, and known once the service is running.
    """

    log = make_logger()

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamServerEndpoint,
        agent: IAgent,
        api_url: Callable[[], BaseURL],
    ) -> None:
        """
        @param endpoint: an endpoint on loopback that listens at once.
        @param api_url: the base URL of the API.
        """
        self._reactor = reactor
        self._endpoint = endpoint
        self._agent = agent
        self._api_url = api_url
        self._api_calls: dict[str, ApiCall] = {}
        self._port: IListeningPort | None = None
        self._path = b""
        self.url = ""

    def startService(self) -> None:
        super().startService()
        resource = _GatewayResource(self)
        site = guarded_site(resource, self.takes, _REQUEST_LIMIT, self._reactor)
        self._endpoint.listen(cast("ServerFactory[Any]", site)).addCallback(self._listening)

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        host = cast("IPv4Address", port.getHost())
        secret = secrets.token_urlsafe(18)
        self._path = f"/{secret}/".encode()
        self.url = f"http://127.0.0.1:{host.port}/{secret}"

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        for api_call in self._api_calls.values():
            api_call.abort()
        self._api_calls.clear()
        port, self._port = self._port, None
        return cast("Deferred[None]", port.stopListening()) if port is not None else None

    def open(self, nonce: str, api_call: ApiCall) -> None:
        """Expect one request for the conversation with this nonce."""
        self._api_calls[nonce] = api_call

    def close(self, nonce: str) -> None:
        """Stop expecting a request for this conversation."""
        self._api_calls.pop(nonce, None)

    def takes(self, method: bytes, target: bytes) -> bool:
        """Whether a request may be a worker's: nobody else knows the path."""
        prefix, path = target[: len(self._path)], target[len(self._path) :]
        is_ours = hmac.compare_digest(prefix, self._path)
        if is_ours and (method != b"POST" or not _STREAM.fullmatch(path.partition(b"?")[0])):
            self.log.debug("gateway: refused {method} {path!r}", method=method, path=path)
            return False
        return is_ours

    def serve(self, request: Request) -> None:
        """Pass a worker's request on to the API, and the API's reply to the worker."""
        asked = _json_of(request)
        api_call = self._api_calls.get(prompted(asked.get("contents")) or "")
        method = _STREAM.fullmatch(request.path[len(self._path) :])
        if api_call is None or api_call.asked or method is None:
            self.log.debug("gateway: refused a request for no conversation")
            _refuse(request, 404)
            return
        try:
            body = api_call.compose(asked)
        except ConversationAltered as error:
            api_call.asked = True
            api_call.ended(transient(f"The Gemini CLI altered the conversation: {error}."))
            _refuse(request, 400)
            return
        headers = Headers(
            {b"content-type": [b"application/json"], b"x-goog-api-key": [api_call.key.encode()]}
        )
        for name in _PASSED_HEADERS:
            if values := request.requestHeaders.getRawHeaders(name):
                headers.setRawHeaders(name, values)
        base = self._api_url()
        agent = ConfinedAgent(self._agent, base.origin)
        # The CLI replaces the names of some models by those of newer ones.
        model = api_call.model.encode("ascii")
        url = base.join(b"/%b/models/%b:streamGenerateContent?alt=sse" % (method[1], model))
        # A request that comes twice costs, and has no other effect.
        responding = agent.request(b"POST", url, headers, RepeatableBody(body))
        api_call.connecting(responding)
        request.notifyFinish().addErrback(lambda _: api_call.abort())
        responding.addCallbacks(
            lambda response: self._answered(request, api_call, response),
            lambda failure: _unreachable(request, api_call, failure),
        ).addErrback(
            lambda failure: self.log.failure("handling a request of a CLI worker failed", failure)
        )

    def _answered(
        self, request: Request, api_call: ApiCall, response: IResponse
    ) -> Deferred[None] | None:
        if response.code == 200:
            response.deliverBody(_ReplyRelay(request, api_call))
            return None
        return Deferred.fromCoroutine(self._read_error(request, api_call, response))

    async def _read_error(self, request: Request, api_call: ApiCall, response: IResponse) -> None:
        reading = Deferred.fromCoroutine(
            read_beginning(response, _ERROR_BODY_LIMIT, self._reactor, _ERROR_PATIENCE)
        )
        api_call.reading_error(reading)
        with suppress(CancelledError):
            api_call.ended(api_failure(response.code, await reading))
        _end(request)


def _unreachable(request: Request, api_call: ApiCall, failure: Failure) -> None:
    if not failure.check(CancelledError):
        error = cast("Exception", failure.value)
        api_call.ended(transient(describe_request_error("The Gemini API", error)))
    _end(request)


def _end(request: Request) -> None:
    """
    End a call that has no reply as if it had an empty one. After an error the CLI's session could
    not be used again, and the CLI cannot do anything about it.
    """
    if _connected(request):
        request.setHeader(b"content-type", b"text/event-stream")
        request.write(END)
        request.finish()


def _refuse(request: Request, status: int) -> None:
    """Refuse a request that the CLI should not have sent."""
    if _connected(request):
        request.setResponseCode(status)
        request.setHeader(b"content-type", b"application/json")
        request.write(dumps({"error": {"code": status, "message": "refused", "status": "ABORTED"}}))
        request.finish()


def _json_of(request: Request) -> dict[str, Any]:
    """The body of a request; an empty dict if it is not a JSON object."""
    assert request.content is not None  # noqa: S101 - for mypy
    try:
        return as_object(loads(request.content.read()))
    except ValueError:
        return {}


def _connected(request: Request) -> bool:
    return request.channel is not None


class _GatewayResource(Resource):
    isLeaf = True

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway

    def render_POST(self, request: Request) -> int:
        self._gateway.serve(request)
        return NOT_DONE_YET


class _ReplyRelay(Protocol):
    """Passes a reply to the CLI as it is received, at the CLI's pace."""

    def __init__(self, request: Request, api_call: ApiCall) -> None:
        self._request = request
        self._api_call = api_call

    def connectionMade(self) -> None:
        self._api_call.flowing(cast("IPushProducer", self.transport))
        if _connected(self._request):
            self._request.setHeader(b"content-type", b"text/event-stream")
            self._request.registerProducer(self._api_call.valve(), True)

    def dataReceived(self, data: bytes) -> None:
        if news := self._api_call.received(data):
            self._request.write(news)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        whole = reason.check(ResponseDone, PotentialDataLoss)
        rest = self._api_call.ended(
            None if whole else transient("The Gemini API's response ended before it was complete.")
        )
        if _connected(self._request):
            self._request.write(rest)
            # An incomplete reply is ended regularly as well, so that the CLI passes on all of its
            # text.
            self._request.unregisterProducer()
            self._request.finish()
