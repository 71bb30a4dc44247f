"""
Where the server of the shared state is, as clients of Redis write it: C{redis://} and C{rediss://}
as IANA registers them, C{valkey://} and C{valkeys://} for the same, C{unix://}, and
C{redis+sentinel://} with several addresses and the name that Sentinel knows the server by. Pure.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import field, frozen

Place = tuple[str, int]
"""A host and a port."""

WANTED = (
    "redis://[[user]:password@]host[:port][/database], rediss:// with TLS, "
    "redis+sentinel://[[user]:password@]host[:port],.../name[/database], or "
    "unix://[[user]:password@]/path[?db=database]"
)
_TLS = {
    "redis": False,
    "rediss": True,
    "valkey": False,
    "valkeys": True,
    "redis+sentinel": False,
    "rediss+sentinel": True,
    "unix": False,
}
_PORT = 6379
_SENTINEL_PORT = 26379
_HOST = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]")
_NAME = re.compile(r"[0-9A-Za-z._-]+")
# By default a server has 16 databases.
_DATABASE = re.compile(r"[0-9]{1,5}")


@frozen
class StateUrl:
    """
    @ivar scheme: the one that was given.
    @ivar places: of the server, or of its Sentinels; none if it is asked by a socket's path.
    @ivar name: by which Sentinels know the server; None without them.
    @ivar path: of the socket; None if it is asked over a network.
    @ivar database: the number of one of the server's databases.
    """

    scheme: str
    places: tuple[Place, ...]
    name: str | None = None
    path: str | None = None
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_encrypted(self) -> bool:
        return _TLS[self.scheme]

    def __str__(self) -> str:
        """Without what is secret."""
        if self.path is not None:
            return f"unix://{self.path}" + (f"?db={self.database}" if self.database else "")
        places = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.places)
        name = "" if self.name is None else f"/{self.name}"
        database = f"/{self.database}" if self.database else ""
        return f"{self.scheme}://{places}{name}{database}"


def parse_state_url(text: str) -> StateUrl:
    """@raise ValueError: it is none; the message says what is wanted, and nothing of the URL."""
    try:
        return _parsed(text)
    except ValueError:
        raise ValueError(WANTED) from None


def _parsed(text: str) -> StateUrl:
    parts = urlsplit(text)
    scheme = parts.scheme.lower()
    if not text.isascii() or not text.isprintable() or scheme not in _TLS or parts.fragment:
        raise ValueError
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, colon, password = credentials.partition(":")
    if (user and not colon) or (colon and not password):
        raise ValueError
    who = (unquote(user) or None, unquote(password) or None)
    if scheme == "unix":
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        numbers = query.pop("db", ["0"])
        if hosts or query or len(numbers) != 1 or len(parts.path) < len("/a"):
            raise ValueError
        path = unquote(parts.path)
        return StateUrl(scheme, (), None, path, _database(numbers[0]), *who)
    if parts.query:
        raise ValueError
    segments = [segment for segment in parts.path.split("/")[1:] if segment]
    name = None
    is_sentinel = scheme.endswith("+sentinel")
    if is_sentinel:
        name = segments.pop(0) if segments else ""
        if not _NAME.fullmatch(name):
            raise ValueError
    places = tuple(
        _place(host, _SENTINEL_PORT if is_sentinel else _PORT) for host in hosts.split(",")
    )
    if len(segments) > 1 or (len(places) > 1 and not is_sentinel):
        raise ValueError
    return StateUrl(scheme, places, name, None, _database("".join(segments) or "0"), *who)


def _place(text: str, port: int) -> Place:
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, str(port)
    if not _HOST.fullmatch(host) or not number.isdecimal() or not 0 < int(number) < 65536:
        raise ValueError
    return host.strip("[]"), int(number)


def _database(text: str) -> int:
    if not _DATABASE.fullmatch(text):
        raise ValueError
    return int(text)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
