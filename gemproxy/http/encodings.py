"""The content encodings of request bodies. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

# RFC 9110 section 8.4.1. `identity` is not in its list, but it is sent.
DECODED = ("gzip", "deflate")
_GZIP = frozenset({"gzip", "x-gzip"})
# Nobody needs more, and each costs.
_MOST_CODINGS = 3
_MOST_MEMBERS = 8

_GZIP_FORMAT = zlib.MAX_WBITS | 16
_RAW_FORMAT = -zlib.MAX_WBITS


class UnknownEncoding(ValueError):
    """The encoding is not one that can be decoded; the message is its name."""


class BadEncoding(ValueError):
    """The data are not what the encoding says; the message is the name of the encoding."""


class DecodedTooLarge(Exception):
    """The decoded data have more bytes than are accepted."""


def codings(values: Iterable[str]) -> tuple[str, ...]:
    """
    The encodings of a body, in the order in which they were applied.

    @param values: those of the Content-Encoding headers.
    @raise UnknownEncoding: one cannot be decoded, or there are too many.
    """
    names = [name.strip().lower() for value in values for name in value.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    for name in names:
        if name not in _GZIP and name not in DECODED:
            raise UnknownEncoding(name)
    if len(names) > _MOST_CODINGS:
        raise UnknownEncoding(", ".join(names))
    return tuple(names)


def decoded(data: bytes, names: Iterable[str], limit: int) -> bytes:
    """
    Decode a body.

    @param names: see L{codings}.
    @param limit: bytes at most; no more than that are ever decoded.
    @raise BadEncoding: the data are damaged or incomplete.
    @raise DecodedTooLarge: there are more bytes than C{limit}.
    """
    for name in reversed(tuple(names)):
        try:
            data = _gunzipped(data, limit) if name in _GZIP else _inflated(data, limit)
        except zlib.error:
            raise BadEncoding(name) from None
    return data


def _gunzipped(data: bytes, limit: int) -> bytes:
    """A file of gzip may have several members (RFC 1952 section 2.2)."""
    whole = b""
    for _ in range(_MOST_MEMBERS):
        piece, data = _decompressed(data, _GZIP_FORMAT, limit - len(whole))
        whole += piece
        if not data:
            return whole
    raise zlib.error("too many members")


def _inflated(data: bytes, limit: int) -> bytes:
    """C{deflate} means the format of zlib, but some clients send bare deflate."""
    is_zlib = len(data) > 1 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
    whole, rest = _decompressed(data, zlib.MAX_WBITS if is_zlib else _RAW_FORMAT, limit)
    if rest:
        raise zlib.error("data after the end")
    return whole


def _decompressed(data: bytes, data_format: int, limit: int) -> tuple[bytes, bytes]:
    """The data that come first, and the bytes behind them."""
    decompressor = zlib.decompressobj(data_format)
    # One more than allowed; 0 would mean any number.
    whole = decompressor.decompress(data, limit + 1)
    if len(whole) > limit:
        raise DecodedTooLarge
    if not decompressor.eof:
        raise zlib.error("incomplete")
    return whole, decompressor.unused_data
