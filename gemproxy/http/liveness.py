"""Has the system notice that the other side of a connection has vanished without a word."""

from __future__ import annotations

import socket
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.protocols.policies import ProtocolWrapper


@frozen
class Probes:
    """
    Keep-alive probes, in seconds. See tcp(7). They also keep a connection known to the routers on
    its way.

    @ivar after: the silence before the first one.
    @ivar interval: the time between two; None for the system's.
    @ivar most: unanswered ones after which the connection is closed; None for the system's number.
    """

    after: int
    interval: int | None = None
    most: int | None = None


def probe(tcp: Any | None, probes: Probes) -> None:
    """
    Send probes over a connection.

    @param tcp: see L{tcp_of}.
    """
    if tcp is None:
        return
    tcp.setTcpKeepAlive(True)
    for name, value in (
        ("TCP_KEEPIDLE", probes.after),
        ("TCP_KEEPINTVL", probes.interval),
        ("TCP_KEEPCNT", probes.most),
    ):
        if value is not None:
            _set(tcp, name, value)


def limit_unacknowledged(tcp: Any | None, seconds: float) -> None:
    """
    Close a connection whose other side acknowledges nothing, or takes nothing, for some time.

    @param tcp: see L{tcp_of}.
    @param seconds: 0 for the system's own limit, which is some 15 minutes.
    """
    if tcp is not None:
        _set(tcp, "TCP_USER_TIMEOUT", int(seconds * 1000))


def tcp_of(transport: Any) -> Any | None:
    """The transport with the socket of a connection; None if it is not one of TCP."""
    # A TLS transport wraps the one with the socket.
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    # A UNIX socket's transport provides ITCPTransport as well.
    is_tcp = isinstance(transport.getPeer(), IPv4Address | IPv6Address)
    return transport if is_tcp and hasattr(transport, "getHandle") else None


def _set(transport: Any, name: str, value: int) -> None:
    # Not every system has these options.
    if (option := getattr(socket, name, None)) is not None:
        transport.getHandle().setsockopt(socket.IPPROTO_TCP, option, value)
