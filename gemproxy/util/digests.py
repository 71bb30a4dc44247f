"""Names of what must not be shown, or is too long to be a name."""

from __future__ import annotations

import hashlib


def digest_of(*words: str) -> str:
    """
    A name for these words together, of 32 hexadecimal digits. Nobody finds a key by it: one of
    random letters cannot be found by trying.
    """
    text = "\0".join(words).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:32]
