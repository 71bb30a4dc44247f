"""
Seals what a client keeps for this daemon and brings back, so that nobody else can have made it.

It is not secret: a client can read it. Only the seal cannot be forged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Any

from gemproxy.chat.jsontext import dumps, loads

_MARK = "gp1_"
_DIGEST = "sha256"
_DIGEST_LENGTH = 16


class Seal:
    """Seals values with one secret; daemons that have the same can read each other's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def of_keys(cls, keys: Iterable[str], other: bytes | None = None) -> Seal:
        """
        A seal that daemons with the same API keys have in common, and that outlives a restart.

        @param keys: their order does not matter.
        @param other: 32 bytes that take their place if there are none; without it, the seal is
            that of one process then.
        """
        text = "\n".join(sorted(filter(None, keys))).encode()
        if text:
            return cls(hashlib.sha256(b"seal\n" + text).digest())
        return cls(other or secrets.token_bytes(32))

    def close(self, value: Any) -> str:
        """A JSON value as a text of letters, digits, C{-} and C{_}."""
        data = dumps(value)
        return _MARK + base64.urlsafe_b64encode(self._digest(data) + data).decode().rstrip("=")

    def open(self, text: Any) -> Any:
        """The value in a text of L{close}; None if the text is foreign or was changed."""
        if not isinstance(text, str) or not text.startswith(_MARK):
            return None
        encoded = text.removeprefix(_MARK)
        try:
            sealed = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        except (binascii.Error, ValueError):
            return None
        digest, data = sealed[:_DIGEST_LENGTH], sealed[_DIGEST_LENGTH:]
        return loads(data) if hmac.compare_digest(digest, self._digest(data)) else None

    def _digest(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, _DIGEST)[:_DIGEST_LENGTH]
