"""An agent that cannot be made to send a request, and its keys, to another host."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from gemproxy.http.url import Origin, split_url


class ForeignOrigin(ValueError):
    """A request was to go to another place than the configured one. Nothing was sent."""


@implementer(IAgent)
@frozen
class ConfinedAgent:
    """
    Sends requests to one origin only; any other request fails with L{ForeignOrigin}.

    @ivar origin: the configured one.
    """

    agent: IAgent
    origin: Origin

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        try:
            origin, _ = split_url(uri)
        except ValueError:
            return fail()
        if origin != self.origin:
            return fail(ForeignOrigin(f"{origin.netloc!r} is not {self.origin.netloc!r}"))
        return self.agent.request(method, uri, headers, bodyProducer)
