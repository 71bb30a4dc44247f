"""What the Gemini API says in one streamed reply: read off the bytes as they pass."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.chunks import Usage
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.sse import Event, SSEDecoder, encode
from gemproxy.gemini.tools import Call


class Reply:
    """
    The facts of one reply; ACP has no words for most of them.

    Shapes: ai.google.dev/api/generate-content#v1beta.GenerateContentResponse

    @ivar finish_reason: the API's own word (STOP, MAX_TOKENS, SAFETY, ...).
    @ivar block_reason: why the prompt was refused, if it was.
    @ivar calls: the functions that the model calls.
    @ivar error: an error object that came in the place of a response, as JSON.
    """

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.block_reason: str | None = None
        self.usage: Usage | None = None
        self.calls: list[Call] = []
        self.error: bytes | None = None
        self._decoder = SSEDecoder()

    def feed(self, data: bytes) -> tuple[bytes, list[str]]:
        """
        Take bytes of the reply.

        @return: what of them is for the CLI, and the texts of the thoughts that are not.
        """
        return self._read_all(self._decoder.feed(data))

    def close(self) -> tuple[bytes, list[str]]:
        """The reply has ended; returns the same for what was left."""
        return self._read_all(self._decoder.close())

    def _read_all(self, events: list[Event]) -> tuple[bytes, list[str]]:
        thoughts: list[str] = []
        passed = b"".join(self._read(event, thoughts) for event in events)
        return passed, thoughts

    def _read(self, event: Event, thoughts: list[str]) -> bytes:
        try:
            response = loads(event.data)
        except ValueError:
            return b""
        if not isinstance(response, dict):
            return b""
        if response.get("error"):
            self.error = event.data
            return b""
        if isinstance(counts := response.get("usageMetadata"), dict):
            self.usage = _usage(counts)
        feedback = response.get("promptFeedback")
        if isinstance(feedback, dict):
            self.block_reason = _word(feedback.get("blockReason")) or self.block_reason
        candidates = response.get("candidates")
        if not isinstance(candidates, list) or not candidates:
            return _for_cli(event.data)
        candidate = candidates[0]
        if not isinstance(candidate, dict):
            return _for_cli(event.data)
        self.finish_reason = _word(candidate.get("finishReason")) or self.finish_reason
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(parts, list):
            return _for_cli(event.data)
        texts = [part for part in parts if not self._take(part, thoughts)]
        if len(texts) == len(parts):
            return _for_cli(event.data)
        # The CLI would reformat a thought, and run a function that it does not have.
        content["parts"] = texts
        return _for_cli(dumps(response))

    def _take(self, part: Any, thoughts: list[str]) -> bool:
        """Keep a part that is not for the CLI."""
        if not isinstance(part, dict):
            return False
        if part.get("thought") and isinstance(part.get("text"), str):
            thoughts.append(part["text"])
            return True
        call = Call.of_part(part)
        if call is not None:
            self.calls.append(call)
        return call is not None


def _for_cli(data: bytes) -> bytes:
    """
    An event as the CLI reads it: its decoder takes U+2028 and U+2029, which JSON may hold as they
    are, for ends of lines.
    """
    data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return encode(Event(data))


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _usage(counts: dict[str, Any]) -> Usage:
    def count(name: str) -> int:
        value = counts.get(name)
        return value if isinstance(value, int) else 0

    reasoning = count("thoughtsTokenCount")
    return Usage(
        prompt=count("promptTokenCount") + count("toolUsePromptTokenCount"),
        completion=count("candidatesTokenCount") + reasoning,
        reasoning=reasoning,
        cached=count("cachedContentTokenCount"),
    )
