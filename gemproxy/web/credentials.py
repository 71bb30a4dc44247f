"""What a client shows to be let in, wherever in its request it is. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from urllib.parse import unquote_plus

from attrs import frozen

from gemproxy.chat.request import KEY_HEADERS
from gemproxy.util.masking import shown_keys

# The WebSocket protocol by which OpenAI's clients in browsers show a key.
_KEY_PROTOCOL = "openai-insecure-api-key."

# In one request; each is looked up.
_MOST_KEYS = 16


@frozen
class Credentials:
    """
    @ivar authorizations: the values of C{Authorization}, each a scheme and a word.
    @ivar others: the keys that are shown without a scheme: in the L{KEY_HEADERS}, as C{?key=}, as
        Google's clients may, and in the protocol of a WebSocket.
    """

    authorizations: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Callable[[bytes], Sequence[str]], query: bytes) -> Credentials:
        """
        @param values: those of the headers of a name, in small letters.
        @param query: of the request's target, without the question mark.
        """
        return cls(
            tuple(values(b"authorization")),
            (
                *(value for name in KEY_HEADERS for value in values(name)),
                *_keys_in_query(query),
                *_websocket_keys(values(b"sec-websocket-protocol")),
            ),
        )

    def keys(self) -> list[str]:
        """What may be a key of this proxy."""
        shown = [value.partition(" ") for value in self.authorizations]
        bearers = [word for scheme, _, word in shown if scheme.lower() == "bearer"]
        return [key.strip() for key in (*self.others, *bearers)][:_MOST_KEYS]

    def secrets(self) -> list[str]:
        """What others must not see of it, see L{shown_keys}."""
        return shown_keys((*self.authorizations, *self.others))

    def owner(self) -> str:
        """A name for whoever shows them, which shows nothing of them."""
        shown = "\n".join(sorted((*self.authorizations, *self.others)))
        return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()


def _websocket_keys(protocols: Sequence[str]) -> list[str]:
    """@param protocols: the values of the C{Sec-WebSocket-Protocol} headers."""
    return [
        name.strip().removeprefix(_KEY_PROTOCOL)
        for value in protocols
        for name in value.split(",")
        if name.strip().startswith(_KEY_PROTOCOL)
    ]


def _keys_in_query(query: bytes) -> list[str]:
    if b"key=" not in query:
        return []
    values = [pair[4:] for pair in query.split(b"&") if pair.startswith(b"key=")]
    return [unquote_plus(value.decode("latin-1")) for value in values if value]
