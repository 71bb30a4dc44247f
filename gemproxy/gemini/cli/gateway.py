"""
The gateway between the CLI and the Gemini API, on loopback.

The CLI is configured to use the gateway as its API, so all of its requests pass through here. The
CLI composes the request from its session. The gateway identifies the conversation by its marks,
adds the data that ACP does not support (roles, system instruction, generation settings, the key)
and removes the text added by the CLI. The reply is read here, as it comes, by those who wait for
it: ACP does not report all of it, and the CLI would need a thousand times as long. The CLI gets an
empty reply as soon as its request is on its way, and is free for the next conversation.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from typing import Any, cast

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint

from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.shapes import as_object
from gemproxy.gemini.api.call import ApiCall
from gemproxy.gemini.api.client import GeminiApi
from gemproxy.gemini.cli.marks import ConversationAltered, prompted
from gemproxy.gemini.translate.errors import transient
from gemproxy.http.guarded_server import GuardedFactory, Request, Response
from gemproxy.http.header_map import HeaderMap
from gemproxy.util.log import make_logger

# Bytes of a request of the CLI: a prompt, of which Marks bounds the texts.
_REQUEST_LIMIT = 64 * 1024 * 1024

# All that the CLI is given of a reply. After an empty one it forgets the prompt, so that its
# session is as new; after an error the session could not be used again.
EMPTY = b'data: {"candidates":[{"content":{"role":"model","parts":[]},"finishReason":"STOP"}]}\n\n'

_STREAM = re.compile(rb"v1[a-z0-9]*/models/[A-Za-z0-9._-]+:streamGenerateContent")

# The request headers of the CLI that are passed on to the API.
_PASSED_HEADERS = (b"user-agent", b"x-goog-api-client")

_ANSWERED = Response(b"200 OK", b"text/event-stream", EMPTY)

# For requests that the CLI should not have sent.
_WHY = dumps({"error": {"message": "refused", "status": "ABORTED"}})
_UNEXPECTED = Response(b"404 Not Found", b"application/json", _WHY)
_ALTERED = Response(b"400 Bad Request", b"application/json", _WHY)

Composer = Callable[[dict[str, Any]], bytes]


@frozen
class _Expected:
    """
    A request that the CLI is to send.

    @ivar compose: converts it to the JSON for the API.
    @ivar over: fires when the call has come to its end.
    """

    call: ApiCall
    compose: Composer
    over: Deferred[Any]


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
        factory = GuardedFactory(self.takes, self.serve, _REQUEST_LIMIT, self._reactor)
        self._endpoint.listen(factory).addCallback(self._listening)

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

    def open(self, nonce: str, call: ApiCall, compose: Composer) -> Deferred[Any]:
        """
        Expect one request for the conversation with this nonce. The Deferred fires when the call
        has come to its end. Where no request comes, whoever opened may have it fire instead.

        @param compose: converts the CLI's request to the JSON for the API.
        """
        over: Deferred[Any] = Deferred()
        self._expected[nonce] = _Expected(call, compose, over)
        return over

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

    def serve(self, request: Request) -> Response:
        """Pass a worker's request on to the API. The worker has nothing to do with the reply."""
        asked = _json_of(request.body)
        expected = self._expected.get(prompted(asked.get("contents")) or "")
        if expected is None or expected.call.asked or expected.call.aborted:
            self.log.debug("gateway: refused a request for no conversation")
            return _UNEXPECTED
        call = expected.call
        try:
            body = expected.compose(asked)
        except ConversationAltered as error:
            call.asked = True
            call.ended(transient(f"The Gemini CLI altered the conversation: {error}."))
            expected.over.callback(None)
            return _ALTERED
        headers = HeaderMap()
        for name in _PASSED_HEADERS:
            if (value := request.headers.get(name)) is not None:
                headers.setRawHeaders(name, [value])
        # The CLI replaces the names of some models by those of newer ones: the call has its own.
        self._api.answer(call, body, headers).addErrback(
            lambda failure: self.log.failure("handling a request of a CLI worker failed", failure)
        ).addCallback(expected.over.callback)
        return _ANSWERED


def _json_of(body: bytes) -> dict[str, Any]:
    """The body of a request; an empty dict if it is not a JSON object."""
    try:
        return as_object(loads(body))
    except ValueError:
        return {}
