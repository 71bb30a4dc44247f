"""Finds what belongs to a key. Pure but for the choice of a random number."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

_T = TypeVar("_T")


def key_digest(key: str) -> bytes:
    """
    What is known of a key where the key itself is not kept. A key of 256 random bits cannot be
    found by trying, so that its hash need not be slow.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


class KnownKeys(Generic[_T]):
    """
    What belongs to which key.

    Looking up takes the same time whatever is similar to a key that is known: what is compared is
    made of the digest and a number that nobody knows, so that the time tells nothing.
    """

    def __init__(self, by_digest: Mapping[bytes, _T]) -> None:
        """@param by_digest: see L{key_digest}."""
        self._blinding = secrets.token_bytes(32)
        self._found = {self._blinded(digest): value for digest, value in by_digest.items()}

    def __bool__(self) -> bool:
        return bool(self._found)

    def find(self, keys: Iterable[str]) -> _T | None:
        """What belongs to the first of the keys that is known; None if none is."""
        for key in keys:
            value = self._found.get(self._blinded(key_digest(key)))
            if value is not None:
                return value
        return None

    def _blinded(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._blinding, digest_size=32).digest()
