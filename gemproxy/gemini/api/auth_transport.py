"""How google-auth sends requests: by this daemon's client, with its proxies and certificates."""

from __future__ import annotations

from typing import Any, cast

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.threads import blockingCallFromThread
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from gemproxy.http.body import RepeatableBody, read_body
from gemproxy.http.errors import describe_request_error

# Seconds, unless google-auth says how many.
_PATIENCE = 30.0
_SIZE_LIMIT = 1_000_000


@frozen
class AuthResponse:
    """
    What google-auth wants to know of a response (C{google.auth.transport.Response}).

    @ivar headers: by their names in lower case.
    """

    status: int
    headers: dict[str, str]
    data: bytes = field(repr=False)


@frozen
class AuthTransport:
    """
    Sends a request, as C{google.auth.transport.Request} does. It is called in a thread, and blocks.

    @ivar reactor: Twisted's.
    """

    reactor: Any
    agent: IAgent

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        **others: Any,
    ) -> AuthResponse:
        """
        @param timeout: in seconds.
        @raise google.auth.exceptions.TransportError: there is no response, or an option is unknown.
        """
        from google.auth.exceptions import TransportError

        if others:
            raise TransportError(f"gemproxy cannot ask for a token with {', '.join(others)}.")
        sent = Headers()
        for name, value in (headers or {}).items():
            sent.setRawHeaders(name, [value])
        content = body.encode() if isinstance(body, str) else body

        def ask() -> Deferred[Any]:
            asking = Deferred.fromCoroutine(self._ask(method, url, sent, content))
            return asking.addTimeout(timeout or _PATIENCE, self.reactor)

        try:
            response: Any = blockingCallFromThread(self.reactor, ask)
        except TooLate:
            why = "The server for access tokens did not answer."
        except Exception as error:
            why = describe_request_error("The server for access tokens", error)
        else:
            return cast("AuthResponse", response)
        raise TransportError(why, retryable=True)

    async def _ask(
        self, method: str, url: str, headers: Headers, content: bytes | None
    ) -> AuthResponse:
        # A request for a token that comes twice does no harm.
        body = None if content is None else RepeatableBody(content)
        response = await self.agent.request(method.encode(), url.encode(), headers, body)
        told = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in response.headers.getAllRawHeaders()
        }
        return AuthResponse(response.code, told, await read_body(response, _SIZE_LIMIT))
