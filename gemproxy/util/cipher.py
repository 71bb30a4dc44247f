"""Encrypts what is left with others, so that only daemons with the same keys can read it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# NIST SP 800-38D: of 96 bits, and random for as many messages as will ever be.
_NONCE = 12


class Cipher:
    """Encrypts with one secret, by AES-GCM."""

    def __init__(self, secret: bytes) -> None:
        self._aead = AESGCM(hashlib.sha256(b"cipher\n" + secret).digest())

    @classmethod
    def of_keys(cls, keys: Iterable[str]) -> Cipher | None:
        """
        One that daemons with the same API keys have in common.

        @param keys: their order does not matter.
        @return: None without any: there is nothing that only they know.
        """
        text = "\n".join(sorted(filter(None, keys)))
        return cls(text.encode("utf-8", "surrogatepass")) if text else None

    def close(self, data: bytes, name: str) -> bytes:
        """@param name: what it is kept under; it can be read under no other."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._aead.encrypt(nonce, data, name.encode())

    def open(self, closed: bytes, name: str) -> bytes | None:
        """What L{close} got; None if it is of another secret or name, or was changed."""
        try:
            return self._aead.decrypt(closed[:_NONCE], closed[_NONCE:], name.encode())
        except (InvalidTag, ValueError):
            return None
