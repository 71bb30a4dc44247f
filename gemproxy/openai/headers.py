"""Selects what passes between a client and an upstream, of headers and queries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes as unquote

from gemproxy.chat.request import Headers
from gemproxy.http.headers import HOP_BY_HOP, asks_for_websocket, options_of
from gemproxy.util.masking import SHORTEST_SECRET

# What a fixed key replaces: it is the client's, or a key for this proxy. New-API prefers some of
# them to Authorization on some of its paths.
_KEYS = frozenset(
    {
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"mj-api-secret",
        b"cookie",
        # Accounts of the key that is not sent.
        b"openai-organization",
        b"openai-project",
    }
)
# Browsers cannot send other headers with a WebSocket, so OpenAI takes keys and accounts here.
_WEBSOCKET = b"sec-websocket-"
_PROTOCOL = b"sec-websocket-protocol"
_KEY_PROTOCOLS = (b"openai-insecure-api-key.", b"openai-organization.", b"openai-project.")
_UPGRADE = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
_KEY_PARAMETER = b"key"
# Between the words of a header's value or of a query: "Bearer KEY", "session=KEY; a=b".
_WORD_ENDS = re.compile(rb"[\s,;=]|openai-insecure-api-key\.")
# Sent by browsers about the requesting page; access has already been checked here.
_ABOUT_THE_PAGE = frozenset({b"origin", b"referer"})
_NEVER_PASSED = HOP_BY_HOP | _ABOUT_THE_PAGE
_NEVER_PASSED_WITH_A_KEY = _NEVER_PASSED | _KEYS
# Limits and when to try again, as OpenAI, Anthropic and the draft of the IETF name them; and the
# name that New-API gives a request.
_FOR_THE_CLIENT = (b"x-ratelimit-", b"anthropic-ratelimit-", b"ratelimit")
_FOR_THE_CLIENT_TOO = frozenset({b"retry-after-ms", b"x-oneapi-request-id"})
_REQUEST_IDS = (b"x-oneapi-request-id", b"x-request-id", b"request-id")


class OwnKeys:
    """The keys by which clients are let in by this proxy, which are nobody else's business."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        known = {key.encode() for key in keys}
        # A short one may be a part of a word.
        self._words = frozenset(key for key in known if len(key) < SHORTEST_SECRET)
        self._parts = tuple(known - self._words)

    def are_in(self, text: bytes) -> bool:
        """Whether a value of a header or a query has one of them in it."""
        for key in self._parts:
            if key in text:
                return True
        return bool(self._words) and not self._words.isdisjoint(_WORD_ENDS.split(text))


NO_OWN_KEYS = OwnKeys()


def to_upstream(
    headers: Headers, fixed_key: str | None, own_keys: OwnKeys = NO_OWN_KEYS
) -> Headers:
    """
    The headers to send upstream with a client's request. If they ask for a WebSocket, so do the
    client's.

    @param fixed_key: the key to send instead of the client's own.
    @param own_keys: keys that are not sent.
    """
    named = [(header[0].lower(), header) for header in headers]
    names = dict(named)
    is_websocket = b"upgrade" in names and asks_for_websocket(headers)
    dropped = _NEVER_PASSED if fixed_key is None else _NEVER_PASSED_WITH_A_KEY
    if b"connection" in names:
        dropped |= options_of(headers)
    kept = tuple(
        [
            header
            for name, header in named
            if name not in dropped
            and (name[:4] != b"sec-" or (is_websocket and name.startswith(_WEBSOCKET)))
            and (name == _PROTOCOL or not own_keys.are_in(header[1]))
        ]
    )
    if is_websocket:
        kept = _with_protocols(kept, fixed_key is None, own_keys)
        kept = (*_UPGRADE, *kept)
    if fixed_key is None:
        return kept
    return (*kept, (b"Authorization", b"Bearer " + fixed_key.encode()))


def _with_protocols(headers: Headers, are_keys_passed: bool, own_keys: OwnKeys) -> Headers:
    """The headers, without the protocols in which there are keys that are not sent."""
    kept = []
    for name, value in headers:
        if name.lower() == _PROTOCOL:
            protocols = [protocol.strip() for protocol in value.split(b",")]
            value = b", ".join(
                protocol
                for protocol in protocols
                if (are_keys_passed or not protocol.startswith(_KEY_PROTOCOLS))
                and not own_keys.are_in(protocol)
            )
        if value or name.lower() != _PROTOCOL:
            kept.append((name, value))
    return tuple(kept)


def query_to_upstream(
    query: bytes, fixed_key: str | None, own_keys: OwnKeys = NO_OWN_KEYS
) -> bytes:
    """
    A client's query, without the key in it if there is a fixed one; all else is as it was.

    @param query: without its question mark.
    @param own_keys: keys that are not sent.
    """
    return b"&".join(
        pair
        for pair in query.split(b"&")
        if (fixed_key is None or unquote(pair.partition(b"=")[0]).lower() != _KEY_PARAMETER)
        and not own_keys.are_in(unquote(pair.replace(b"+", b" ")))
    )


def to_client(headers: Headers) -> Headers:
    """The headers of a chat answer that mean something to the client, once for each name."""
    passed: dict[bytes, tuple[bytes, bytes]] = {}
    for header in headers:
        name = header[0].lower()
        if name.startswith(_FOR_THE_CLIENT) or name in _FOR_THE_CLIENT_TOO:
            passed[name] = header
    return tuple(passed.values())


def request_id_of(headers: Headers) -> str | None:
    """The upstream's own name of a request; None if it gave none."""
    named = {
        name: value
        for name, value in ((name.lower(), value) for name, value in headers)
        if name in _REQUEST_IDS and value
    }
    found = next((named[name] for name in _REQUEST_IDS if name in named), None)
    return None if found is None else found.decode("latin-1")
