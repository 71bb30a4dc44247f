"""
The gateway between the CLI and the Gemini API, on loopback.

The CLI is started with this for the address of its API, so every request of it comes through here.
The CLI composes the request from its session; the gateway knows by its marks which conversation it
is for, adds what ACP has no words for (roles, system instruction, generation settings, the key),
takes out what the CLI added by itself, and reads off the reply what ACP does not tell (finish
reason, usage, the API's own errors).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IPushProducer,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure as TwistedFailure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.sse import EventTooLarge
from gemproxy.gemini.cli.marks import ConversationAltered, prompted
from gemproxy.gemini.translate.errors import Failure, api_failure, midway_failure, transient
from gemproxy.gemini.translate.reply import END, Reply
from gemproxy.http.body import BytesBody
from gemproxy.http.confined import ConfinedAgent
from gemproxy.http.errors import describe_request_error
from gemproxy.http.site import QuietSite
from gemproxy.http.url import BaseURL
from gemproxy.util.log import make_logger

_ERROR_BODY_LIMIT = 256 * 1024

_STREAM = re.compile(rb"v1[a-z0-9]*/models/[A-Za-z0-9._-]+:streamGenerateContent")

# What the API may know of the program that asks.
_PASSED_HEADERS = (b"user-agent", b"x-goog-api-client")

Composer = Callable[[dict[str, Any]], dict[str, Any]]


class Exchange:
    """
    One request to the API and its reply.

    @ivar reply: what the API has said so far.
    @ivar failure: why there is no whole reply; None while nothing is known to be wrong.
    @ivar asked: whether the CLI has sent its request.
    @ivar aborted: whether nobody wants the reply any more.
    """

    def __init__(
        self,
        key: str,
        compose: Composer,
        heard: Callable[[], None],
        thought: Callable[[str], None],
    ) -> None:
        """
        @param key: the API key.
        @param compose: makes the API's request of the CLI's.
        @param heard: called whenever the API gave a sign of life.
        @param thought: called with each thought of the model.
        """
        self.reply = Reply()
        self.failure: Failure | None = None
        self.asked = False
        self.key = key
        self.compose = compose
        self._heard = heard
        self._thought = thought
        self._said = 0
        self.aborted = False
        self._connecting: Deferred[IResponse] | None = None
        self._source: IPushProducer | None = None
        self._taps: list[_Tap] = []

    # What the gateway reports:

    def connecting(self, response: Deferred[IResponse]) -> None:
        self.asked = True
        self._connecting = response

    def flowing(self, source: IPushProducer) -> None:
        self._connecting = None
        self._source = source
        if self.aborted:
            source.stopProducing()
        elif self._held_up:
            source.pauseProducing()

    def received(self, data: bytes) -> bytes:
        """Bytes of the reply have come; returns what the CLI is to be told of them."""
        if self.aborted:
            return b""
        try:
            news, thoughts = self.reply.feed(data)
        except EventTooLarge as error:
            self.failure = transient(f"The Gemini API's answer is none: {error}.")
            self.abort()
            return b""
        self._heard()
        for text in thoughts:
            self._thought(text)
        return news

    def ended(self, failure: Failure | None) -> bytes:
        """There is no more to come; returns what the CLI has yet to be told."""
        self._connecting = self._source = None
        news, thoughts = self.reply.close()
        for text in () if self.aborted else thoughts:
            self._thought(text)
        if self.failure is None and self.reply.error is not None:
            self.failure = midway_failure(self.reply.error)
        if self.failure is None:
            self.failure = failure
        self._heard()
        return END if self.aborted else news

    # What the request does:

    def said(self, text: str) -> bool:
        """The CLI says something; returns whether it can have been told that."""
        self._said += len(text)
        return self._said <= self.reply.told

    def abort(self) -> None:
        """Close the connection to the API, at whatever stage it is."""
        self.aborted = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._source is not None:
            self._source.stopProducing()

    def tap(self) -> IPushProducer:
        """The API's side of the connection as a producer, for one more consumer to pause."""
        tap = _Tap(self)
        self._taps.append(tap)
        return tap

    @property
    def _held_up(self) -> bool:
        return any(tap.closed for tap in self._taps)

    def turned(self, tap: _Tap, closed: bool) -> None:
        """A consumer pauses, or no longer does."""
        was_held_up = self._held_up
        tap.closed = closed
        if self._source is None or self._held_up == was_held_up:
            return
        if closed:
            self._source.pauseProducing()
        else:
            self._source.resumeProducing()


