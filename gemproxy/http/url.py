"""URLs of upstreams: built from parsed parts, so that no request target can change the host."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from attrs import frozen

_DEFAULT_PORTS = {b"http": 80, b"https": 443}
# The origin, and the target; a fragment is never sent.
_URL = re.compile(rb"(https?://[^/?#\\@\s]+)((?:[/?][^#\s]*)?)(?:#\S*)?", re.I)
_TARGET = re.compile(rb"/[!-\"$-~]*")


class Origin(NamedTuple):
    """
    Scheme, host and port: where a connection goes.

    @ivar host: in lower case; an IPv6 address without its brackets.
    """

    scheme: bytes
    host: bytes
    port: int

    @property
    def netloc(self) -> bytes:
        """The host, and the port unless it is the scheme's own, as a Host header has them."""
        host = b"[%b]" % self.host if b":" in self.host else self.host
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return host
        return b"%b:%d" % (host, self.port)


def split_url(url: bytes) -> tuple[Origin, bytes]:
    """
    The origin of an absolute URL, and its path and query.

    @raise ValueError: the URL is not an absolute one of http or https, or has user information.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"not an absolute http(s) URL: {url!r}")
    target = match[2]
    return _origin(match[1]), target if target.startswith(b"/") else b"/" + target


@lru_cache(256)
def _origin(text: bytes) -> Origin:
    try:
        parts = urlsplit(text.decode("ascii"))
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"not a usable origin: {text!r} ({error})") from None
    scheme = parts.scheme.encode()
    if not host:
        raise ValueError(f"not a usable origin: {text!r}")
    return Origin(scheme, host.encode(), _DEFAULT_PORTS[scheme] if port is None else port)


@frozen
class BaseURL:
    """
    The address below which an upstream serves its API.

    @ivar path: what the paths of all requests begin with; no slash at its end.
    @ivar version: the beginning of targets that C{path} stands for, such as C{/v1}; empty if it
        stands for none.
    """

    origin: Origin
    path: bytes
    version: bytes = b""

    @classmethod
    def parse(cls, url: str) -> BaseURL:
        """@raise ValueError: the URL is not an absolute one of http or https."""
        origin, path = split_url(url.encode())
        return cls(origin, path.rstrip(b"/"))

    def at_root(self) -> BaseURL:
        """The root of the same origin."""
        return BaseURL(self.origin, b"")

    def join(self, target: bytes) -> bytes:
        """
        The URL of a target below this address.

        @param target: path, with its leading slash, and query.
        @raise ValueError: C{target} is not one.
        """
        if not _TARGET.fullmatch(target):
            raise ValueError(f"not a request target: {target!r}")
        path = self.path
        below = target.removeprefix(self.version)
        if below != target and below[:1] in (b"", b"/", b"?"):
            target = below
        else:
            # Beside the API, such as New-API's /dashboard.
            path = path.removesuffix(self.version)
        return b"%b://%b%b%b" % (self.origin.scheme, self.origin.netloc, path, target)
