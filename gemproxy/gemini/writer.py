"""Writes one choice of a response as chunks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve

from gemproxy.backend import Answer
from gemproxy.chat.chunks import ChunkFactory
from gemproxy.chat.extra_content import extra_content
from gemproxy.chat.sse import Event
from gemproxy.gemini.translate.answer_media import Media, audio_object
from gemproxy.gemini.translate.outcomes import (
    explanation,
    finish_reason,
    native_finish_reason,
)
from gemproxy.gemini.translate.parameters import Parameters
from gemproxy.gemini.translate.reply import NativeResponse, Reply, Thought
from gemproxy.gemini.translate.tools import Call


class Opening:
    """
    Ensures that the choices of a response begin in order, because openai-python numbers the choices
    of a stream by first appearance.
    """

    def __init__(self) -> None:
        self._begun = 0

    def until(self, index: int) -> Iterable[int]:
        """The choices up to this one that must be begun before it can continue."""
        begun = self._begun
        if index < begun:
            return ()
        self._begun = index + 1
        return range(begun, index + 1)


class ChoiceWriter:
    """
    Converts a model's output into the chunks of one choice.

    @ivar has_content: whether anything besides thoughts was written.
    @ivar length: the number of characters written.
    """

    def __init__(
        self,
        answer: Answer,
        chunks: ChunkFactory,
        opening: Opening,
        index: int,
        wanted: Parameters,
    ) -> None:
        """@param opening: shared by the choices of the response."""
        self.has_content = False
        self.length = 0
        self._answer = answer
        self._chunks = chunks
        self._opening = opening
        self._index = index
        self._wanted = wanted
        self._is_begun = False
        self._held: NativeResponse | None = None

    def may_restart(self) -> bool:
        """
        Whether the choice can be written once more from its beginning: the client has seen nothing
        of it, or nothing but thoughts.
        """
        self._held = None
        if self._answer.take_back(self._index):
            self.has_content = False
            self.length = 0
        return not self.has_content

    def content(self, text: str) -> None:
        self.has_content = True
        self.length += len(text)
        if self._is_begun:
            self._answer.events((self._chunks.text(text, self._index),))
        else:
            self._send({"content": text})

    def thought(self, thought: Thought) -> None:
        if self._wanted.shows_thoughts:
            self.length += len(thought.text)
            signed = extra_content(thought.signature) if thought.signature else {}
            self._send({"reasoning_content": thought.text} | signed)

    def native(self, news: NativeResponse) -> None:
        """
        Write a response as it came. One that says that there is no answer waits until that is
        certain.
        """
        if not (self.has_content or news.is_content or news.thoughts):
            self._held = news
            return
        self._held = None
        self.has_content = self.has_content or news.is_content
        self.length += len(news.text) + len(news.thoughts)
        self._send(_native_delta(news))

    def finish_native(self, reply: Reply) -> None:
        """Write what is not in the responses, or had to wait. The calls are for the journal."""
        if self._held is not None:
            self._send(_native_delta(self._held))
        for index, call in enumerate(reply.calls):
            for delta in call.deltas(index):
                self._send({"tool_calls": [delta]})
        self._send(
            {},
            finish_reason=finish_reason(reply),
            native_finish_reason=native_finish_reason(reply),
        )

    def finish(self, reply: Reply) -> None:
        """
        Write what comes after the text: media, sources, the text's signature, calls, and the reason
        of the end.
        """
        self._media(reply.media)
        if sources := reply.annotations:
            self._send({"annotations": sources})
        reason = finish_reason(reply)
        calls = self._calls(reply.calls)
        # One for all texts: clients join the strings of deltas, and two signatures would be none.
        signature = reply.text_signature
        deltas: list[dict[str, Any]] = [extra_content(signature)] if signature else []
        for index, call in enumerate(calls):
            deltas += ({"tool_calls": [delta]} for delta in call.deltas(index))
        if deltas:
            self._send(*deltas)
        # OpenAI's models end with calls, whatever comes before them.
        if reply.calls and not calls:
            reason = "stop"
        elif not (calls or self.has_content) and reason != "length":
            self._send({"refusal": explanation(reply)})
        self._send({}, finish_reason=reason, native_finish_reason=native_finish_reason(reply))

    def _calls(self, calls: list[Call]) -> list[Call]:
        """The calls that the client is to make. The one that is the answer becomes the content."""
        answer_function = self._wanted.answer_function
        if answer_function is not None:
            others = [call for call in calls if call.name != answer_function.name]
            if calls and not others:
                self.content(answer_function.content(calls[0].arguments))
            calls = others
        if self._wanted.one_call:
            # The API has no such option. The model repeats the other calls if it still needs them.
            calls = calls[:1]
        names = self._wanted.client_names
        return [evolve(call, name=names.get(call.name, call.name)) for call in calls]

    def _media(self, media: list[Media]) -> None:
        for number, picture in enumerate(m for m in media if m.mime_type.startswith("image/")):
            self.has_content = True
            url = {"url": picture.url}
            self._send({"images": [{"type": "image_url", "image_url": url, "index": number}]})
        sound = [piece for piece in media if piece.mime_type.startswith("audio/")]
        if sound:
            self.has_content = True
            encoding, now = self._wanted.audio_format, self._chunks.created
            self._send({"audio": audio_object(sound, encoding, now)})

    def _send(
        self,
        *deltas: dict[str, Any],
        finish_reason: str | None = None,
        native_finish_reason: str | None = None,
    ) -> None:
        chunks = [] if self._is_begun else self._begun_by(deltas[-1])
        if len(deltas) > 1:
            chunks += [self._chunks.delta(delta, None, self._index) for delta in deltas[:-1]]
        chunks.append(
            self._chunks.delta(deltas[-1], finish_reason, self._index, native_finish_reason)
        )
        self._answer.events(chunks)

    def _begun_by(self, delta: dict[str, Any]) -> list[Event]:
        """The first chunks of the choices that are to be begun for the first of this choice's."""
        self._is_begun = True
        chunks = []
        for index in self._opening.until(self._index):
            # OpenAI sends null, not an empty string, as the content of a message with calls only.
            content = None if index == self._index and "tool_calls" in delta else ""
            chunks.append(
                self._chunks.delta({"role": "assistant", "content": content}, None, index)
            )
        return chunks


def _native_delta(news: NativeResponse) -> dict[str, Any]:
    delta: dict[str, Any] = {"content": news.text} if news.text else {}
    if news.thoughts:
        delta["reasoning_content"] = news.thoughts
    return delta | {"google_responses": [news.response]}
