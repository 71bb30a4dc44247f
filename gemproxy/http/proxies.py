"""Which proxy a request goes through, by the variables that curl and others read as well. Pure."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from attrs import Factory, field, frozen

from gemproxy.http.url import Origin

# Without a port, as in other clients.
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]+")
_RULE = re.compile(r"(?:\*?\.)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?")
_WANTED = (
    "expected http://host:port, https://host:port or socks5://host:port; user and password, as in "
    "http://user:password@host:port, need their special characters percent-encoded"
)

PROXY_VARIABLES = tuple(
    style(name)
    for name in ("http_proxy", "https_proxy", "all_proxy")
    for style in (str.lower, str.upper)
)
"""The variables whose values may have a password in them."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@frozen
class Proxy:
    """
    A proxy.

    @ivar scheme: C{http}, C{https} or C{socks5}: how it is spoken to.
    @ivar host: an IPv6 address is without its brackets.
    @ivar user: None if the proxy asks for no user.
    """

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def authorization(self) -> bytes | None:
        """The value of Proxy-Authorization (RFC 7617), if there is a user."""
        if self.user is None:
            return None
        return b"Basic " + base64.b64encode(f"{self.user}:{self.password}".encode())


@frozen
class _Exception:
    """
    An entry of NO_PROXY.

    @ivar name: a domain, with all below it; empty for all hosts.
    @ivar network: of addresses, instead of a name.
    @ivar port: None for all.
    """

    name: str = ""
    network: _Network | None = None
    port: int | None = None

    def covers(self, host: str, port: int) -> bool:
        if self.port not in (None, port):
            return False
        address = _address(host)
        if self.network is not None:
            return address is not None and address in self.network
        if not self.name:
            return True
        return address is None and f".{host}".endswith(f".{self.name}")


@frozen
class Proxies:
    """
    The proxies of an environment.

    @ivar by_scheme: the proxy for the targets of each scheme.
    """

    by_scheme: Mapping[bytes, Proxy] = Factory(dict)
    _exceptions: tuple[_Exception, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Proxies:
        """
        Read HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY. A name in lower case wins.

        @raise ValueError: a value is invalid; the message names the variable, and no password.
        """
        by_scheme = {}
        for scheme in ("http", "https"):
            for name in (f"{scheme}_proxy", "all_proxy"):
                if text := _value(environ, name):
                    by_scheme[scheme.encode()] = _proxy(name.upper(), text)
                    break
        entries = re.split(r"[,\s]+", _value(environ, "no_proxy"))
        return cls(by_scheme, tuple(_exception(entry) for entry in entries if entry))

    @classmethod
    def through(cls, url: str) -> Proxies:
        """
        One proxy for all targets but this machine.

        @raise ValueError: the URL is invalid.
        """
        proxy = _proxy("proxy", url)
        return cls({b"http": proxy, b"https": proxy})

    @property
    def passwords(self) -> list[str]:
        """What must not be shown to anybody."""
        return [proxy.password for proxy in self.by_scheme.values() if proxy.password]

    def of(self, origin: Origin) -> Proxy | None:
        """The proxy for requests to an origin; None if they go there directly."""
        proxy = self.by_scheme.get(origin.scheme)
        host = origin.host.decode("ascii", "replace").lower().rstrip(".")
        if proxy is None or _is_this_machine(host):
            return None
        if any(exception.covers(host, origin.port) for exception in self._exceptions):
            return None
        return proxy


NO_PROXIES = Proxies()


def _value(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    # A CGI server sets HTTP_PROXY to what a client sends as the header Proxy; see httpoxy.org.
    if value is None and not (name == "http_proxy" and "REQUEST_METHOD" in environ):
        value = environ.get(name.upper())
    return (value or "").strip()


def _proxy(name: str, text: str) -> Proxy:
    problem = ValueError(f"{name}: its value is not the address of a proxy; {_WANTED}.")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError:
        raise problem from None
    if parts.scheme not in _PORTS:
        raise ValueError(
            f"{name}: proxies of the kind {parts.scheme}:// are not served; {_WANTED}."
        )
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) or port == 0 or parts.path not in ("", "/"):
        raise problem
    if parts.query or parts.fragment:
        raise problem
    user = None if parts.username is None else unquote(parts.username)
    password = unquote(parts.password or "")
    is_socks = parts.scheme.startswith("socks")
    for word in (user or "", password):
        if not word.isprintable() or (is_socks and len(word.encode()) > 255):
            raise problem
    scheme = "socks5" if is_socks else parts.scheme
    if user == "":
        user = None
    return Proxy(scheme, host, port or _PORTS[parts.scheme], user, password)


def _exception(entry: str) -> _Exception:
    if entry == "*":
        return _Exception()
    try:
        return _Exception(network=ipaddress.ip_network(entry.strip("[]"), strict=False))
    except ValueError:
        pass
    match = _RULE.fullmatch(entry)
    if match is None or int(match[2] or 1) > 65535:
        raise ValueError(
            f"NO_PROXY: {entry!r} is not allowed; expected host names, domains such as "
            ".example.org, addresses, networks such as 10.0.0.0/8, each with a port or without, "
            "or *, comma separated."
        )
    port = int(match[2]) if match[2] else None
    host = match[1].strip("[]").lower().rstrip(".")
    if (address := _address(host)) is not None:
        return _Exception(network=ipaddress.ip_network(address), port=port)
    return _Exception(host, port=port)


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    if address is not None:
        return address.is_loopback
    return host == "localhost" or host.endswith(".localhost")
