"""Ports of the daemon, as services."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    SSL4ServerEndpoint,
    serverFromString,
)
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from gemproxy.http.shared_ports import EncryptedEndpoint, SharedEndpoint
from gemproxy.http.transport import AdoptedEndpoint, PromptEndpoint
from gemproxy.http.write_coalescer import WriteCoalescer

_TCP = (socket.AF_INET, socket.AF_INET6)
# Types of endpoints whose sockets may be served by other processes than the one that made them.
_SHAREABLE = ("tcp", "tcp6", "unix", "ssl", "systemd")


@frozen
class Address:
    """
    Where to listen.

    @ivar port: a TCP port, or the description of a Twisted endpoint, such as
        C{unix:/run/gemproxy.sock} or C{ssl:3443:privateKey=key.pem:certKey=cert.pem}.
    @ivar host: the interface of a TCP port. A description names its own.
    """

    port: int | str
    host: str

    @property
    def is_local(self) -> bool:
        """Whether programs of this machine alone can connect. False if that is not certain."""
        if isinstance(self.port, int):
            return is_loopback(self.host)
        kind, _, rest = self.port.partition(":")
        if kind == "unix":
            return True
        interfaces = [field[10:] for field in rest.split(":") if field.startswith("interface=")]
        return bool(interfaces) and all(is_loopback(name) for name in interfaces)

    @property
    def shown(self) -> str:
        """For the log."""
        return f"http://{self.host}:{self.port}/v1" if isinstance(self.port, int) else self.port

    def endpoint(
        self, reactor: Any, coalescer: WriteCoalescer, overflow: Callable[[], bytes]
    ) -> IStreamServerEndpoint:
        """
        @param overflow: see L{PromptEndpoint}.
        @raise ValueError: the description is not one of an endpoint.
        """
        if isinstance(self.port, int):
            return PromptEndpoint(reactor, self.port, self.host, coalescer, overflow)
        endpoint = _parsed(reactor, self.port)
        if isinstance(endpoint, AdoptedStreamServerEndpoint) and endpoint.addressFamily in _TCP:
            return AdoptedEndpoint(reactor, endpoint.fileno, coalescer, overflow)
        return endpoint

    def held(self, reactor: Any) -> HeldPort:
        """
        The port, for processes that are to share it.

        @raise ValueError: the description is not one of an endpoint, or of one that can be shared.
        """
        if isinstance(self.port, str) and self._type not in _SHAREABLE:
            raise ValueError(
                f"only endpoints of {', '.join(_SHAREABLE)} can be shared by processes"
            )
        return HeldPort(self.endpoint(reactor, WriteCoalescer(), bytes), Factory())

    def shared(
        self,
        reactor: Any,
        descriptor: int,
        is_for_others: Callable[[], bool],
        coalescer: WriteCoalescer,
        overflow: Callable[[], bytes],
    ) -> IStreamServerEndpoint:
        """
        The same as L{endpoint}, at a socket that another process holds.

        @param descriptor: inherited from it.
        @param is_for_others: see L{SharedEndpoint}.
        @raise ValueError: the description is not one of an endpoint.
        """
        endpoint = SharedEndpoint(reactor, descriptor, is_for_others, coalescer, overflow)
        if self._type != "ssl":
            return endpoint
        described = _parsed(reactor, str(self.port))
        assert isinstance(described, SSL4ServerEndpoint)  # noqa: S101 - for mypy
        return EncryptedEndpoint(endpoint, described._sslContextFactory)

    @property
    def _type(self) -> str:
        return str(self.port).partition(":")[0]


def _parsed(reactor: Any, description: str) -> IStreamServerEndpoint:
    """@raise ValueError: it is not one of an endpoint."""
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except Exception as error:
        # Whatever a plugin raises: a file that is missing, an argument that is not known.
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return endpoint


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class PortService(Service):
    """
    Listens while it runs.

    Twisted's StreamServerEndpointService has no public way to report a port that is taken: it
    logs the error, and the daemon runs on without the port.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, factory: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self._listening: Deferred[IListeningPort] | None = None

    def privilegedStartService(self) -> None:
        """Bind before twistd gives up its privileges."""
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """@raise Exception: what kept the endpoint from listening, if that is known at once."""
        super().startService()
        if self._listening is None:
            self._listen()

    def _listen(self) -> None:
        errors: list[Failure] = []
        self._listening = self._endpoint.listen(self._factory)
        self._listening.addErrback(errors.append)
        if errors:
            errors[0].raiseException()

    async def _stop(self, listening: Deferred[IListeningPort]) -> None:
        port = await listening
        # None if it never listened.
        if port is not None:
            await maybeDeferred(port.stopListening)

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        listening, self._listening = self._listening, None
        return None if listening is None else Deferred.fromCoroutine(self._stop(listening))


class HeldPort(PortService):
    """
    A port at which this process accepts nothing: others do, which inherit its socket.

    Connections wait while none of the others is there, and are refused once this one is stopped.
    """

    @property
    def descriptor(self) -> int:
        return int(self._port.fileno())

    def _listen(self) -> None:
        super()._listen()
        self._port.stopReading()

    @property
    def _port(self) -> Any:
        """Endpoints of sockets listen at once."""
        assert self._listening is not None  # noqa: S101 - for mypy
        return self._listening.result
