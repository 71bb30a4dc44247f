"""
What is said to a proxy until it has connected to the target. No I/O.

A handshake is a generator: it yields what to send and how much to wait for, and is sent that.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Generator
from typing import NamedTuple

from gemproxy.http.proxies import Proxy

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: ([^\r\n]*))?\r?\n")
_PHRASE_LENGTH = 100
# RFC 1928 section 6.
_SOCKS_ERRORS = {
    1: "it has failed",
    2: "its rules do not allow it",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the connection was refused",
    6: "it took too long",
}
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NO_AUTHENTICATION, _USER_AND_PASSWORD = 0, 2


class ProxyRefused(Exception):
    """Continues a sentence that begins with the proxy's name."""


class Step(NamedTuple):
    """
    @ivar size: the number of bytes to wait for; None for all up to an empty line.
    """

    send: bytes
    size: int | None


Handshake = Generator[Step, bytes, None]


def no_handshake() -> Handshake:
    """For a proxy that each request is addressed to."""
    yield from ()


def http_connect(proxy: Proxy, host: str, port: int) -> Handshake:
    """
    RFC 9110 section 9.3.6.

    @raise ProxyRefused: the proxy does not connect to the target.
    """
    name = f"[{host}]" if ":" in host else host
    authority = f"{name}:{port}".encode()
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: " + authority]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    head = yield Step(b"\r\n".join([*lines, b"", b""]), None)
    status_line = _STATUS_LINE.match(head)
    if status_line is None:
        raise ProxyRefused("sent no HTTP response")
    code, phrase = int(status_line[1]), (status_line[2] or b"").decode("latin-1")
    if not 200 <= code < 300:
        answer = f"{code} {phrase[:_PHRASE_LENGTH]}".strip()
        raise ProxyRefused(f"answered CONNECT {authority.decode()} with status {answer}")


def socks5(proxy: Proxy, host: str, port: int) -> Handshake:
    """
    RFC 1928 and 1929. The proxy resolves names.

    @raise ProxyRefused: the proxy does not connect to the target.
    """
    offered = [_NO_AUTHENTICATION] if proxy.user is None else [_USER_AND_PASSWORD]
    version, method = yield Step(bytes([5, len(offered), *offered]), 2)
    if version != 5:
        raise ProxyRefused("does not speak SOCKS 5")
    if method not in offered:
        known = "takes no user and password" if proxy.user else "asks for a user and password"
        raise ProxyRefused(known)
    if method == _USER_AND_PASSWORD:
        user, password = (proxy.user or "").encode(), proxy.password.encode()
        said = b"\1%b%b%b%b" % (bytes([len(user)]), user, bytes([len(password)]), password)
        _, status = yield Step(said, 2)
        if status:
            raise ProxyRefused("refused the user and password")
    target = _socks_address(host) + port.to_bytes(2, "big")
    _, status, _, kind = yield Step(b"\5\1\0" + target, 4)
    if status:
        reason = _SOCKS_ERRORS.get(status, f"SOCKS error {status}")
        raise ProxyRefused(f"did not connect to {host}, port {port}: {reason}")
    # The address that it connects from, which does not matter.
    size = {_IPV4: 4, _IPV6: 16}.get(kind)
    if size is None:
        [size] = yield Step(b"", 1)
    yield Step(b"", size + 2)


def _socks_address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if len(name) > 255:
            raise ProxyRefused("cannot be asked for a name that is too long") from None
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed
