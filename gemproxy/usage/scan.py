"""Finds the token counts in a response that passes as it is, whatever dialect it is in. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from gemproxy.chat.chunks import Usage, count_of
from gemproxy.chat.shapes import as_object

# Bytes in which the counts are: at the end, and in Anthropic's messages at the beginning too
# (message_start).
_HEAD, _TAIL = 4096, 16384
# In a text of the answer these quotes would be escaped.
_NAMED = re.compile(r'"(?:usage|usageMetadata)"\s*:\s*(?=\{)')
# What the words of an answer are in: OpenAI's completions and responses, and Anthropic's messages.
_TEXT = re.compile(rb'"(?:text|delta|thinking|partial_json)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)')
_DECODER = json.JSONDecoder()


class UsageScanner:
    """Keeps the beginning and the end of a response."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
        self._tail += data[-_TAIL:]
        if len(self._tail) > 2 * _TAIL:
            del self._tail[:-_TAIL]

    def usage(self) -> Usage | None:
        """The counts of the whole response; None if there are none in it."""
        head, tail = (_objects(bytes(part)) for part in (self._head, self._tail))
        found: dict[str, Any] = {}
        for one in (*head[:1], *tail[-1:]):
            # An event may leave out what an earlier one said.
            found |= {name: value for name, value in one.items() if value is not None}
        return usage_of(found)

    def text_length(self) -> int:
        """
        How many bytes of text there were in a stream of events, more or less: what is kept of it
        stands for the rest.
        """
        kept = bytes(self._tail)
        share = sum(map(len, _TEXT.findall(kept))) / (len(kept) or 1)
        return round(self._size * share)


def _objects(text: bytes) -> list[dict[str, Any]]:
    """The counts in a part of a response that are there as a whole, in order."""
    decoded = text.decode("utf-8", "replace")
    found = []
    for match in _NAMED.finditer(decoded):
        try:
            value, _ = _DECODER.raw_decode(decoded, match.end())
        except (ValueError, RecursionError):
            continue
        found.append(value)
    return found


def usage_of(found: dict[str, Any]) -> Usage | None:
    """Counts in the words of OpenAI, Anthropic or Google; None if there are none."""
    if "promptTokenCount" in found or "candidatesTokenCount" in found:
        reasoning = count_of(found, "thoughtsTokenCount")
        return Usage(
            count_of(found, "promptTokenCount") + count_of(found, "toolUsePromptTokenCount"),
            count_of(found, "candidatesTokenCount") + reasoning,
            reasoning,
            count_of(found, "cachedContentTokenCount"),
        )
    if "prompt_tokens" in found:
        return Usage.of_json(found)
    if "input_tokens" not in found and "output_tokens" not in found:
        return None
    # Anthropic's input_tokens are those that were neither read from the cache nor written to it.
    cached = count_of(found, "cache_read_input_tokens")
    written = count_of(found, "cache_creation_input_tokens")
    return Usage(
        count_of(found, "input_tokens") + cached + written,
        count_of(found, "output_tokens"),
        count_of(as_object(found.get("output_tokens_details")), "reasoning_tokens"),
        cached + count_of(as_object(found.get("input_tokens_details")), "cached_tokens"),
    )
