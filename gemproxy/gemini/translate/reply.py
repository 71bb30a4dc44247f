"""What the Gemini API says in its reply, read as it passes by; some of it is not for the CLI."""

from __future__ import annotations

from typing import Any

from gemproxy.chat.chunks import Usage
from gemproxy.chat.jsontext import dumps, loads
from gemproxy.chat.sse import Event, SSEDecoder, encode
from gemproxy.gemini.translate.tools import Call


class Reply:
    """
    A streamed reply to C{streamGenerateContent}, fed as it arrives.

    @ivar finish_reason: the model's reason to stop, as the API names it; None if it gave none.
    @ivar usage: the last token counts; None if there were none. Thoughts count as completion, as
        with OpenAI's reasoning models.
    @ivar block_reason: why the prompt was refused, if it was.
    @ivar calls: the functions that the model calls.
    @ivar error: an error object that came in the place of a response, as JSON.
    @ivar told: characters of the answer that were for the CLI.
    """

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.block_reason: str | None = None
        self.usage: Usage | None = None
        self.calls: list[Call] = []
        self.error: bytes | None = None
        self.told = 0
        self._decoder = SSEDecoder()

    def feed(self, data: bytes) -> tuple[bytes, list[str]]:
        """
        Take bytes of the reply.

        @return: what the CLI is to be told of them, and the texts of the thoughts in them, which it
            is not.
        """
        return self._read_all(self._decoder.feed(data))

    def close(self) -> tuple[bytes, list[str]]:
        """The reply has ended; returns the same for what was left."""
        return self._read_all(self._decoder.close())

    def _read_all(self, events: list[Event]) -> tuple[bytes, list[str]]:
        # The CLI gets one event, and nothing in it that is read here: every event and every field
        # costs it time, and a prompt's tokens would count for the session's next conversation too.
        news = _News()
        for event in events:
            self._read(event, news)
        text = "".join(news.texts)
        self.told += len(text)
        return _event(text, news.finish_reason) if news.is_any else b"", news.thoughts

    def _read(self, event: Event, news: _News) -> None:
        try:
            response = loads(event.data)
        except ValueError:
            return
        if not isinstance(response, dict):
            return
        if response.get("error"):
            self.error = event.data
            return
        if isinstance(counts := response.get("usageMetadata"), dict):
            self.usage = _usage(counts)
        feedback = response.get("promptFeedback")
        if isinstance(feedback, dict):
            self.block_reason = _word(feedback.get("blockReason")) or self.block_reason
        candidates = response.get("candidates")
        candidate = candidates[0] if isinstance(candidates, list) and candidates else None
        if not isinstance(candidate, dict):
            return
        news.is_any = True
        if finish_reason := _word(candidate.get("finishReason")):
            self.finish_reason = news.finish_reason = finish_reason
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._take(part, news)

    def _take(self, part: dict[str, Any], news: _News) -> None:
        # The CLI would run a function that it does not have, and reformat a thought.
        if (call := Call.of_part(part)) is not None:
            self.calls.append(call)
        elif isinstance(text := part.get("text"), str):
            (news.thoughts if part.get("thought") else news.texts).append(text)


class _News:
    """What some bytes of a reply have brought."""

    def __init__(self) -> None:
        self.is_any = False
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.finish_reason: str | None = None


def _event(text: str, finish_reason: str | None) -> bytes:
    candidate: dict[str, Any] = {
        "content": {"role": "model", "parts": [{"text": text}] if text else []}
    }
    if finish_reason is not None:
        candidate["finishReason"] = finish_reason
    data = dumps({"candidates": [candidate]})
    # The CLI takes these two, which JSON may hold as they are, for ends of lines.
    data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return encode(Event(data))


# For a CLI whose answer nobody wants any more.
END = _event("", "STOP")


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
