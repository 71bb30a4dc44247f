"""
A server that speaks Redis' protocol, Valkey or Redis: how it is reached, and asked. The protocol is
txredisapi's; connecting is done here, because its own factories give up for good when a password
is refused, and do not look at certificates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from hiredis import pack_command
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from txredisapi import InvalidData, RedisProtocol, ResponseError

from gemproxy.http.errors import describe_request_error
from gemproxy.state.shared import PROBES
from gemproxy.state.url import Place, StateUrl

# Seconds for a connection to be made, and for the server's part in it.
CONNECT_PATIENCE = 5.0


class NotServing(Exception):
    """The server, or all of its Sentinels, cannot be used; the message says why."""


class ServerProtocol(RedisProtocol):  # type: ignore[misc]
    """
    A connection; answers are bytes, integers and lists of them. Commands may be sent before others
    are answered.

    @ivar when_lost: called once it is gone.
    @ivar loss: why it is gone.
    """

    when_lost: Callable[[], None] | None = None
    loss: Exception | None = None

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)

    def _build_command(self, *words: object, **_: object) -> bytes:
        # txredisapi's own takes as long as all the rest of a question.
        packed: bytes = pack_command(cast("tuple[Any]", words))
        return packed

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        try:
            super().dataReceived(data, unpause)
        except InvalidData as error:
            self.loss = NotServing(f"it does not speak Redis' protocol: {error}")
            self.end()

    def connectionLost(self, why: Failure) -> None:
        self.loss = self.loss or cast("Exception", why.value)
        super().connectionLost(why)
        if self.when_lost is not None:
            self.when_lost()

    def ask(self, *words: object) -> Deferred[Any]:
        """
        @return: fails with txredisapi's RedisError; its ResponseError if the server says that
            something is wrong.
        @raise txredisapi.RedisError: there is no connection, or a word cannot be sent.
        """
        return cast("Deferred[Any]", self.execute_command(*words))

    def end(self) -> None:
        """Close it at once; what was not answered fails."""
        self.transport.abortConnection()


class Server:
    """Where a server is, by its URL; behind Sentinels, wherever they say at the time."""

    def __init__(self, reactor: Any, url: StateUrl) -> None:
        self._reactor = reactor
        self.url = url

    async def connect(self) -> ServerProtocol:
        """
        A connection that is ready to be used.

        @raise Exception: there is none, see L{describe}.
        """
        url = self.url
        if url.path is not None:
            endpoint: IStreamClientEndpoint = UNIXClientEndpoint(
                self._reactor, url.path, CONNECT_PATIENCE
            )
        else:
            endpoint = self._endpoint(url.places[0] if url.name is None else await self._master())
        return await self._opened(endpoint, self._greet)

    async def problem(self) -> str | None:
        """Why it cannot be used, see L{describe}; None if it can."""
        try:
            connection = await self.connect()
            try:
                for probe in PROBES:
                    await connection.ask(*probe).addTimeout(CONNECT_PATIENCE, self._reactor)
            finally:
                connection.end()
        except Exception as error:
            return self.describe(error)
        return None

    @staticmethod
    def is_refusal(error: BaseException) -> bool:
        """Whether an error is the server's word; the connection may be used again."""
        return isinstance(error, ResponseError)

    @classmethod
    def describe(cls, error: BaseException) -> str:
        """Why it cannot be used, as a sentence about "it" without a full stop."""
        if isinstance(error, TimeoutError):
            return f"it did not answer within {CONNECT_PATIENCE:g} s"
        if isinstance(error, NotServing):
            return str(error)
        if cls.is_refusal(error):
            return f"it says: {error}".rstrip(".")
        return describe_request_error("it", cast("Exception", error)).rstrip(".")

    async def _opened(
        self,
        endpoint: IStreamClientEndpoint,
        greet: Callable[[ServerProtocol], Any],
    ) -> ServerProtocol:
        protocol = cast("ServerProtocol", await endpoint.connect(_Factory()))
        try:
            greeting = Deferred.fromCoroutine(greet(protocol))
            await greeting.addTimeout(CONNECT_PATIENCE, self._reactor)
        except BaseException:
            if protocol.loss is not None:
                # It says more, such as what is wrong with a certificate.
                raise protocol.loss from None
            protocol.end()
            raise
        return protocol

    async def _greet(self, protocol: ServerProtocol) -> None:
        url = self.url
        if url.password is not None:
            names = () if url.user is None else (url.user,)
            await protocol.ask("AUTH", *names, url.password)
        if url.database:
            await protocol.ask("SELECT", url.database)
        if url.name is not None and (await protocol.ask("ROLE"))[0] != b"master":
            raise NotServing("its Sentinels name a server that is not the master")
        await protocol.ask("PING")

    async def _master(self) -> Place:
        """Where the Sentinels say that the server is: the word of the first that knows."""
        last: Exception = NotServing(f"no Sentinel knows of '{self.url.name}'")
        for place in self.url.places:
            try:
                sentinel = await self._opened(self._endpoint(place), _nothing)
                try:
                    asking = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.url.name)
                    found = await asking.addTimeout(CONNECT_PATIENCE, self._reactor)
                finally:
                    sentinel.end()
            except Exception as error:
                last = error
            else:
                if found:
                    return found[0].decode(), int(found[1])
        raise last

    def _endpoint(self, place: Place) -> IStreamClientEndpoint:
        endpoint = HostnameEndpoint(self._reactor, *place, timeout=CONNECT_PATIENCE)
        if not self.url.is_encrypted:
            return endpoint
        return wrapClientTLS(optionsForClientTLS(place[0]), endpoint)


class _Factory(Factory):
    noisy = False
    protocol = ServerProtocol


async def _nothing(protocol: ServerProtocol) -> None:
    pass
