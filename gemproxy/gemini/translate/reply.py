"""Parses the Gemini API's reply as it is received."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

from gemproxy.chat.answer_limits import DEFAULT_LIMITS, AnswerLimits
from gemproxy.chat.chunks import Usage
from gemproxy.chat.jsontext import has_long_integer, loads
from gemproxy.chat.shapes import as_object, objects_in
from gemproxy.chat.sse import Event, SSEDecoder
from gemproxy.gemini.translate.answer_media import Media
from gemproxy.gemini.translate.citations import Transcript, cited_sources
from gemproxy.gemini.translate.signatures import part_signature
from gemproxy.gemini.translate.tools import Call

Json = dict[str, Any]


@frozen
class Thought:
    """@ivar signature: the API's signature of it; None if it has none."""

    text: str
    signature: str | None = None


@frozen
class NativeResponse:
    """
    One of the responses of a stream, as it came.

    @ivar text: the text of its first candidate.
    @ivar thoughts: that of its thoughts.
    @ivar is_content: whether there is anything else than thoughts in it.
    """

    response: Json
    text: str
    thoughts: str
    is_content: bool


@define
class News:
    """
    What is said in some bytes of a reply.

    @ivar texts: of the answer, in their order.
    @ivar thoughts: those of the model.
    """

    texts: list[str] = field(factory=list)
    thoughts: list[Thought] = field(factory=list)


NO_NEWS = News()


class Reply:
    """
    A streamed reply to C{streamGenerateContent}, parsed incrementally. What is kept of it until its
    end (calls, media, signatures and sources) is limited.

    @ivar finish_reason: the API's finish reason; None if not received.
    @ivar finish_message: its explanation of that, likewise.
    @ivar usage: the last token counts; None if not received. Thoughts count as completion tokens,
        as with OpenAI's reasoning models.
    @ivar block_reason: the reason why the prompt was blocked; None if it was not.
    @ivar block_message: the API's explanation of that; None if not received.
    @ivar calls: the function calls made by the model.
    @ivar text_signature: the last signature of a text; None if there was none.
    @ivar signatures: all signatures of texts and thoughts.
    @ivar media: the pictures and the sound of the answer.
    @ivar error: an error object received instead of a response, as JSON.
    """

    def __init__(
        self,
        limits: AnswerLimits = DEFAULT_LIMITS,
        native: Callable[[NativeResponse], None] | None = None,
    ) -> None:
        """@param native: called with each response; None if only what is read of it counts."""
        self._native = native
        self.finish_reason: str | None = None
        self.finish_message: str | None = None
        self.block_reason: str | None = None
        self.block_message: str | None = None
        self.calls: list[Call] = []
        self.text_signature: str | None = None
        self.signatures: list[str] = []
        self.media: list[Media] = []
        self.error: bytes | None = None
        self._limits = limits
        self._counts: Json | None = None
        self._kept = 0
        self._number_kept = 0
        self._pictures = 0
        self._decoder = SSEDecoder()
        self._transcript = Transcript()
        self._sources: dict[str, Json] = {}

    def feed(self, data: bytes) -> News:
        """
        Process more bytes of the reply.

        @raise EventTooLarge: see L{SSEDecoder.feed}.
        @raise ChatError: 502, more is to be kept than is allowed.
        """
        return self._read_all(self._decoder.feed(data))

    def close(self) -> News:
        """
        Process the end of the reply.

        @raise ChatError: see L{feed}.
        """
        return self._read_all(self._decoder.close())

    @property
    def usage(self) -> Usage | None:
        return None if self._counts is None else _usage(self._counts)

    @property
    def annotations(self) -> list[Json]:
        """The sources of the answer, once it is complete."""
        if not self._sources:
            return []
        grounding, url_context, citation = (self._sources.get(name, {}) for name in _SOURCES)
        return cited_sources(grounding, url_context, citation, self._transcript)

    def _read_all(self, events: list[Event]) -> News:
        if not events:
            return NO_NEWS
        news = News()
        for event in events:
            self._read(event, news)
        return news

    def _read(self, event: Event, news: News) -> None:
        self._limits.check_json(event.data)
        try:
            response = loads(event.data, exactly=False)
            text = _text_alone(response) if self._native is None else None
            if text is None and has_long_integer(event.data):
                response = loads(event.data)
        except ValueError:
            return
        if not isinstance(response, dict):
            return
        if response.get("error"):
            self.error = event.data
            return
        if isinstance(counts := response.get("usageMetadata"), dict):
            self._counts = counts
        if self._native is not None:
            self._native(_native_of(response))
        if text is not None:
            self._take_text(text, news)
            return
        feedback = response.get("promptFeedback")
        if isinstance(feedback, dict):
            self.block_reason = _word(feedback.get("blockReason")) or self.block_reason
            self.block_message = _word(feedback.get("blockReasonMessage")) or self.block_message
        candidates = response.get("candidates")
        candidate = candidates[0] if isinstance(candidates, list) and candidates else None
        if not isinstance(candidate, dict) or candidate.get("index"):
            # There are others only for clients that speak Google's API, which get them as they are.
            return
        if finish_reason := _word(candidate.get("finishReason")):
            self.finish_reason = finish_reason
            self.finish_message = _word(candidate.get("finishMessage"))
        for name in _SOURCES.keys() & candidate.keys():
            if isinstance(source := candidate[name], dict):
                known = {key: source[key] for key in _SOURCES[name] if key in source}
                self._sources[name] = self._sources.get(name, {}) | known
        before = self._number_kept
        for part in objects_in(as_object(candidate.get("content")).get("parts")):
            self._take(part, news)
        if self._number_kept > before:
            self._kept += len(event.data)
            self._limits.check(self._kept, self._number_kept)

    def _take(self, part: dict[str, Any], news: News) -> None:
        if (call := Call.of_part(part)) is not None:
            self.calls.append(call)
            self._number_kept += 1
            self._limits.check_calls(len(self.calls))
        elif isinstance(text := part.get("text"), str):
            signature = part_signature(part)
            if signature is not None:
                self.signatures.append(signature)
                self._number_kept += 1
            if part.get("thought"):
                news.thoughts.append(Thought(text, signature))
            else:
                self.text_signature = signature or self.text_signature
                self._take_text(text, news)
        elif (media := _media(part)) is not None:
            # Pictures that were only thought of are not part of the answer.
            if not part.get("thought"):
                self._take_media(media)
        elif code := _fenced(part):
            news.texts.append(code)
            self._transcript.add(code, by_model=False)

    def _take_text(self, text: str, news: News) -> None:
        news.texts.append(text)
        self._transcript.add(text)

    def _take_media(self, media: Media) -> None:
        self.media.append(media)
        self._number_kept += 1
        if media.mime_type.startswith("image/"):
            self._pictures += 1
            self._limits.check_calls(self._pictures, "pictures")


