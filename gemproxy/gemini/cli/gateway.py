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
from typing import Any, cast

from attrs import define, frozen
from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from gemproxy.chat.answer_limits import answer_too_large
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object
from gemproxy.gemini.api.call import ApiCall
from gemproxy.gemini.api.client import GeminiApi
from gemproxy.gemini.cli.marks import ConversationAltered, prompted
from gemproxy.gemini.cli.reply_events import END, event_of
from gemproxy.gemini.translate.errors import transient
from gemproxy.gemini.translate.reply import News
from gemproxy.http.guarded_site import guarded_site
from gemproxy.util.log import make_logger

# Bytes of a request of the CLI: the whole of a session, of which CliLimits bounds the prompts, and
# the answers.
_REQUEST_LIMIT = 64 * 1024 * 1024

_STREAM = re.compile(rb"v1[a-z0-9]*/models/[A-Za-z0-9._-]+:streamGenerateContent")

# The request headers of the CLI that are passed on to the API.
_PASSED_HEADERS = (b"user-agent", b"x-goog-api-client")

Composer = Callable[[dict[str, Any]], bytes]


@frozen
class _Expected:
    """
    A request that the CLI is to send.

    @ivar compose: converts it to the JSON for the API.
    @ivar reply_limit: the most bytes of the reply that the CLI is given.
    """

    call: ApiCall
    compose: Composer
    reply_limit: int


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
        api: GeminiApi,
    ) -> None:
        """@param endpoint: an endpoint on loopback that listens at once."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._api = api
        self._expected: dict[str, _Expected] = {}
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
        for expected in self._expected.values():
            expected.call.abort()
        self._expected.clear()
        port, self._port = self._port, None
        return cast("Deferred[None]", port.stopListening()) if port is not None else None

    def open(self, nonce: str, call: ApiCall, compose: Composer, reply_limit: int) -> None:
        """
        Expect one request for the conversation with this nonce.

        @param compose: converts the CLI's request to the JSON for the API.
        @param reply_limit: the most bytes of the reply that the CLI is given.
        """
        self._expected[nonce] = _Expected(call, compose, reply_limit)

    def close(self, nonce: str) -> None:
        """Stop expecting a request for this conversation."""
        self._expected.pop(nonce, None)

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
        expected = self._expected.get(prompted(asked.get("contents")) or "")
        if expected is None or expected.call.asked or expected.call.aborted:
            self.log.debug("gateway: refused a request for no conversation")
            _refuse(request, 404)
            return
        call = expected.call
        try:
            body = expected.compose(asked)
        except ConversationAltered as error:
            call.asked = True
            call.ended(transient(f"The Gemini CLI altered the conversation: {error}."))
            _refuse(request, 400)
            return
        headers = Headers()
        for name in _PASSED_HEADERS:
            if values := request.requestHeaders.getRawHeaders(name):
                headers.setRawHeaders(name, values)
        request.notifyFinish().addErrback(lambda _: call.abort())
        # The CLI replaces the names of some models by those of newer ones: the call has its own.
        sink = _ToCli(request, call, expected.reply_limit)
        Deferred.fromCoroutine(self._api.answer(call, body, sink, headers)).addErrback(
            lambda failure: self.log.failure("handling a request of a CLI worker failed", failure)
        )


@define
class _ToCli:
    """
    Passes a reply to the CLI as it is received, at the CLI's pace. A call that fails ends for the
    CLI as if that was all: after an error its session could not be used again, and the CLI cannot
    do anything about it.
    """

    _request: Request
    _call: ApiCall
    _limit: int
    _passed: int = 0
    _has_begun: bool = False

    def begun(self) -> None:
        if _connected(self._request):
            self._has_begun = True
            self._request.setHeader(b"content-type", b"text/event-stream")
            self._request.registerProducer(self._call.valve(), True)

    def told(self, news: News) -> None:
        event = event_of(news)
        self._passed += len(event)
        if self._passed > self._limit:
            self._call.fail(
                answer_too_large(
                    f"is larger than the {self._limit} bytes that the Gemini CLI is given"
                )
            )
        elif _connected(self._request):
            self._request.write(event)

    def over(self) -> None:
        if not _connected(self._request):
            return
        if self._has_begun:
            self._request.unregisterProducer()
        else:
            self._request.setHeader(b"content-type", b"text/event-stream")
        # An incomplete reply is ended regularly as well, so that the CLI passes on all of its text.
        if self._call.aborted or not self._has_begun:
            self._request.write(END)
        self._request.finish()


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