@implementer(IPushProducer)
class _Tap:
    """
    What one consumer of an exchange pauses; the API flows while nobody does. A transport pauses
    its producer as often as it is written to while its buffer is full, and resumes it once.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.closed = False
        self._exchange = exchange

    def pauseProducing(self) -> None:
        self._exchange.turned(self, True)

    def resumeProducing(self) -> None:
        self._exchange.turned(self, False)

    def stopProducing(self) -> None:
        self._exchange.abort()


class Gateway(Service):
    """
    Listens for the workers and speaks to the API.

    @ivar url: the base URL for the workers, not to be guessed; known once it runs.
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
        @param endpoint: listens on loopback, and at once.
        @param api_url: the base URL of the API.
        """
        self._reactor = reactor
        self._endpoint = endpoint
        self._agent = agent
        self._api_url = api_url
        self._exchanges: dict[str, Exchange] = {}
        self._port: IListeningPort | None = None
        self._path = b""
        self.url = ""

    def startService(self) -> None:
        super().startService()
        resource = _GatewayResource(self)
        site = QuietSite(resource, reactor=self._reactor)
        self._endpoint.listen(cast("ServerFactory[Any]", site)).addCallback(self._listening)

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        host = cast("IPv4Address", port.getHost())
        secret = secrets.token_urlsafe(18)
        self._path = f"/{secret}/".encode()
        self.url = f"http://127.0.0.1:{host.port}/{secret}"

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        for exchange in self._exchanges.values():
            exchange.abort()
        self._exchanges.clear()
        port, self._port = self._port, None
        return cast("Deferred[None]", port.stopListening()) if port is not None else None

    def open(self, nonce: str, exchange: Exchange) -> None:
        """Expect one request for the conversation whose marks have this nonce."""
        self._exchanges[nonce] = exchange

    def close(self, nonce: str) -> None:
        """Expect it no longer."""
        self._exchanges.pop(nonce, None)

    def serve(self, request: Request) -> None:
        """Pass a worker's request on to the API, and the API's reply to the worker."""
        if not request.path.startswith(self._path):
            _refuse(request, 404)
            return
        path = request.path[len(self._path) :]
        asked = _json_of(request)
        exchange = self._exchanges.get(prompted(asked.get("contents")) or "")
        if exchange is None or exchange.asked or not _STREAM.fullmatch(path):
            self.log.debug("gateway: refused {path!r}", path=path)
            _refuse(request, 404)
            return
        try:
            body = dumps(exchange.compose(asked))
        except ConversationAltered as error:
            exchange.asked = True
            exchange.ended(transient(f"The Gemini CLI altered the conversation: {error}."))
            _refuse(request, 400)
            return
        headers = Headers(
            {b"content-type": [b"application/json"], b"x-goog-api-key": [exchange.key.encode()]}
        )
        for name in _PASSED_HEADERS:
            if values := request.requestHeaders.getRawHeaders(name):
                headers.setRawHeaders(name, values)
        base = self._api_url()
        agent = ConfinedAgent(self._agent, base.origin)
        url = base.join(b"/" + path + b"?alt=sse")
        responding = agent.request(b"POST", url, headers, BytesBody(body))
        exchange.connecting(responding)
        request.notifyFinish().addErrback(lambda _: exchange.abort())
        responding.addCallbacks(
            lambda response: response.deliverBody(
                _ReplyRelay(request, exchange)
                if response.code == 200
                else _ErrorReader(request, exchange, response.code)
            ),
            lambda failure: _unreachable(request, exchange, failure),
        ).addErrback(lambda failure: self.log.failure("gateway failed", failure))


def _unreachable(request: Request, exchange: Exchange, failure: TwistedFailure) -> None:
    if not failure.check(CancelledError):
        error = cast("Exception", failure.value)
        exchange.ended(transient(describe_request_error("The Gemini API", error)))
    _refuse(request, 400)


def _refuse(request: Request, status: int) -> None:
    # 400 for whatever failed: there is nothing that the CLI could do about it.
    if _connected(request):
        request.setResponseCode(status)
        request.setHeader(b"content-type", b"application/json")
        request.write(dumps({"error": {"code": status, "message": "refused", "status": "ABORTED"}}))
        request.finish()


def _json_of(request: Request) -> dict[str, Any]:
    """The body of a request, if it is an object."""
    assert request.content is not None
    try:
        body = loads(request.content.read())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


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
    """Hands a reply to the CLI as it comes, at the CLI's pace."""

    def __init__(self, request: Request, exchange: Exchange) -> None:
        self._request = request
        self._exchange = exchange

    def connectionMade(self) -> None:
        self._exchange.flowing(cast("IPushProducer", self.transport))
        if _connected(self._request):
            self._request.setHeader(b"content-type", b"text/event-stream")
            self._request.registerProducer(self._exchange.tap(), True)

    def dataReceived(self, data: bytes) -> None:
        if news := self._exchange.received(data):
            self._request.write(news)

    def connectionLost(self, reason: TwistedFailure = connectionDone) -> None:
        whole = reason.check(ResponseDone, PotentialDataLoss)
        rest = self._exchange.ended(
            None if whole else transient("The Gemini API broke off in the middle of its answer.")
        )
        if _connected(self._request):
            self._request.write(rest)
            # A clean end even of a broken reply: the CLI then hands on all that did come.
            self._request.unregisterProducer()
            self._request.finish()


class _ErrorReader(Protocol):
    """Keeps the beginning of an error response."""

    def __init__(self, request: Request, exchange: Exchange, status: int) -> None:
        self._request = request
        self._exchange = exchange
        self._status = status
        self._body = b""

    def connectionMade(self) -> None:
        self._exchange.flowing(cast("IPushProducer", self.transport))

    def dataReceived(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > _ERROR_BODY_LIMIT:
            cast("ITransport", self.transport).loseConnection()

    def connectionLost(self, reason: TwistedFailure = connectionDone) -> None:
        self._exchange.ended(api_failure(self._status, self._body))
        _refuse(self._request, 400)
