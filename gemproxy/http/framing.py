"""What servers in a row may read in different ways, so that they disagree where a request ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gemproxy.http.headers import HOP_BY_HOP

# As a number, it is found ten times as fast.
_UNDERSCORE = ord("_")


def doubt_about(
    headers: Iterable[tuple[bytes, Sequence[bytes]]], version: bytes, is_folded: bool
) -> str | None:
    """
    Why the head of a request is not to be trusted (RFC 9112 sections 3.2, 5.2, 6.1 and 11.2); None
    if nothing is wrong with it. Twisted itself checks C{Content-Length}, and the syntax.

    @param headers: each name with its values.
    @param version: such as C{HTTP/1.1}.
    @param is_folded: whether a header goes on in a second line.
    """
    if is_folded:
        return "A header must not go on in a second line."
    for name, values in headers:
        name = name.lower()
        if name == b"host":
            if len(values) > 1:
                return "There must be one Host header."
        elif name == b"transfer-encoding":
            if [value.lower() for value in values] != [b"chunked"] or version != b"HTTP/1.1":
                return "The only Transfer-Encoding is 'chunked', and it takes HTTP/1.1."
        elif name == b"te":
            # RFC 9110 section 10.1.4: always acceptable, and hence never named.
            if any(b"chunked" in value.lower() for value in values):
                return "The header TE must not name 'chunked'."
        elif _UNDERSCORE in name and (meant := name.replace(b"_", b"-")) in HOP_BY_HOP:
            # Servers that give headers to programs as variables do not tell the two apart.
            return f"The header '{name.decode()}' would be taken for '{meant.decode()}'."
    return None
