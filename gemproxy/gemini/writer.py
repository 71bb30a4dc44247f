"""Writes one choice of a response as chunks."""

from __future__ import annotations

from typing import Any

from gemproxy.backend import Answer
from gemproxy.chat.chunks import ChunkFactory
from gemproxy.gemini.translate.tools import Call


class Opening:
    """
    Ensures that the choices of a response begin in order, because openai-python numbers the choices
    of a stream by first appearance.
    """

    def __init__(self) -> None:
        self._begun = 0

    def until(self, index: int) -> range:
        """The choices up to this one that must be begun before it can continue."""
        missing = range(self._begun, index + 1)
        self._begun = max(self._begun, index + 1)
        return missing


class ChoiceWriter:
    """
    Converts a model's output into the chunks of one choice.

    @ivar begun: whether anything was sent; a retry is then impossible.
    @ivar has_content: whether anything besides thoughts was sent.
    """

    def __init__(
        self, answer: Answer, chunks: ChunkFactory, opening: Opening, index: int, one_call: bool
    ) -> None:
        """
        @param opening: shared by the choices of the response.
        @param one_call: whether only the first of several calls is sent to the client.
        """
        self.begun = False
        self.has_content = False
        self._answer = answer
        self._chunks = chunks
        self._opening = opening
        self._index = index
        self._one_call = one_call

    def content(self, text: str) -> None:
        self.has_content = True
        self._send({"content": text})

    def thought(self, text: str) -> None:
        self._send({"reasoning_content": text})

    def calls(self, calls: list[Call]) -> None:
        """Write all calls that the model makes in this response."""
        self.has_content = True
        if self._one_call:
            # The API has no such option. The model repeats the other calls if it still needs them.
            calls = calls[:1]
        deltas = [delta for index, call in enumerate(calls) for delta in call.deltas(index)]
        self._send(*({"tool_calls": [delta]} for delta in deltas))

    def finish(self, reason: str) -> None:
        self._send({}, finish_reason=reason)

    def _send(self, *deltas: dict[str, Any], finish_reason: str | None = None) -> None:
        self.begun = True
        chunks = []
        for index in self._opening.until(self._index):
            # OpenAI sends null, not an empty string, as the content of a message with calls only.
            content = None if index == self._index and "tool_calls" in deltas[0] else ""
            chunks.append(
                self._chunks.delta({"role": "assistant", "content": content}, None, index)
            )
        chunks += [self._chunks.delta(delta, None, self._index) for delta in deltas[:-1]]
        chunks.append(self._chunks.delta(deltas[-1], finish_reason, self._index))
        self._answer.events(chunks)
