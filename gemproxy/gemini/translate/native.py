"""Requests that are in Gemini's words already: what has to be known of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.gemini.translate.signatures import DUMMY, Signatures

Json = dict[str, Any]

# Protobuf's JSON may have names in camel case or with underscores:
# protobuf.dev/programming-guides/json
_SIGNATURES = ("thoughtSignature", "thought_signature")
_FILES = ("fileData", "file_data")
_URIS = ("fileUri", "file_uri")
# What was uploaded, other than a film of YouTube's: ai.google.dev/api/files
_UPLOADED = re.compile(r"(?:.*/)?files/[a-z0-9-]+")
_CACHES = ("cachedContent", "cached_content")


# Without any of these in its JSON, a request names none.
_HINTS = tuple(f'"{name}"'.encode() for name in (*_CACHES, *_FILES))


def needs_files(request: Json, rendered: bytes) -> bool:
    """
    Whether it names a file or a cache, which are one key's own.

    @param request: to C{generateContent}.
    @param rendered: its JSON.
    """
    if not any(hint in rendered for hint in _HINTS):
        return False
    if any(name in request for name in _CACHES):
        return True
    files = (as_object(part.get(name)) for part in _parts_of(request) for name in _FILES)
    uris = (file.get(name) for file in files for name in _URIS)
    return any(isinstance(uri, str) and _UPLOADED.fullmatch(uri) for uri in uris)


def _parts_of(request: Json) -> Iterator[Json]:
    for content in objects_in(request.get("contents")):
        yield from objects_in(content.get("parts"))


@frozen
class NativeConversation:
    """
    A request to C{generateContent}. Whether it is a good one is for Google to say.

    @ivar request: as the client sent it.
    """

    request: Json

    @property
    def texts(self) -> Iterator[str]:
        """The text of each part; of what has none, an empty one."""
        for part in self._parts():
            text = part.get("text")
            yield text if isinstance(text, str) else ""

    def key(self, signatures: Signatures) -> str | None:
        """The API key to prefer: it made the last of the signatures; None if unknown."""
        known = [signatures.of(signature) for signature in self._signatures()]
        return next((each.key for each in reversed(known) if each is not None), None)

    @property
    def is_signed(self) -> bool:
        """Whether it has signatures that the API may find corrupted."""
        return any(signature != DUMMY for signature in self._signatures())

    def without_signatures(self) -> NativeConversation:
        """The conversation with signatures that are always taken."""
        if not self.is_signed:
            return self
        contents = [
            content | {"parts": [*map(_with_dummy, content["parts"])]}
            if isinstance(content, dict) and isinstance(content.get("parts"), list)
            else content
            for content in self.request["contents"]
        ]
        return NativeConversation(self.request | {"contents": contents})

    def _parts(self) -> Iterator[Json]:
        return _parts_of(self.request)

    def _signatures(self) -> Iterator[Any]:
        for part in self._parts():
            for name in _SIGNATURES:
                if name in part:
                    yield part[name]


def _with_dummy(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {name: DUMMY if name in _SIGNATURES else value for name, value in part.items()}
