"""The signatures of calls, texts and thoughts that this daemon knows, and finds with others."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from attrs import define, field

from gemproxy.gemini.translate.signatures import NotedSignatures, Signatures
from gemproxy.state.shared import StateAway
from gemproxy.state.shelf import NO_SHELF, Shelf
from gemproxy.util.digests import digest_of

# Seconds for which other daemons can find one: conversations go on the next day.
LIFETIME = 86400.0
# Bytes of one that others can find.
_LARGEST = 100_000
# For how many of a request others are asked: the last ones.
_MOST = 1000


@define(eq=False)
class SignatureMemory:
    """
    Remembers signatures as L{Signatures} does. Other daemons are asked only for those that a
    request needs and that are not known here.

    @ivar keys: the API keys of this daemon: others name a key by its digest.
    @ivar shelf: where other daemons find them, and leave theirs.
    """

    keys: Iterable[str] = ()
    shelf: Shelf = NO_SHELF
    _known: Signatures = field(factory=Signatures, init=False)
    _keys: dict[str, str] = field(init=False)
    _digests: dict[str, str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._digests = {key: digest_of(key) for key in self.keys}
        self._keys = {digest: key for key, digest in self._digests.items()}

    def remember(self, signatures: Iterable[tuple[str, str | None]], key: str) -> None:
        """
        See L{Signatures.remember}.

        @param signatures: with their ids.
        """
        others = {}
        for id, signature in signatures:
            self._known.remember(id, signature, key)
            if self.shelf is not NO_SHELF and signature is not None and len(signature) <= _LARGEST:
                text = "" if signature == id else signature
                others[digest_of(id)] = f"{self._digest(key)} {text}".encode()
        self.shelf.put(others, LIFETIME)

    def _digest(self, key: str) -> str:
        return self._digests.get(key) or digest_of(key)

    def noted(self) -> NotedSignatures:
        """Those that are known; it notes which ones are not."""
        return NotedSignatures(self._known)

    def among(self, ids: Iterable[str]) -> Signatures:
        """See L{Signatures.among}."""
        return self._known.among(ids)

    async def find(self, ids: Collection[str]) -> bool:
        """Ask others for what is not known; returns whether anything was found."""
        names = {digest_of(id): id for id in ids if self._known.of(id) is None}
        try:
            found = await self.shelf.get([*names][-_MOST:])
        except StateAway:
            return False
        for name, value in found.items():
            key, _, text = value.decode("utf-8", "replace").partition(" ")
            self._known.remember(names[name], text or names[name], self._keys.get(key, ""))
        return bool(found)
