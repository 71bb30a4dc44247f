"""The routes of the dialects, which both ports have."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from gemproxy.dialects.dialect import Counting, Dialect
from gemproxy.dialects.registry import COUNTINGS, DIALECTS
from gemproxy.web.admission import ProxyRequest
from gemproxy.web.app import ProxyApp, Work
from gemproxy.web.dialects import DialectService


class SpeaksDialects(Protocol):
    """
    What the instance does that the application is bound to.

    @ivar dialects: has the responses that are kept.
    """

    dialects: DialectService

    async def answer_in(self, request: ProxyRequest, dialect: Dialect) -> None:
        """Answer a request in a dialect."""

    async def count_in(self, request: ProxyRequest, counting: Counting) -> None:
        """Count the tokens of a request."""

    async def response_not_kept(self, request: ProxyRequest, id: str) -> None:
        """Answer a request about a response that is not kept here."""


def add_dialect_routes(app: ProxyApp) -> None:
    for dialect in DIALECTS:
        answer = _answering(dialect)
        for rule in dialect.rules:
            app.detached(rule)(answer)
    for counting in COUNTINGS:
        endpoint = f"count_{counting.dialect.name}"
        app.route(counting.rule, methods=["POST"], endpoint=endpoint)(_counting(counting))

    @app.route("/v1/responses/<id>", methods=["DELETE", "GET"])
    @app.route("/v1/responses/<id>/input_items", methods=["GET"])
    @app.route("/v1/responses/<id>/cancel", methods=["POST"])
    async def kept_response(proxy: SpeaksDialects, request: ProxyRequest, id: str) -> None:
        if not await proxy.dialects.show_kept(request, id):
            await proxy.response_not_kept(request, id)


def _answering(dialect: Dialect) -> Work:
    def answer(proxy: SpeaksDialects, request: ProxyRequest) -> Coroutine[Deferred[Any], Any, None]:
        return proxy.answer_in(request, dialect)

    return answer


def _counting(counting: Counting) -> Callable[..., Any]:
    async def count(proxy: SpeaksDialects, request: ProxyRequest, **_: str) -> None:
        await proxy.count_in(request, counting)

    return count
