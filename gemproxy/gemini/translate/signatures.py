"""
The signatures of calls, texts and thoughts: Gemini's thinking so far, for the next request.

Gemini 3 requires those of calls. See ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import field, frozen

Part = dict[str, Any]

# The API takes this instead of an unknown signature, for example that of a call made by another
# model: ai.google.dev/gemini-api/docs/thought-signatures#faqs
DUMMY = "skip_thought_signature_validator"


@frozen
class Signature:
    """
    @ivar key: the API key with which it was made; signatures are said to be bound to the account.
        Empty for one that this daemon does not have.
    """

    text: str
    key: str = field(repr=False)


class Signatures:
    """
    Remembers the last signatures: those of function calls by their ids, since most clients drop
    them, and others by themselves, for their keys.
    """

    def __init__(self, keep: int = 10_000) -> None:
        self._keep = keep
        self._known: dict[str, Signature] = {}

    def remember(self, id: str, signature: str | None, key: str) -> None:
        """@param id: the id of the call, or the signature itself."""
        if signature is not None:
            self._known[id] = Signature(signature, key)
            if len(self._known) > self._keep:
                del self._known[next(iter(self._known))]

    def among(self, ids: Iterable[str]) -> Signatures:
        """Those that are asked for by these ids."""
        some = Signatures(self._keep)
        some._known = {id: self._known[id] for id in ids if id in self._known}
        return some

    def of(self, id: Any) -> Signature | None:
        return self._known.get(id) if isinstance(id, str) else None


class AskedSignatures(Signatures):
    """
    Knows none, but what it was asked for.

    @ivar ids: by which it was asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()

    def of(self, id: Any) -> Signature | None:
        if isinstance(id, str):
            self.ids.add(id)
        return None


class NotedSignatures(Signatures):
    """
    Knows what others know.

    @ivar lacking: the ids by which it was asked for what is not known.
    """

    def __init__(self, known: Signatures) -> None:
        super().__init__()
        self._known = known._known
        self.lacking: dict[str, None] = {}

    def of(self, id: Any) -> Signature | None:
        found = super().of(id)
        if found is None and isinstance(id, str):
            self.lacking[id] = None
        return found


def is_corrupted(message: str) -> bool:
    """Whether Google refuses a signature that is not its own, or one of another account."""
    return "thought signature" in message.lower().replace("_", " ")


def part_signature(part: Part) -> str | None:
    """The signature of a part of the API's."""
    signature = part.get("thoughtSignature")
    return signature if isinstance(signature, str) and signature else None


def signed_as(part: Part, signature: str | None) -> Part:
    """A part with a signature, if there is one."""
    return part if signature is None else part | {"thoughtSignature": signature}


def sign_text(parts: list[Part], signature: str | None) -> list[Part]:
    """Add a signature to the last text, unless that has one of its own."""
    last = next((n for n in reversed(range(len(parts))) if "text" in parts[n]), None)
    if last is None or "thoughtSignature" in parts[last]:
        return parts
    return [*parts[:last], signed_as(parts[last], signature), *parts[last + 1 :]]


def sign_unsigned(parts: Sequence[Part]) -> list[Part]:
    """Add a signature to the first call of a turn, which Gemini 3 requires."""
    signed = list(parts)
    for position, part in enumerate(signed):
        if "functionCall" in part:
            if "thoughtSignature" not in part:
                signed[position] = part | {"thoughtSignature": DUMMY}
            break
    return signed


def with_dummy(part: Part) -> Part:
    """A part with its signature replaced, if it has one."""
    return part | {"thoughtSignature": DUMMY} if "thoughtSignature" in part else part