# Fields of a candidate of which nothing but its text is to be read.
_OF_TEXT = frozenset({"content", "index"})


def _text_alone(response: Any) -> str | None:
    """
    The text of a response that has one, and nothing else but counts, as most have; None if it has
    more.
    """
    if type(response) is not dict:
        return None
    candidates = response.get("candidates")
    if type(candidates) is not list or len(candidates) != 1 or "promptFeedback" in response:
        return None
    candidate = candidates[0]
    if (
        type(candidate) is not dict
        or not candidate.keys() <= _OF_TEXT
        or candidate.get("index")
        or type(content := candidate.get("content")) is not dict
    ):
        return None
    parts = content.get("parts")
    if type(parts) is not list or len(parts) != 1:
        return None
    part = parts[0]
    if type(part) is not dict or len(part) != 1:
        return None
    text = part.get("text")
    return text if type(text) is str else None


def _native_of(response: Json) -> NativeResponse:
    texts, thoughts, is_content = [], [], False
    for candidate in objects_in(response.get("candidates")):
        if candidate.get("index"):
            is_content = True
            continue
        for part in objects_in(as_object(candidate.get("content")).get("parts")):
            text = part.get("text")
            if not isinstance(text, str):
                is_content = True
            elif part.get("thought"):
                thoughts.append(text)
            else:
                texts.append(text)
    text = "".join(texts)
    return NativeResponse(response, text, "".join(thoughts), is_content or bool(text))


def _media(part: Json) -> Media | None:
    inline = part.get("inlineData")
    if not isinstance(inline, dict):
        return None
    mime_type, data = inline.get("mimeType"), inline.get("data")
    return Media(mime_type, data) if isinstance(mime_type, str) and isinstance(data, str) else None


def _fenced(part: Json) -> str:
    """The code that the model executed, or its output, as Markdown; empty if it is neither."""
    code, result = part.get("executableCode"), part.get("codeExecutionResult")
    if isinstance(code, dict) and isinstance(code.get("code"), str):
        language = str(code.get("language", "")).lower()
        return _fence(code["code"], language if language.isalnum() else "")
    if isinstance(result, dict) and isinstance(result.get("output"), str):
        return _fence(result["output"], "")
    return ""


def _fence(text: str, language: str) -> str:
    ticks = "```"
    while ticks in text:
        ticks += "`"
    text = text.rstrip("\n")
    return f"\n{ticks}{language}\n{text}\n{ticks}\n"


# What is known of the sources of an answer, and where.
_SOURCES = {
    "groundingMetadata": ("groundingChunks", "groundingSupports"),
    "urlContextMetadata": ("urlMetadata",),
    "citationMetadata": ("citationSources", "citations"),
}


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
