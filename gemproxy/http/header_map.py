"""Twisted's map of headers, at a third of its calls: each request has half a dozen of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import AnyStr, TypeVar, overload

from twisted.web.http_headers import Headers

# Bytes are looked for as numbers: if they are bytes, Python raises and drops an exception first,
# which takes ten times as long.
_LF, _CR = b"\n\r"
# Clients make up names: so many are remembered, if they are not longer than this.
_NAMES_LIMIT = 10_000
_LONGEST_NAME = 100
_T = TypeVar("_T")


class _Names(dict[bytes | str, bytes]):
    """The names of headers as Twisted spells them: each is worked out once."""

    def __missing__(self, name: bytes | str) -> bytes:
        """@raise InvalidHeaderName: it is none."""
        headers = Headers()
        headers.setRawHeaders(name, ())
        ((spelt, _),) = headers.getAllRawHeaders()
        if len(self) < _NAMES_LIMIT and len(name) <= _LONGEST_NAME:
            self[name] = spelt
        return spelt


_names = _Names()


class HeaderMap(Headers):
    """
    It does what its base class does, in whose C{_rawHeaders} it keeps everything. Most names are
    known, and hardly any value has a line break; C{tests/test_twisted_internals.py} compares the
    two.
    """

    __slots__ = ()

    @classmethod
    def of(cls, fields: Iterable[tuple[bytes, bytes]]) -> HeaderMap:
        """@param fields: names and values."""
        made = cls()
        for name, value in fields:
            made.addRawHeader(name, value)
        return made

    def hasHeader(self, name: AnyStr) -> bool:
        return _names[name] in self._rawHeaders

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        self._rawHeaders[_names[name]] = []
        for value in values:
            self.addRawHeader(name, value)

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        if value.__class__ is not bytes or _LF in value or _CR in value:
            value = _in_one_line(value)
        spelt = _names[name]
        if spelt in self._rawHeaders:
            self._rawHeaders[spelt].append(value)
        else:
            self._rawHeaders[spelt] = [value]

    @overload
    def getRawHeaders(self, name: AnyStr) -> Sequence[AnyStr] | None: ...

    @overload
    def getRawHeaders(self, name: AnyStr, default: _T) -> Sequence[AnyStr] | _T: ...

    def getRawHeaders(
        self, name: AnyStr, default: _T | None = None
    ) -> Sequence[AnyStr] | _T | None:
        values = self._rawHeaders.get(_names[name])
        if not values:
            return default
        return [value.decode() for value in values] if isinstance(name, str) else values

    def copy(self) -> HeaderMap:
        made = self.__class__()
        made._rawHeaders = {name: [*values] for name, values in self._rawHeaders.items()}
        return made


def _in_one_line(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return b" ".join(raw.splitlines())
