"""The pieces of one choice of an answer, as chunks."""

from __future__ import annotations

from typing import Any

from gemproxy.backend import Answer
from gemproxy.chat.chunks import ChunkFactory
from gemproxy.gemini.translate.tools import Call


class Opening:
    """
    Sees that the choices of an answer begin in their order: openai-python numbers those of a
    stream by their first appearance.
    """

    def __init__(self) -> None:
        self._begun = 0

    def until(self, index: int) -> range:
        """The choices that have yet to begin, up to this one, for it to go on."""
        missing = range(self._begun, index + 1)
        self._begun = max(self._begun, index + 1)
        return missing


class ChoiceWriter:
    """
    Turns what a model says into the chunks of one choice.

    @ivar begun: whether anything went out, so that another try is out of the question.
    @ivar has_content: whether there is more than thoughts.
    """

    def __init__(
        self, answer: Answer, chunks: ChunkFactory, opening: Opening, index: int, one_call: bool
    ) -> None:
        """
        @param opening: shared by the choices of the answer.
        @param one_call: whether of several calls the client is to see the first alone.
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
        """All the calls that the model makes in this answer."""
        self.has_content = True
        if self._one_call:
            # The API has no word for it. The model calls again what it still wants called.
            calls = calls[:1]
        deltas = [delta for index, call in enumerate(calls) for delta in call.deltas(index)]
        self._send(*({"tool_calls": [delta]} for delta in deltas))

    def finish(self, reason: str) -> None:
        self._send({}, finish_reason=reason)

    def _send(self, *deltas: dict[str, Any], finish_reason: str | None = None) -> None:
        self.begun = True
        chunks = []
        for index in self._opening.until(self._index):
            # OpenAI's own answers have no content, not an empty one, beside calls alone.
            content = None if index == self._index and "tool_calls" in deltas[0] else ""
            chunks.append(
                self._chunks.delta({"role": "assistant", "content": content}, None, index)
            )
        chunks += [self._chunks.delta(delta, None, self._index) for delta in deltas[:-1]]
        chunks.append(self._chunks.delta(deltas[-1], finish_reason, self._index))
        self._answer.events(chunks)
