"""
The sources of an answer, as OpenAI's annotations.

Google gives positions in bytes of the UTF-8 of the model's text; OpenAI's are in characters of the
content, which here also has the code that was executed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from io import StringIO
from itertools import chain, islice
from typing import Any

from gemproxy.chat.shapes import as_object, objects_in

Json = dict[str, Any]

# More would take long to place, and nobody reads them.
_SUPPORTS_LIMIT = 500
_SOURCES_LIMIT = 1000
# Characters of the longest content that is searched for a text without a true position.
_SEARCHED_LIMIT = 1_000_000
# Characters: no piece is longer, however the text came.
_PIECE = 4096


class Transcript:
    """The text of an answer, as it is told to the client."""

    def __init__(self) -> None:
        self._content = StringIO()
        # What is not the model's: where it begins and ends.
        self._others: list[tuple[int, int]] = []
        self._index: _Index | None = None

    def add(self, text: str, by_model: bool = True) -> None:
        """@param by_model: whether Google counts it as text of the model."""
        self._index = None
        if not by_model:
            begin = self._content.tell()
            self._others.append((begin, begin + len(text)))
        self._content.write(text)

    @property
    def content(self) -> str:
        return self._content.getvalue()

    def position(self, offset: int) -> int:
        """The position in the content for an offset in bytes in the model's text."""
        if self._index is None:
            self._index = _Index(self.content, self._others)
        return self._index.position(offset)


class _Index:
    """Finds positions in a L{Transcript}."""

    def __init__(self, content: str, others: list[tuple[int, int]]) -> None:
        # Of the model's pieces: where in its bytes they end, and where in the content they begin.
        self._ends: list[int] = []
        self._begins: list[int] = []
        self._texts: list[str] = []
        self._length = len(content)
        size = place = 0
        for begin, end in (*others, (self._length, self._length)):
            for start in range(place, begin, _PIECE):
                text = content[start : min(start + _PIECE, begin)]
                size += len(text.encode("utf-8", "surrogatepass"))
                self._ends.append(size)
                self._begins.append(start)
                self._texts.append(text)
            place = end

    def position(self, offset: int) -> int:
        place = bisect_left(self._ends, offset)
        if place == len(self._ends):
            return self._length
        before = self._ends[place - 1] if place else 0
        return self._begins[place] + _characters(self._texts[place], offset - before)


def _characters(text: str, offset: int) -> int:
    beginning = text.encode("utf-8", "surrogatepass")[:offset]
    return len(beginning.decode("utf-8", "ignore"))


def cited_sources(
    grounding: Json, url_context: Json, citation: Json, transcript: Transcript
) -> list[Json]:
    """
    What an answer cites, each source at each place once, up to a limit.

    @param grounding: the C{groundingMetadata} of the candidate; empty if there is none.
    @param url_context: its C{urlContextMetadata}, likewise.
    @param citation: its C{citationMetadata}, likewise.
    """
    content = transcript.content
    found = chain(
        _grounded(grounding, transcript, content),
        _cited(citation, transcript),
        _fetched(url_context, len(content)),
    )
    return [
        {
            "type": "url_citation",
            "url_citation": {"start_index": start, "end_index": end, "url": url, "title": title},
        }
        for start, end, url, title in dict.fromkeys(islice(found, _SOURCES_LIMIT))
    ]


_Citation = tuple[int, int, str, str]


def _grounded(grounding: Json, transcript: Transcript, content: str) -> Iterator[_Citation]:
    sources = [_source(chunk) for chunk in objects_in(grounding.get("groundingChunks"))]
    used = set()
    for support in objects_in(grounding.get("groundingSupports"))[:_SUPPORTS_LIMIT]:
        segment = as_object(support.get("segment"))
        start, end = _placed(segment, transcript, content)
        indices = support.get("groundingChunkIndices")
        for index in indices if isinstance(indices, list) else ():
            if isinstance(index, int) and 0 <= index < len(sources) and sources[index]:
                used.add(index)
                yield start, end, *sources[index]
    for index, source in enumerate(sources):
        # Found, but no part of the text is said to be from it.
        if source and index not in used:
            yield len(content), len(content), *source


def _placed(segment: Json, transcript: Transcript, content: str) -> tuple[int, int]:
    start = transcript.position(_whole(segment.get("startIndex")))
    end = transcript.position(_whole(segment.get("endIndex")))
    text = segment.get("text")
    if not isinstance(text, str) or len(content) > _SEARCHED_LIMIT:
        return start, max(start, end)
    if text and content[start:end] != text:
        # Of an answer with several parts, the offset is not always from the beginning of the text.
        found = content.find(text)
        if found >= 0:
            return found, found + len(text)
    return start, max(start, end)


def _cited(citation: Json, transcript: Transcript) -> Iterator[_Citation]:
    sources = citation.get("citationSources") or citation.get("citations")
    for source in objects_in(sources):
        url = source.get("uri")
        if isinstance(url, str) and url:
            title = source.get("title")
            start = transcript.position(_whole(source.get("startIndex")))
            end = transcript.position(_whole(source.get("endIndex")))
            yield start, max(start, end), url, title if isinstance(title, str) else url


def _fetched(url_context: Json, end: int) -> Iterator[_Citation]:
    for fetched in objects_in(url_context.get("urlMetadata")):
        url, status = fetched.get("retrievedUrl"), fetched.get("urlRetrievalStatus")
        if isinstance(url, str) and status in (None, "URL_RETRIEVAL_STATUS_SUCCESS"):
            yield end, end, url, url


def _source(chunk: Json) -> tuple[str, str] | tuple[()]:
    """The address and title of a source; nothing if it has no address."""
    for kind in ("web", "retrievedContext", "maps"):
        source = as_object(chunk.get(kind))
        url, title = source.get("uri"), source.get("title")
        if isinstance(url, str) and url:
            return url, title if isinstance(title, str) and title else url
    return ()


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
