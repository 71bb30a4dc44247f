"""What the two ports have in common."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from gemproxy.chat.errors import INVALID_REQUEST, ChatError, unknown_url
from gemproxy.chat.request import Headers
from gemproxy.dialects.registry import DIALECTS
from gemproxy.http.client_connections import ClientChannel, Connections, host_of
from gemproxy.http.connection_limits import ConnectionLimiter, RefusedConnections
from gemproxy.http.site import QuietSite
from gemproxy.web.admission import Admission, ProxyRequest
from gemproxy.web.app import ProxyApp
from gemproxy.web.console import add_console_routes
from gemproxy.web.responses import send_error
from gemproxy.web.throttle import AdmissionThrottle
from gemproxy.web.upload import IsStreamed, StreamedRequest, never_streamed

_SERVED = (
    "/v1/chat/completions",
    *(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", dialect.rules[0]) for dialect in DIALECTS),
)
# A sentence of errors.
SERVED_FOR_GEMINI = (
    f"Gemini's models are served at {', '.join(_SERVED)} , /v1/images/generations and "
    "/v1/embeddings, and listed at /v1/models."
)


def headers_of(request: Request) -> Headers:
    """The headers that a client sent; what they say of where it is, only if it is trusted."""
    if isinstance(request, ProxyRequest):
        return request.headers_to_forward()
    return tuple(
        (name, value)
        for name, values in request.requestHeaders.getAllRawHeaders()
        for value in values
    )


def make_app(hint: str = "") -> ProxyApp:
    """
    A Klein application that answers its errors as OpenAI's API does, and has the routes of both
    ports. The instance that it is bound to has a C{health} (L{gemproxy.web.health.Health}) and an
    C{admin} (L{gemproxy.web.admin.Admin}).

    @param hint: what to tell clients that request an unknown path.
    """
    app = ProxyApp()
    add_console_routes(app)

    @app.route("/health", methods=["GET"])
    def health(self: Any, request: IRequest) -> Any:
        return self.health.health(cast("ProxyRequest", request))

    @app.route("/ready", methods=["GET"])
    def ready(self: Any, request: IRequest) -> Any:
        return self.health.ready(cast("ProxyRequest", request))

    @app.route("/metrics", methods=["GET"])
    def metrics(self: Any, request: IRequest) -> Any:
        return self.health.show_metrics(cast("ProxyRequest", request))

    @app.route("/admin/<path:rest>")
    def admin(self: Any, request: IRequest, rest: str) -> Any:
        return self.admin.serve(cast("ProxyRequest", request), f"/admin/{rest}")

    @app.handle_errors(ChatError)
    def refuse(self: Any, request: IRequest, failure: Failure) -> None:
        cast("ProxyRequest", request).send_failure(failure)

    @app.handle_errors(HTTPException)
    def no_such_resource(self: Any, request: IRequest, failure: Failure) -> None:
        request = cast("Request", request)
        method = request.method.decode("ascii", "replace")
        path = request.path.decode("utf-8", "replace")
        error = unknown_url(method, path, hint)
        if isinstance(failure.value, MethodNotAllowed):
            allowed = ", ".join(sorted(failure.value.valid_methods or ()))
            request.setHeader(b"allow", allowed.encode())
            error = ChatError(405, INVALID_REQUEST, f"{path} takes {allowed}, not {method}.")
        send_error(request, error)

    return app


class ProxySite(QuietSite):
    """
    A site of the proxy.

    @ivar connections: of its clients.
    @ivar head_timeout: seconds for the request line and headers of a request to arrive, from the
        beginning of the connection or from their first byte.
    @ivar throttle: has requests begin one after the other.
    """

    protocol = ClientChannel  # type: ignore[assignment]

    def __init__(
        self,
        *args: Any,
        limiter: ConnectionLimiter,
        head_timeout: float,
        throttle: AdmissionThrottle,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.throttle = throttle
        self.connections = Connections(limiter)
        self.head_timeout = head_timeout
        self._refused = RefusedConnections(self.reactor)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        error = self.connections.limiter.refusal(host_of(addr))
        return super().buildProtocol(addr) if error is None else self._refused.protocol(error)

    def stopFactory(self) -> None:
        super().stopFactory()
        self._refused.close()


def make_site(
    resource: Any,
    admission: Admission,
    limiter: ConnectionLimiter,
    reactor: Any,
    is_streamed: IsStreamed = never_streamed,
    turn_lasts: Callable[[], float] = lambda: 0.0,
) -> ProxySite:
    """
    A site that serves a resource to admitted requests.

    @param is_streamed: decides which requests are served while their bodies are still arriving.
    @param turn_lasts: see L{AdmissionThrottle}.
    """
    throttle = AdmissionThrottle(reactor, turn_lasts)
    factory = partial(StreamedRequest, admission, throttle, is_streamed)
    return ProxySite(
        resource,
        factory,
        limiter=limiter,
        head_timeout=admission.limits.headers_timeout,
        throttle=throttle,
        reactor=reactor,
    )
