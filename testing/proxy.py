"""A proxy of the tests' own: CONNECT, requests in absolute form, and SOCKS 5, on one port."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure


@define
class Asked:
    """
    What a client asked of the proxy.

    @ivar how: C{CONNECT}, C{SOCKS}, or the method of a request in absolute form.
    @ivar target: host and port, or the URL.
    """

    how: str
    target: str
    headers: dict[str, str] = field(factory=dict)


class ProxyServer:
    """
    Listens on a port of its own, and finds every target on this machine.

    @ivar targets: by host and port, the port where the target is.
    @ivar asked: all that was asked for, the oldest first.
    @ivar opened: the number of connections.
    @ivar heard: the number of bytes before it connected further.
    @ivar user: user and password, if they are needed.
    @ivar silent: whether it answers nothing.
    """

    def __init__(self, user: str | None = None, tls: Any = None) -> None:
        self.targets: dict[str, int] = {}
        self.asked: list[Asked] = []
        self.opened = 0
        self.heard = 0
        self.user = user
        self.silent = False
        self.connections: set[Protocol] = set()
        factory = Factory.forProtocol(lambda: _Client(self))
        factory.noisy = False
        if tls is None:
            self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            self._port = reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        self.number: int = self._port.getHost().port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.number}"

    async def stop(self) -> None:
        await self._port.stopListening()
        for connection in list(self.connections):
            connection.transport.abortConnection()
        while self.connections:
            await deferLater(reactor, 0)


class _Client(Protocol):
    """A client's connection. After the first request it is a pipe to the target."""

    def __init__(self, proxy: ProxyServer) -> None:
        self._proxy = proxy
        self._received = b""
        self._read: Any = self._begin
        self._other: _Target | None = None

    def connectionMade(self) -> None:
        self._proxy.opened += 1
        self._proxy.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._proxy.connections.discard(self)
        if self._other is not None:
            self._other.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._other is not None:
            self._other.transport.write(data)
            return
        self._received += data
        self._proxy.heard += len(data)
        if not self._proxy.silent:
            self._read()

    def _take(self, size: int) -> bytes:
        piece, self._received = self._received[:size], self._received[size:]
        return piece

    def _begin(self) -> None:
        self._read = self._greeting if self._received[:1] == b"\5" else self._head
        self._read()

    # HTTP:

    def _head(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        line, *fields = self._take(end + 4)[:-4].decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        headers = {n.lower(): v.strip() for n, _, v in (f.partition(":") for f in fields)}
        self._proxy.asked.append(Asked(method, target, headers))
        user = self._proxy.user
        if user is not None:
            wanted = "Basic " + base64.b64encode(user.encode()).decode()
            if headers.get("proxy-authorization") != wanted:
                self._answer(407, "Proxy Authentication Required")
                return
        if method == "CONNECT":
            self._connect(target, b"HTTP/1.1 200 Connection established\r\n\r\n")
            return
        authority, _, path = target.removeprefix("http://").partition("/")
        kept = [f for f in fields if not f.lower().startswith("proxy-")]
        self._received = "\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "", ""]).encode() + (
            self._received
        )
        self._connect(authority if ":" in authority else f"{authority}:80", b"")

    def _answer(self, status: int, reason: str) -> None:
        self.transport.write(f"HTTP/1.1 {status} {reason}\r\nContent-Length: 0\r\n\r\n".encode())

    # SOCKS, as far as a client needs it that sends whole messages:

    def _greeting(self) -> None:
        methods = self._received[2:]
        self._received = b""
        wanted = 0 if self._proxy.user is None else 2
        method = wanted if wanted in methods else 255
        self.transport.write(bytes([5, method]))
        self._read = self._user if method == 2 else self._socks_request

    def _user(self) -> None:
        size = self._received[1]
        user, password = self._received[2 : 2 + size], self._received[3 + size :]
        self._received = b""
        is_right = f"{user.decode()}:{password.decode()}" == self._proxy.user
        self.transport.write(b"\1\0" if is_right else b"\1\1")
        self._read = self._socks_request

    def _socks_request(self) -> None:
        data, self._received = self._received, b""
        port = int.from_bytes(data[-2:], "big")
        address = data[4:-2]
        host = address[1:].decode() if data[3] == 3 else str(ipaddress.ip_address(address))
        target = f"{host}:{port}"
        self._proxy.asked.append(Asked("SOCKS", target))
        if target in self._proxy.targets:
            self._connect(target, b"\5\0\0\3\4host\0\1")
        else:
            self.transport.write(b"\5\4\0\1\0\0\0\0\0\0")

    def _connect(self, target: str, answer: bytes) -> None:
        port = self._proxy.targets.get(target)
        if port is None:
            self._answer(502, "Bad Gateway")
            return
        self._read = lambda: None
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        connecting = endpoint.connect(Factory.forProtocol(lambda: _Target(self)))
        connecting.addCallback(self._connected, answer)

    def _connected(self, target: _Target, answer: bytes) -> None:
        self._other = target
        self.transport.write(answer)
        target.transport.write(self._received)
        self._received = b""
        self.transport.registerProducer(target.transport, True)
        target.transport.registerProducer(self.transport, True)


class _Target(Protocol):
    """A connection to a target."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    def connectionMade(self) -> None:
        self._client._proxy.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._client.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._client._proxy.connections.discard(self)
        self._client.transport.unregisterProducer()
        self._client.transport.loseConnection()
