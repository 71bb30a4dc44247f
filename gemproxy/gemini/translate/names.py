"""Names of functions: Gemini takes fewer than other APIs do."""

from __future__ import annotations

import hashlib
import re

# ai.google.dev/api/caching#FunctionDeclaration
_TAKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_NOT_TAKEN = re.compile(r"[^A-Za-z0-9_.:-]")
_KEPT_LENGTH = 110


def gemini_name(name: str) -> str:
    """
    The name under which Gemini knows a function: its own if Gemini takes that, and otherwise one
    that is different for every name, and the same in every request.
    """
    if _TAKEN.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    readable = _NOT_TAKEN.sub("_", name)[:_KEPT_LENGTH]
    if not readable or not (readable[0].isalpha() or readable[0] == "_"):
        readable = f"_{readable}"
    return f"{readable}_{digest}"
